"""The pure core: numpy and scipy only. No thread, no device, no clock, no torch, no file.

ring.py       capture thread → reader, with an exact count of what was overwritten
resample.py   source rate → 16 kHz, the same samples however the input is split
highpass.py   offset, hum and rumble out, the same samples however the input is split
segmenter.py  voice decisions → spans of speech
ctc.py        log-probabilities → words, by the most probable path
beam.py       the same by what is probable as language too: ngram.py, hotwords.py, alignment.py
stitcher.py   overlapping windows → stable and tentative words
session.py    one speaker's whole state, built of the above
"""
