"""A recording becomes text with word times: `python demos/transcribe_a_file.py talk.flac`."""

import sys

import streamer

transcript = streamer.transcribe(sys.argv[1], settings=streamer.load_settings())
print(transcript.text)
for segment in transcript.segments:
    for word in segment.words:
        print(f"{word.start:8.2f} {word.end:8.2f}  {word.confidence:4.2f}  {word.word}")
