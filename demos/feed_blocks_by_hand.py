"""Audio from anywhere, block by block: here a WAV file on standard input, as it arrives.

python demos/feed_blocks_by_hand.py < talk.wav
"""

import sys
import wave

import numpy as np

import streamer

with wave.open(sys.stdin.buffer) as file:
    settings = streamer.load_settings()
    recognizer = streamer.load_recognizer(settings)
    transcriber = streamer.Transcriber(recognizer, file.getframerate(), settings)

    def show(events):
        """Print what is new."""
        for event in events:
            if isinstance(event, streamer.Final):
                print(f"[{event.start:7.2f} s] {event.text}", flush=True)

    while data := file.readframes(4_000):
        block = np.frombuffer(data, "<i2").reshape(-1, file.getnchannels())
        show(transcriber.feed(block))
    show(transcriber.finish())
