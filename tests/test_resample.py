import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly

from streamer.core.resample import Resampler
from streamer.messages import SAMPLE_RATE

COMMON = (8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000, 192_000)
ODD = (8_001, 11_024, 12_345, 44_056, 44_101, 99_991)
"""Rates of damaged headers and old machines; the last one is prime."""


def noise(samples, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, samples).astype(np.float32)


def resampled(rate, blocks):
    resampler = Resampler(rate)
    pieces = [resampler.push(block) for block in blocks]
    return np.concatenate([*pieces, resampler.flush()])


def whole(rate, signal):
    common = np.gcd(rate, SAMPLE_RATE)
    return resample_poly(signal.astype(np.float64), SAMPLE_RATE // common, rate // common)


@pytest.mark.parametrize("rate", [*COMMON, *ODD])
def test_equals_scipy_over_the_whole_signal(rate):
    signal = noise(rate * 5 // 2 + 17)  # longer than the enormous filters of odd rates
    given_back = resampled(rate, np.array_split(signal, 43))
    expected = whole(rate, signal)
    assert given_back.dtype == np.float32
    assert len(given_back) == len(expected) == -(-len(signal) * SAMPLE_RATE // rate)
    np.testing.assert_allclose(given_back, expected, rtol=0, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), rate=st.sampled_from(COMMON) | st.integers(8_000, 192_000))
def test_any_split_gives_the_same_bits(data, rate):
    samples = data.draw(st.integers(0, rate // 10))
    signal = noise(samples)
    cuts = sorted(data.draw(st.lists(st.integers(0, samples), max_size=12)))
    assert np.array_equal(resampled(rate, np.split(signal, cuts)), resampled(rate, [signal]))


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_single_samples_give_the_same_bits(rate):
    signal = noise(rate // 4)
    assert np.array_equal(resampled(rate, signal.reshape(-1, 1)), resampled(rate, [signal]))


@pytest.mark.parametrize("rate", COMMON)
def test_an_impulse_keeps_its_time(rate):
    at = rate // 4
    signal = np.zeros(rate // 2, np.float32)
    signal[at] = 1
    blocks = np.array_split(signal, 7)
    assert np.argmax(resampled(rate, blocks)) == pytest.approx(at * SAMPLE_RATE / rate, abs=0.5)


def test_frequencies_that_would_fold_back_are_removed():
    time = np.arange(48_000) / 48_000
    tone = np.sin(2 * np.pi * 11_000 * time).astype(np.float32)
    assert np.abs(resampled(48_000, [tone])[200:-200]).max() < 0.01


@pytest.mark.parametrize("rate", [*COMMON, 11_024])
def test_output_comes_while_the_input_lasts_and_little_input_is_kept(rate):
    resampler = Resampler(rate)
    block = noise(rate // 50)
    given_back = 0
    for pushed in range(1, 501):
        given_back += len(resampler.push(block))
        behind = pushed * len(block) / rate - given_back / SAMPLE_RATE
        assert behind < 0.02
    assert len(resampler._input) < rate // 10


def test_an_empty_signal_stays_empty():
    assert len(resampled(48_000, [])) == 0
    assert len(resampled(48_000, [noise(0)])) == 0
    assert len(resampled(48_000, [noise(1)])) == 1
