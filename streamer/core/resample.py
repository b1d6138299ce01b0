"""Streaming resampling to the model's rate with scipy's polyphase filter.

Theory of operation. `scipy.signal.resample_poly` raises the rate by `up`, filters with a
symmetric low-pass of 2·half + 1 taps and keeps every `down`-th sample. Its output k is centred on
input k·down/up, so timestamps need no correction: the filter's delay shows only as output that
has to wait for `half / up` more input samples. Here the same filter runs over a moving piece of
the input whose first sample is a multiple of `down`, which keeps every output in the polyphase
branch that the one-call version uses: the sums are the same additions in the same order.
"""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING

import numpy as np
from scipy.signal import firwin, upfirdn

from streamer.messages import SAMPLE_RATE

if TYPE_CHECKING:
    from streamer.messages import Samples


class Resampler:
    """From `rate` to `SAMPLE_RATE`; any split of the input gives the same samples.

    Output k lies at the time of input sample k · rate / SAMPLE_RATE. `flush` ends the signal as
    if silence followed, as `resample_poly` does.
    """

    def __init__(self, rate: int) -> None:
        common = gcd(rate, SAMPLE_RATE)
        self._up = SAMPLE_RATE // common
        self._down = rate // common
        widest = max(self._up, self._down)
        self._half = 10 * widest if widest > 1 else 0
        taps = np.ones(1)
        if widest > 1:
            taps = firwin(2 * self._half + 1, 1.0 / widest, window=("kaiser", 5.0)) * self._up
        lead = -self._half % self._down
        self._taps = np.concatenate((np.zeros(lead), taps))
        self._skip = (self._half + lead) // self._down
        # Filtering costs a fixed amount a call: single samples wait for 5 ms of company. At rates
        # with no divisor in common with SAMPLE_RATE the filter is enormous, so they wait for 100.
        self._batch = max(1, rate // 200, self._down // 10)
        self._input: Samples = np.zeros(0, np.float32)
        self._first = 0
        self._received = 0
        self._emitted = 0

    def push(self, samples: Samples) -> Samples:
        """Take input of shape (n,), give the output that no later input can change."""
        self._input = np.concatenate((self._input, samples))
        self._received += len(samples)
        ready = -(-(self._received * self._up - self._half) // self._down)
        if (ready - self._emitted) * self._down < self._batch * self._up:
            return np.zeros(0, np.float32)
        return self._emit(ready, self._input)

    def flush(self) -> Samples:
        """Give the rest; nothing may be pushed afterwards."""
        total = -(-self._received * self._up // self._down)
        tail = np.zeros(self._half // self._up + 1, np.float32)
        return self._emit(total, np.concatenate((self._input, tail)))

    def _emit(self, ready: int, signal: Samples) -> Samples:
        offset = self._skip - self._first * self._up // self._down
        filtered = upfirdn(self._taps, signal.astype(np.float64), self._up, self._down)
        output: Samples = filtered[self._emitted + offset : ready + offset].astype(np.float32)
        self._emitted = max(ready, self._emitted)
        oldest = (self._emitted * self._down - self._half) // self._up
        first = max(self._first, oldest // self._down * self._down)
        self._input = self._input[first - self._first :]
        self._first = first
        return output
