"""One clip of speech, heard in another way: what it says stays, how it sounds changes.

A model that hears each clip once only learns the clip. Speed (with pitch), rooms, equalizers,
band limits, coarse codecs, noise, level and clipped starts are drawn at random.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq

from streamer.evaluation.padding import FAINT
from streamer.messages import SAMPLE_RATE

if TYPE_CHECKING:
    from streamer.messages import Samples


@dataclass(frozen=True, slots=True)
class Heard:
    """A clip after augmentation.

    `samples` have mean 0 and deviation 1; what was at sample `p` of the clip is now at
    `p / speed + offset`.
    """

    samples: Samples
    speed: float
    offset: float


class Augmentation:
    """Draws other ways of hearing a clip.

    Args:
        rng: where chance comes from.
        strength: 0 changes nothing but the silence around the clip, 1 is for training from
            nothing; between them, the chance of each change scales.
    """

    def __init__(self, rng: np.random.Generator, strength: float = 1.0) -> None:
        self._rng = rng
        self._strength = strength
        self._noises = [self._coloured_noise(20 * SAMPLE_RATE, slope) for slope in (0, 0.5, 1, 1.5)]

    def __call__(self, clip: Samples) -> Heard:
        """Hear `clip`, shape (n,), at `SAMPLE_RATE`, in a new way."""
        rng, speed, cut = self._rng, 1.0, 0
        sound = np.asarray(clip, np.float32)
        sound = sound / (sound.std() + 1e-6)
        if self._chance(0.1):
            cut = int(rng.integers(0, min(1_600, len(sound) // 4 + 1)))
            sound = sound[cut:]
        if self._chance(0.75):
            speed = rng.uniform(0.88, 1.13)
            sound = at_speed(sound, speed)
        if self._chance(0.55):
            sound = self._filtered(sound)
        if self._chance(0.1):
            sound = _coarse(sound, levels=int(rng.integers(24, 128)))
        if self._chance(0.15):
            knots = rng.uniform(0.35, 1.0, max(2, len(sound) // SAMPLE_RATE))
            where = np.linspace(0, len(knots) - 1, len(sound))
            sound = sound * np.interp(where, np.arange(len(knots)), knots).astype(np.float32)
        level = sound.std() + 1e-6
        before, after = (int(n) for n in rng.integers(0, 3_600, 2))
        silence = 10 ** rng.uniform(-3, -1.5) if self._strength else FAINT
        sound = np.concatenate(
            [self._noise(before) * level * silence, sound, self._noise(after) * level * silence]
        )
        if self._chance(0.5):
            sound = sound + self._noise(len(sound)) * level * 10 ** (-rng.uniform(6, 42) / 20)
        sound = ((sound - sound.mean()) / (sound.std() + 1e-7)).astype(np.float32)
        return Heard(sound, speed, before - cut / speed)

    def faint(self, shape: tuple[int, ...]) -> Samples:
        """Noise at the level of a quiet room."""
        return self._rng.standard_normal(shape, np.float32) * np.float32(FAINT)

    def _chance(self, probability: float) -> bool:
        return self._rng.random() < probability * self._strength

    def _noise(self, size: int) -> Samples:
        """A piece of noise of some colour, of deviation about one."""
        noise = self._noises[self._rng.integers(len(self._noises))]
        while size > len(noise):
            noise = np.concatenate([noise, noise])
        first = self._rng.integers(0, len(noise) - size + 1)
        return noise[first : first + size]

    def _coloured_noise(self, size: int, slope: float) -> Samples:
        """Noise whose amplitude falls with frequency to the power of `slope`."""
        spectrum = rfft(self._rng.standard_normal(size, np.float32))
        spectrum /= np.maximum(rfftfreq(size, 1 / SAMPLE_RATE), 60.0) ** slope
        noise = irfft(spectrum, size)
        coloured: Samples = (noise / noise.std()).astype(np.float32)
        return coloured

    def _filtered(self, sound: Samples) -> Samples:
        """Room, equalizer and band limits, in one multiplication of spectra."""
        rng = self._rng
        echo = int(SAMPLE_RATE * rng.uniform(0.05, 0.35)) if rng.random() < 0.4 else 0
        size = next_fast_len(len(sound) + echo, real=True)
        frequencies = rfftfreq(size, 1 / SAMPLE_RATE)
        octaves = np.log2(np.maximum(frequencies, 50) / 1_000)
        gain = 10 ** (octaves * rng.uniform(-5, 5) / 20)
        if rng.random() < 0.25:
            gain *= _edge(frequencies, rng.uniform(3_000, 7_000), 300)
        if rng.random() < 0.25:
            gain *= 1 - _edge(frequencies, rng.uniform(80, 350), 40)
        if echo:
            room = rng.standard_normal(echo) * np.exp(-np.arange(echo) * rng.uniform(3, 8) / echo)
            room[0] = rng.uniform(2, 12)
            gain = gain * rfft(room, size)
        heard: Samples = irfft(rfft(sound, size) * gain, size)[: len(sound)].astype(np.float32)
        return heard


def at_speed(sound: Samples, speed: float) -> Samples:
    """Sound played faster, or slower below 1; pitch and formants move with it."""
    positions = np.arange(int(len(sound) / speed)) * speed
    heard: Samples = np.interp(positions, np.arange(len(sound)), sound).astype(np.float32)
    return heard


def _edge(frequencies: Samples, corner: float, width: float) -> Samples:
    """1 below the corner frequency, 0 above."""
    share: Samples = 1 / (1 + np.exp(np.clip((frequencies - corner) / width, -30, 30)))
    return share


def _coarse(sound: Samples, levels: int) -> Samples:
    """As through a codec that compands (mu-law) and keeps few levels."""
    peak = np.abs(sound).max() + 1e-6
    compressed = np.sign(sound) * np.log1p(255 * np.abs(sound) / peak) / np.log(256)
    compressed = np.round(compressed * levels) / levels
    expanded: Samples = np.expm1(np.abs(compressed) * np.log(256)) / 255
    coarse: Samples = (np.sign(sound) * peak * expanded).astype(np.float32)
    return coarse
