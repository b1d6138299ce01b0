import numpy as np
import pytest

from streamer.adaptation.augmentation import FAINT, Augmentation
from streamer.messages import SAMPLE_RATE


def clip(seconds=2.0, seed=0):
    """Something like speech: bursts of noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (rng.standard_normal(len(time)) * np.sin(4 * time) ** 2 * 0.1).astype(np.float32)


def with_clicks(places, size=SAMPLE_RATE * 2):
    samples = np.random.default_rng(1).standard_normal(size).astype(np.float32) * 1e-3
    samples[places] = 1.0
    return samples


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_what_comes_out_has_mean_0_and_deviation_1(strength):
    augment = Augmentation(np.random.default_rng(0), strength)
    for number in range(20):
        heard = augment(clip(0.3 + number / 5)).samples
        assert heard.dtype == np.float32
        assert heard.mean() == pytest.approx(0, abs=1e-3)
        assert heard.std() == pytest.approx(1, abs=1e-3)


def test_without_strength_only_the_silence_around_changes():
    augment = Augmentation(np.random.default_rng(0), 0.0)
    before = clip()
    heard = augment(before)
    assert heard.speed == 1
    inside = heard.samples[int(heard.offset) :][: len(before)]
    assert np.corrcoef(inside, before)[0, 1] > 0.999


def test_where_a_sample_went_is_told_to_the_millisecond():
    # The marks of the synthesizers are moved by it: a wrong sign would teach wrong phones.
    places = np.array([4_000, 12_000, 20_000, 28_000])
    augment = Augmentation(np.random.default_rng(3), 1.0)
    speeds = set()
    for _ in range(200):
        heard = augment(with_clicks(places))
        if np.abs(heard.samples).max() < 30:
            continue  # a room, a filter or noise has smeared the clicks
        for place in places:
            where = place / heard.speed + heard.offset
            near = slice(max(0, int(where) - 40), int(where) + 40)
            loudest = near.start + int(np.abs(heard.samples[near]).argmax())
            assert abs(loudest - where) < 16
        speeds.add(round(heard.speed, 3))
    assert min(speeds) < 0.95
    assert max(speeds) > 1.05


def test_the_same_chance_gives_the_same_sound():
    first, second = (Augmentation(np.random.default_rng(5), 1.0) for _ in range(2))
    for _ in range(5):
        assert np.array_equal(first(clip()).samples, second(clip()).samples)


def test_each_hearing_is_another():
    augment = Augmentation(np.random.default_rng(5), 1.0)
    assert len({augment(clip()).samples.tobytes() for _ in range(10)}) == 10


def test_very_short_and_silent_clips_come_through():
    augment = Augmentation(np.random.default_rng(0), 1.0)
    for samples in (np.zeros(400, np.float32), clip(0.02)):
        for _ in range(30):
            assert np.isfinite(augment(samples).samples).all()


def test_filling_is_faint_noise_not_zeros():
    noise = Augmentation(np.random.default_rng(0)).faint((2, 10_000))
    assert noise.std() == pytest.approx(FAINT, rel=0.05)
