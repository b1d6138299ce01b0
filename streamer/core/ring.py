"""Fixed memory between a thread that must never wait and one that may be late.

Theory of operation. Frames are numbered from 0 and frame `i` lives in row `i % capacity`. The
writer announces how far it is about to go (`_reserved`), copies, and then publishes how far it
came (`_written`). The reader copies first and looks at `_reserved` afterwards: whatever lies more
than one capacity behind that mark may have been overwritten under its hands, so it is dropped
from the copy and counted. There is no lock: each counter has one writer, and CPython's
interpreter lock orders the stores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt


class RingBuffer:
    """The newest `capacity` frames, for one writing and one reading thread.

    Args:
        capacity: frames that fit.
        channels: samples in a frame.
        dtype: type of a sample.

    Raises:
        ValueError: `capacity` or `channels` is below 1.
    """

    def __init__(self, capacity: int, channels: int, dtype: npt.DTypeLike) -> None:
        if capacity < 1 or channels < 1:
            raise ValueError(f"a ring of {capacity} × {channels} samples holds nothing")
        self.capacity = capacity
        self._rows = np.zeros((capacity, channels), dtype)
        self._reserved = 0
        self._written = 0
        self._read = 0

    @property
    def written(self) -> int:
        """Frames written so far: the absolute index of the next one."""
        return self._written

    def write(self, frames: npt.NDArray[Any]) -> None:
        """Append `frames`, shape (n, channels), over the oldest ones; the writer's thread only.

        Of more than `capacity` frames the newest are kept and all are counted.
        """
        kept = frames[-self.capacity :]
        end = self._written + len(frames)
        self._reserved = end
        row = (end - len(kept)) % self.capacity
        fits = self.capacity - row
        self._rows[row : row + len(kept)] = kept[:fits]
        if len(kept) > fits:
            self._rows[: len(kept) - fits] = kept[fits:]
        self._written = end

    def read(self, max_frames: int) -> tuple[int, npt.NDArray[Any], int]:
        """Take the oldest unread frames, at most `max_frames`; the reader's thread only.

        Returns:
            `(start, frames, lost)`: the absolute index of the first frame, a copy of shape
            (n, channels), and how many frames directly before `start` were overwritten unread.
        """
        expected = self._read
        written = self._written
        start = max(expected, written - self.capacity)
        row = start % self.capacity
        count = min(max_frames, written - start)
        fits = self.capacity - row
        frames = self._rows[row : row + count].copy()
        if count > fits:
            frames = np.concatenate([frames, self._rows[: count - fits]])
        torn = min(max(self._reserved - self.capacity - start, 0), count)
        self._read = start + count
        return start + torn, frames[torn:], start + torn - expected
