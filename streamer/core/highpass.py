"""Everything below the voice is taken out: offset, rumble, hum, thumps.

Theory of operation. A Chebyshev filter of the second kind falls to its stopband within an octave
and is flat above, so mains hum goes and the deepest voices stay. It starts as if the mean of the
first `SETTLING_MS` had been there for ever: a constant goes without a click at the beginning.
That is the length of a whole period of 50 Hz, so hum does not shift the mean.

The filter looks back on its own output, sample by sample, for which Python is too slow. So it goes
by blocks of `BLOCK` samples: what a block's samples give from a filter at rest is one table, what
the filter's state gives is another, and only the states follow one another. It is designed and
computed here because importing `scipy.signal` takes longer than loading the models.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from streamer.messages import SAMPLE_RATE

if TYPE_CHECKING:
    import numpy.typing as npt

    from streamer.messages import Samples

    Table = npt.NDArray[np.float64]

STOPBAND_HZ, STOPBAND_DB, ORDER = 65, 45, 6
"""Hum of 50 and 60 Hz, 6 dB louder than the voice, ends 39 dB below it; -3 dB are at 99 Hz.
Measured on 24 recordings with the embedded model (251 words): 139 errors without a filter, 143
with it; with an offset, a power-on pop, or a tone of 20, 50 or 60 Hz in them 163 to 219 without,
141 to 143 with it. Filtering only what the voice detection hears leaves 178 with 60 Hz."""
SETTLING_MS = 20
BLOCK = 80


@dataclass(frozen=True, slots=True)
class _Filter:
    """The filter by blocks of n = `BLOCK` samples, with a state of `ORDER` numbers.

    `of_input` (n, n) and `of_state` (n, ORDER) make the output, `next_of_input` (ORDER, n) and
    `next_of_state` (ORDER, ORDER) the state after it. `settled` is the state after a constant 1
    that has always been there.
    """

    of_input: Table
    of_state: Table
    next_of_input: Table
    next_of_state: Table
    settled: Table


class HighPass:
    """The voice band of one unbroken stretch of audio; any split gives the same samples.

    Up to `BLOCK` samples wait for the rest of their block; at the beginning, up to `SETTLING_MS`.

    Args:
        rate: samples a second, at least 1,000.
    """

    def __init__(self, rate: int = SAMPLE_RATE) -> None:
        self._filter = _design(rate)
        self._state = np.zeros(ORDER)
        self._first = SETTLING_MS * rate // 1_000
        self._begun = False
        self._waiting: Samples = np.zeros(0, np.float32)

    def push(self, samples: Samples) -> Samples:
        """Take samples of shape (n,), give those whose blocks are complete."""
        self._waiting = np.concatenate((self._waiting, samples))
        if not self._begun and len(self._waiting) < self._first:
            return np.zeros(0, np.float32)
        whole = len(self._waiting) // BLOCK * BLOCK
        return self._take(whole)

    def flush(self) -> Samples:
        """Give what still waits; nothing may be pushed afterwards."""
        rest = len(self._waiting)
        if not rest:
            return np.zeros(0, np.float32)
        self._begin()
        missing = -rest % BLOCK
        self._waiting = np.concatenate((self._waiting, np.zeros(missing, np.float32)))
        return self._take(rest + missing)[:rest]

    def _begin(self) -> None:
        if not self._begun:
            mean = np.mean(self._waiting[: self._first], dtype=np.float64)
            self._state = self._filter.settled * float(mean)
            self._begun = True

    def _take(self, count: int) -> Samples:
        self._begin()
        blocks = self._waiting[:count].astype(np.float64).reshape(-1, BLOCK)
        self._waiting = self._waiting[count:]
        pushes = _product(blocks, self._filter.next_of_input)
        states = np.empty((len(blocks), ORDER))
        for index, push in enumerate(pushes):
            states[index] = self._state
            self._state = (self._filter.next_of_state * self._state).sum(axis=1) + push
        output = _product(blocks, self._filter.of_input) + _product(states, self._filter.of_state)
        return np.asarray(output.ravel(), np.float32)


def _product(rows: Table, table: Table) -> Table:
    """rows · tableᵀ; a row's result does not depend on how many there are, as with BLAS."""
    return np.asarray(np.einsum("ij,kj->ik", rows, table), np.float64)


@lru_cache
def _design(rate: int) -> _Filter:
    sections = _sections(rate)
    # Columns: a filter at rest that hears a one first, and those that hear nothing, in each state.
    state = np.concatenate((np.zeros((ORDER, 1)), np.eye(ORDER)), axis=1)
    heard = np.zeros((BLOCK, 1 + ORDER))
    heard[0, 0] = 1
    outputs = np.empty_like(heard)
    states = np.empty((BLOCK, ORDER, 1 + ORDER))
    for sample in range(BLOCK):
        outputs[sample], state = _advance(sections, heard[sample], state)
        states[sample] = state
    response = outputs[:, 0]
    lags = np.arange(BLOCK)[:, None] - np.arange(BLOCK)
    one = np.ones(1)
    (_, step), matrix = _advance(sections, one, np.zeros((ORDER, 1))), states[0][:, 1:]
    return _Filter(
        of_input=np.where(lags >= 0, response[np.abs(lags)], 0.0),
        of_state=np.ascontiguousarray(outputs[:, 1:]),
        next_of_input=np.ascontiguousarray(states[::-1, :, 0].T),
        next_of_state=np.ascontiguousarray(states[-1][:, 1:]),
        settled=np.linalg.solve(np.eye(ORDER) - matrix, step[:, 0]),
    )


def _advance(sections: list[tuple[Any, Any]], x: Table, state: Table) -> tuple[Table, Table]:
    """One sample through the sections (transposed direct form II), for several states at once."""
    following = np.empty_like(state)
    for index, (b, a) in enumerate(sections):
        first, second = state[2 * index], state[2 * index + 1]
        y = b[0] * x + first
        following[2 * index] = b[1] * x - a[1] * y + second
        following[2 * index + 1] = b[2] * x - a[2] * y
        x = y
    return x, following


def _sections(rate: int) -> list[tuple[Any, Any]]:
    """Numerators and denominators of second order, as `scipy.signal.cheby2` designs them."""
    spread = np.arcsinh(np.sqrt(10 ** (STOPBAND_DB / 10) - 1)) / ORDER
    angles = np.pi * np.arange(1 - ORDER, ORDER, 2) / (2 * ORDER)
    zeros = 1j / np.sin(angles)
    poles = -1 / (np.sinh(spread) * np.cos(angles) + 1j * np.cosh(spread) * np.sin(angles))
    # From low-pass to high-pass, which is 1 far above the corner, then to the sampled filter.
    corner = 2 * rate * np.tan(np.pi * STOPBAND_HZ / rate)
    zeros, poles = corner / zeros, corner / poles
    gain = float(np.real(np.prod(2 * rate - zeros) / np.prod(2 * rate - poles)))
    zeros, poles = ((2 * rate + roots) / (2 * rate - roots) for roots in (zeros, poles))
    sections = []
    for index in np.flatnonzero(np.imag(poles) > 0):
        # The zero that belongs to a pole has its angle; all come in conjugate pairs.
        zero, pole = zeros[index], poles[index]
        b, a = (np.array([1, -2 * root.real, abs(root) ** 2]) for root in (zero, pole))
        sections.append((b, a))
    return [(b * gain if not i else b, a) for i, (b, a) in enumerate(sections)]
