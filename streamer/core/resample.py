"""Streaming resampling to the model's rate with a polyphase filter.

Theory of operation. As `scipy.signal.resample_poly` does: the rate is raised by `up`, a symmetric
low-pass of 2·half + 1 taps removes what the lower rate cannot hold, and every `down`-th sample is
kept. Output k is centred on input k·down/up, so timestamps need no correction: the filter's delay
shows only as output that has to wait for `half / up` more input samples. Of the taps, output k
meets only those `up` apart that begin at its phase, (half + k·down) mod up; they lie in a row of
a table, and each output is one row times a stretch of the input. A row is summed by itself, so
the samples are the same however the input was split.

Written here because importing `scipy.signal` takes longer than loading the models.
"""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING

import numpy as np

from streamer.messages import SAMPLE_RATE

if TYPE_CHECKING:
    from streamer.messages import Samples

_BETA = 5.0
"""Of the Kaiser window, as in `resample_poly`."""
_ROWS = 1 << 16
"""Outputs that are computed together, at most: an hour in one piece must not need gigabytes."""


class Resampler:
    """From `rate` to `SAMPLE_RATE`; any split of the input gives the same samples.

    Output k lies at the time of input sample k · rate / SAMPLE_RATE. `flush` ends the signal as
    if silence followed.
    """

    def __init__(self, rate: int) -> None:
        common = gcd(rate, SAMPLE_RATE)
        self._up = SAMPLE_RATE // common
        self._down = rate // common
        widest = max(self._up, self._down)
        self._half = 10 * widest if widest > 1 else 0
        taps = _low_pass(self._half, widest) * self._up
        # Row p: the taps at p, p + up, p + 2·up …, turned around to meet the input in its order.
        self._width = -(-len(taps) // self._up)
        padded = np.zeros(self._width * self._up)
        padded[: len(taps)] = taps
        self._table = np.ascontiguousarray(padded.reshape(self._width, self._up).T[:, ::-1])
        # Filtering costs a fixed amount a call: single samples wait for 5 ms of company.
        self._batch = max(1, rate // 200)
        # Silence goes before the first sample, so that every output meets a whole row.
        self._input = np.zeros(self._width, np.float32)
        self._first = -self._width
        self._received = 0
        self._emitted = 0

    def push(self, samples: Samples) -> Samples:
        """Take input of shape (n,), give the output that no later input can change."""
        if not self._half:
            return samples
        self._input = np.concatenate((self._input, samples))
        self._received += len(samples)
        ready = -(-(self._received * self._up - self._half) // self._down)
        if (ready - self._emitted) * self._down < self._batch * self._up:
            return np.zeros(0, np.float32)
        return self._emit(ready)

    def flush(self) -> Samples:
        """Give the rest; nothing may be pushed afterwards."""
        if not self._half:
            return np.zeros(0, np.float32)
        total = -(-self._received * self._up // self._down)
        tail = np.zeros(self._half // self._up + 1, np.float32)
        self._input = np.concatenate((self._input, tail))
        return self._emit(total)

    def _emit(self, ready: int) -> Samples:
        parts = [
            self._rows(start, min(start + _ROWS, ready))
            for start in range(self._emitted, ready, _ROWS)
        ]
        self._emitted = max(ready, self._emitted)
        oldest = (self._half + self._emitted * self._down) // self._up - self._width + 1
        if oldest > self._first:
            self._input = self._input[oldest - self._first :]
            self._first = oldest
        return np.concatenate([np.zeros(0, np.float32), *parts])

    def _rows(self, start: int, end: int) -> Samples:
        places = self._half + np.arange(start, end) * self._down
        newest, phase = np.divmod(places, self._up)
        stretches = np.lib.stride_tricks.sliding_window_view(self._input, self._width)
        inputs = stretches[newest - self._width + 1 - self._first]
        summed = np.einsum("ij,ij->i", inputs, self._table[phase], dtype=np.float64)
        return np.asarray(summed, np.float32)


def _low_pass(half: int, widest: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """2·half + 1 taps that keep what is below 1 / `widest` of the raised rate's half."""
    if not half:
        return np.ones(1)
    taps = np.sinc(np.arange(-half, half + 1) / widest) * np.kaiser(2 * half + 1, _BETA)
    return np.asarray(taps / taps.sum(), np.float64)
