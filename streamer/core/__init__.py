"""The pure core: numpy and scipy only. No thread, no device, no clock, no torch, no file.

ring.py            capture thread → reader, with an exact count of what was overwritten
resample.py        source rate → 16 kHz, the same samples however the input is split
highpass.py        offset, hum and rumble out, the same samples however the input is split
endpointer.py      voice decisions → utterances
window_planner.py  utterances → the windows worth recognizing
ctc.py             log-probabilities → words, by the most probable path
beam.py            the same by what is probable as language too: ngram.py, hotwords.py, alignment.py
hypothesis.py      what a session asks of one utterance's text
stitcher.py        overlapping windows → stable and tentative words
ctc_hypothesis.py  one utterance's text by a CTC network: what is shown, what is noise
session.py         one stream's whole state, built of the above
"""
