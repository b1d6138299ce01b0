"""Samples that a program already holds become text; the model is loaded once for all of them."""

import sys

import soundfile

import streamer

settings = streamer.load_settings()
recognizer = streamer.load_recognizer(settings)
for name in sys.argv[1:]:
    samples, rate = soundfile.read(name)
    transcript = streamer.transcribe(samples, rate, recognizer=recognizer, settings=settings)
    print(f"{name}: {transcript.text}")
