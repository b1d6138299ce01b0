"""Long speech without pauses: no word is doubled, lost or broken where it has to be cut."""

from __future__ import annotations

import numpy as np
import pytest

from streamer import Settings, load_recognizer, transcribe
from streamer.corpora.recordings import find_recordings
from streamer.messages import SAMPLE_RATE
from training.cuts import Cuts, around_cuts, at_16_khz, with_short_pauses


@pytest.mark.parametrize(
    ("finals", "near_errors", "far_errors"),
    [
        (["a b c d", "e f g h"], 0, 0),
        (["a b c d", "d e f g h"], 1, 0),  # doubled
        (["a b c", "e f g h"], 1, 0),  # lost
        (["a b c d", "e f x h"], 0, 1),
        (["a b c d", "e f g"], 0, 1),
    ],
)
def test_errors_are_counted_where_they_are(finals, near_errors, far_errors):
    found = around_cuts("a b c d e f g h", finals)
    assert (found.cuts, found.near_errors, found.far_errors) == (1, near_errors, far_errors)


def test_a_pause_is_shortened_and_nothing_else():
    tone = np.sin(np.arange(SAMPLE_RATE, dtype=np.float32))
    silence = np.zeros(SAMPLE_RATE, np.float32)
    short = with_short_pauses(np.concatenate((tone, silence, tone)), 0.1)
    assert len(short) == pytest.approx(2.1 * SAMPLE_RATE, abs=0.05 * SAMPLE_RATE)


def test_words_beside_a_cut_are_as_right_as_others(speech_dir):
    settings = Settings(max_utterance_s=10)
    recognizer = load_recognizer()
    total = Cuts()
    for recording in find_recordings(speech_dir / "long.tsv", join=True)[:4]:
        clips = recording.clips[:7]
        samples = with_short_pauses(np.concatenate([at_16_khz(clip.path) for clip in clips]), 0.05)
        heard = transcribe(samples, SAMPLE_RATE, recognizer=recognizer, settings=settings)
        texts = [segment.text for segment in heard.segments]
        total += around_cuts(" ".join(clip.text for clip in clips), texts)
    assert total.cuts >= 20
    # As often wrong as elsewhere would be a few words; a cut inside of words costs one or two each.
    assert total.near_errors <= total.near * total.far_errors / total.far + total.cuts / 2, total
