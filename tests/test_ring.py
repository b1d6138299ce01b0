from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.core.ring import RingBuffer


def numbered(start: int, count: int, channels: int = 1) -> np.ndarray:
    """Frames whose samples say which frame and channel they are."""
    frames = np.arange(start, start + count)[:, None] * channels
    return (frames + np.arange(channels)).astype(np.int64)


@given(
    capacity=st.integers(1, 12),
    channels=st.integers(1, 3),
    steps=st.lists(st.tuples(st.sampled_from("wr"), st.integers(0, 30)), max_size=60),
)
def test_every_frame_is_returned_in_place_or_counted_as_lost(capacity, channels, steps):
    ring = RingBuffer(capacity, channels, np.int64)
    written = accounted = 0
    for step, count in steps:
        if step == "w":
            ring.write(numbered(written, count, channels))
            written += count
            continue
        start, frames, lost = ring.read(count)
        assert start == accounted + lost
        assert lost == max(written - capacity - accounted, 0)
        assert len(frames) == min(count, written - start)
        assert np.array_equal(frames, numbered(start, len(frames), channels))
        accounted = start + len(frames)
    start, frames, lost = ring.read(capacity)
    assert (start + len(frames), ring.written) == (written, written)
    assert np.array_equal(frames, numbered(start, len(frames), channels))
    assert lost == start - accounted


def test_what_was_read_is_a_copy():
    ring = RingBuffer(4, 1, np.int64)
    ring.write(numbered(0, 4))
    _, frames, _ = ring.read(4)
    ring.write(numbered(100, 4))
    assert frames[:, 0].tolist() == [0, 1, 2, 3]


class WritesDuringRead(np.ndarray):
    """Rows that are overwritten while they are being copied."""

    def copy(self, order="C"):
        copied = super().copy(order)
        if action := getattr(self, "action", None):
            action()
        return copied

    def __array_finalize__(self, origin):
        self.action = getattr(origin, "action", None)


def test_frames_overwritten_while_they_are_copied_are_lost_not_returned():
    ring = RingBuffer(8, 1, np.int64)
    ring.write(numbered(0, 8))
    rows = ring._rows = ring._rows.view(WritesDuringRead)

    def overwrite():
        rows.action = ring._rows.action = None
        ring.write(numbered(8, 3))

    rows.action = overwrite
    start, frames, lost = ring.read(8)
    assert (start, lost, frames[:, 0].tolist()) == (3, 3, [3, 4, 5, 6, 7])
    start, frames, lost = ring.read(8)
    assert (start, lost, frames[:, 0].tolist()) == (8, 0, [8, 9, 10])


def test_two_threads_lose_nothing_uncounted_and_never_see_torn_frames():
    ring = RingBuffer(3_000, 2, np.int64)
    total = 3_000_000
    done = threading.Event()

    def write():
        sizes = np.random.default_rng(0).integers(1, 1_500, 100_000)
        at = 0
        for size in sizes:
            size = min(int(size), total - at)
            ring.write(numbered(at, size, 2))
            at += size
            if at == total:
                break
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    returned = lost_all = position = 0
    while True:
        finished = done.is_set()
        start, frames, lost = ring.read(2_000)
        assert start == position + lost
        assert np.array_equal(frames, numbered(start, len(frames), 2))
        returned += len(frames)
        lost_all += lost
        position = start + len(frames)
        if finished and not len(frames):
            break
    writer.join()
    assert returned + lost_all == total == ring.written
    assert returned > 0


@pytest.mark.parametrize(("capacity", "channels"), [(0, 1), (5, 0), (-1, 1)])
def test_a_ring_without_room_is_refused(capacity, channels):
    with pytest.raises(ValueError, match="holds nothing"):
        RingBuffer(capacity, channels, np.float32)
