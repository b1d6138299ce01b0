"""Sound from files and pipes, in blocks, and the pace of real time for either.

libsndfile reads the files. It is lenient with damaged ones, so what it lets pass is checked here:
audio that ends before its header says, no audio at all, a sample rate that no device has, and
samples that are no finite numbers.
"""

from __future__ import annotations

import io
import os
import re
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np

from streamer.errors import InputError
from streamer.messages import SAMPLE_RATE, Block, Gap
from streamer.sources import Bell, Closing, Source, quiet_stderr
from streamer.sources.mixer import Mixer

if TYPE_CHECKING:
    import numpy.typing as npt

    from streamer.messages import Samples

BLOCKS_A_SECOND = 10
RATES = range(1_000, 768_001)
"""Samples a second that are taken for true."""

_OTHER_FORMATS = {4: b"ftyp", 0: b"\x1aE\xdf\xa3", 1: b"!AMR"}
_MP3_SLACK = 2 * 1_152
_ENDLESS = 0x7FFF_F000
"""Lengths from here on mean "not known yet": what programs write that stream into a pipe."""


def read_audio(path: Path | str) -> tuple[Samples, int]:
    """A whole file: mono samples, and how many there are in a second.

    Raises:
        InputError: as `AudioFile`.
    """
    with AudioFile(path) as file:
        return np.concatenate([block.samples for block in file]), file.rate


class AudioFile(Closing):
    """A file as a source of mono blocks at its own rate, read as it is consumed.

    Attributes: `frames` in the whole file, an estimate for MP3; `name` without the folder.

    Raises:
        InputError: missing, empty, not audio, of a format to be converted first; while
            iterating, when it turns out damaged, shorter than it says, or has samples that are
            not finite.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = path = Path(path)
        self._stopping = False
        self.name = path.name
        self._opened, head = _readable(path)
        try:
            with self._explained(), quiet_stderr():
                import soundfile

                self._file = soundfile.SoundFile(self._opened)
            # soundfile seeks after every read of a file that can seek, which restarts an MP3
            # decoder: measured on a tone, three samples of four were wrong.
            self._file.seekable = lambda: False
        except InputError:
            self._close_opened()
            raise
        self.rate = int(self._file.samplerate)
        self.frames = int(self._file.frames)
        self._promised = self._promise(head)
        try:
            self._check()
        except InputError:
            self.close()
            raise

    def stop(self) -> None:
        """End the iteration after the block that is being read."""
        self._stopping = True

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._close_opened()

    def _close_opened(self) -> None:
        if isinstance(self._opened, _StreamedWav):
            self._opened.close()

    def __iter__(self) -> Iterator[Block]:
        mono = _Downmix(self, self.rate)
        while not self._stopping:
            with self._explained(), quiet_stderr():
                frames = self._file.read(
                    max(self.rate // BLOCKS_A_SECOND, 1), dtype="float32", always_2d=True
                )
            if not np.isfinite(frames).all():
                raise InputError(
                    f"{self._path}: has samples that are not finite numbers in the block from "
                    f"{mono.taken / self.rate:.1f} s on; export it again"
                )
            if not len(frames):
                break
            yield from mono.push(frames)
        yield from mono.flush()
        if not self._stopping and mono.taken < self._promised:
            raise self._truncated(mono.taken, self._promised)

    def _promise(self, head: bytes) -> int:
        """How many frames must be there for the file to be whole."""
        if self._file.format == "MP3":
            # Without a Xing or Info frame the count is a guess from the first bit rate (seen four
            # times too high); with one, padding that is not decoded is counted (seen: 270).
            return self.frames - _MP3_SLACK if b"Xing" in head or b"Info" in head else 0
        if sphere := re.search(rb"^NIST_1A.*?\nsample_count -i (\d+)", head, re.DOTALL):
            return int(sphere[1])
        return self.frames

    def _check(self) -> None:
        if self.rate not in RATES:
            raise InputError(
                f"{self._path}: damaged header, claims {self.rate} samples a second; "
                "export it again"
            )
        # libsndfile quietly shortens what is cut off and says so only in its log.
        for claimed, found in re.findall(
            r"^ *(?:data|SSND|riff|Data Size) *: (\d+) \(should be (\d+)\)",
            self._file.extra_info,
            re.MULTILINE,
        ):
            if int(found) < int(claimed) < _ENDLESS:
                raise self._truncated(int(found), int(claimed), "bytes")
        if not self.frames:
            raise InputError(f"{self._path}: holds no audio; record or export it again")

    def _truncated(self, found: int, claimed: int, unit: str = "samples") -> InputError:
        return InputError(
            f"{self._path}: ends early, after {found} of {claimed} {unit}; copy or export it again"
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError, ValueError) as error:  # LibsndfileError is a RuntimeError
            reason = getattr(error, "error_string", None) or "damaged"
            raise InputError(
                f"{self._path}: not audio that can be read ({str(reason).rstrip('.')}); "
                "convert it to WAV or FLAC, e.g. with ffmpeg"
            ) from error


_FILE_MAGIC = (b"RIFF", b"fLaC", b"OggS", b"ID3")


class PcmStream(Closing):
    """Headerless little-endian 16-bit samples from a binary file object, such as stdin.

    Blocks come as soon as their bytes do, at most 0.1 s each. The object is not closed.

    Args:
        stream: has `read1` (and `fileno`, or reading it never blocks).
        rate: samples a second.
        channels: interleaved channels, downmixed.

    Raises:
        InputError: while iterating: no data at all, an incomplete sample at the end (after
            everything before it was delivered), or an unreadable stream.
    """

    def __init__(
        self, stream: BinaryIO | io.BufferedIOBase, rate: int = SAMPLE_RATE, channels: int = 1
    ) -> None:
        self.rate = rate
        self.name = "standard input" if _descriptor(stream) == 0 else "pipe"
        self._stream: Any = stream
        self._frame_bytes = 2 * channels
        self._stopping = False
        self._waking, self._wake = os.pipe()

    def stop(self) -> None:
        """End the iteration, even while it waits for data."""
        if not self._stopping:
            self._stopping = True
            with suppress(OSError):  # closed already
                os.write(self._wake, b"!")

    def close(self) -> None:
        """Release what `stop` needs; the stream stays open."""
        self._stopping = True
        if self._wake >= 0:
            os.close(self._waking)
            os.close(self._wake)
            self._waking = self._wake = -1

    def __iter__(self) -> Iterator[Block]:
        mono = _Downmix(self, self.rate)
        rest = b""
        most = max(self.rate // BLOCKS_A_SECOND, 1) * self._frame_bytes
        while self._wait():
            try:
                data = self._stream.read1(most - len(rest))
            except (OSError, ValueError) as error:
                raise InputError(f"{self.name}: cannot be read ({error})") from error
            if data is None:  # a descriptor in non-blocking mode, woken for nothing
                continue
            if not data:
                yield from mono.flush()
                if rest:
                    raise InputError(
                        f"{self.name}: ends inside a sample ({len(rest)} bytes over); send "
                        "16-bit little-endian samples"
                    )
                if not mono.taken:
                    raise InputError(
                        f"{self.name}: no audio came; send 16-bit little-endian samples"
                    )
                return
            if not mono.taken and data.startswith(_FILE_MAGIC):
                raise InputError(
                    f"{self.name}: this is an audio file, not raw samples; give its name to --input"
                )
            data = rest + data
            whole = len(data) - len(data) % self._frame_bytes
            rest = data[whole:]
            if whole:
                frames = np.frombuffer(data[:whole], "<i2").astype(np.int16, copy=False)
                yield from mono.push(frames.reshape(-1, self._frame_bytes // 2))

    def _wait(self) -> bool:
        """Until there is something to read (true) or `stop` is called."""
        descriptor = _descriptor(self._stream)
        if self._stopping or descriptor is None:
            return not self._stopping
        poll = select.poll()
        poll.register(self._waking, select.POLLIN)
        poll.register(descriptor, select.POLLIN)
        poll.poll()
        return not self._stopping


class _Downmix:
    """Frames in, mono blocks out. What people should know of the channels, the source tells."""

    def __init__(self, source: AudioFile | PcmStream, rate: int) -> None:
        self.taken = 0
        self._source = source
        self._mixer = Mixer(rate)
        self._given = 0
        self._told = False

    def push(self, frames: npt.NDArray[Any]) -> Iterator[Block]:
        self.taken += len(frames)
        yield from self._block(self._mixer.push(frames))
        if self._mixer.remark and not self._told:
            self._told = True
            self._source.notice(f"{self._source.name}: {self._mixer.remark}")

    def flush(self) -> Iterator[Block]:
        yield from self._block(self._mixer.flush())

    def _block(self, samples: Samples) -> Iterator[Block]:
        if len(samples):
            yield Block(self._given, samples)
            self._given += len(samples)


class paced(Closing):  # noqa: N801 - reads as the verb it is: paced(AudioFile(path))
    """Another source whose blocks come as a microphone's would: when their last sample is due.

    Due times are counted from the first block on the monotonic clock, so that there is no drift,
    and a consumer that fell behind gets what is due at once.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._bell = Bell()
        self._stopping = False
        self._begin: float | None = None

    @property
    def captured_s(self) -> float:
        """Seconds that are due, read or not."""
        return 0.0 if self._begin is None else time.monotonic() - self._begin

    @property
    def rate(self) -> int:
        """Samples a second."""
        return self._source.rate

    @property
    def name(self) -> str:
        """The source's name."""
        return self._source.name

    @property
    def notice(self) -> Callable[[str], None]:
        """Where the source's remarks go."""
        return self._source.notice

    @notice.setter
    def notice(self, take: Callable[[str], None]) -> None:
        self._source.notice = take

    def stop(self) -> None:
        """End the iteration now; what is not due yet is not delivered."""
        self._stopping = True
        self._source.stop()
        self._bell.ring()

    def close(self) -> None:
        """Close the source."""
        self._source.__exit__(None, None, None)

    def __enter__(self) -> Self:
        self._source.__enter__()
        return self

    def __iter__(self) -> Iterator[Block | Gap]:
        for item in self._source:
            if self._begin is None:
                self._begin = time.monotonic() - item.start / self.rate
            due = self._begin + item.end / self.rate
            while not self._stopping and (left := due - time.monotonic()) > 0:
                self._bell.wait(left)
            if self._stopping:
                return
            yield item


def _readable(path: Path) -> tuple[Any, bytes]:
    """What libsndfile should open (the path, or the file with its length filled in), its head.

    Raises:
        InputError: there is no such file, or nothing in it that could be audio.
    """
    try:
        if path.exists() and not path.is_file():
            raise OSError(0, "it is a folder" if path.is_dir() else "it is no regular file")
        with path.open("rb") as file:
            head = file.read(4_096)
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: cannot be opened ({reason}); check the name") from error
    if not head:
        raise InputError(f"{path}: is empty; record or export it again")
    if path.suffix.lower() in (".raw", ".pcm"):
        raise InputError(
            f"{path}: has no header that says what is in it; send 16-bit samples at "
            f"{SAMPLE_RATE} Hz to `streamer listen --input -`"
        )
    if any(head.startswith(mark, at) for at, mark in _OTHER_FORMATS.items()):
        raise InputError(
            f"{path}: convert it first, e.g. with `ffmpeg -i {path.name} {path.stem}.wav`"
        )
    at = _unfilled_length(head)
    return (_StreamedWav(path, at, size - at - 4) if at and size > at + 4 else path), head


def _unfilled_length(head: bytes) -> int:
    """Where a WAV's data length is that its writer left at zero; 0 if there is no such place."""
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return 0
    at = 12
    while at + 8 <= len(head):
        length = int.from_bytes(head[at + 4 : at + 8], "little")
        if head[at : at + 4] == b"data":
            return 0 if length else at + 4
        at += 8 + length + length % 2
    return 0


class _StreamedWav(io.FileIO):
    """A WAV written into a pipe, read as if its data length had been filled in at byte `at`."""

    def __init__(self, path: Path, at: int, length: int) -> None:
        super().__init__(path)
        self._at = at
        self._length = min(length, 0xFFFF_FFFF).to_bytes(4, "little")

    def readinto(self, buffer: Any) -> int:
        begin = self.tell()
        count = super().readinto(buffer)
        view = memoryview(buffer).cast("B")
        for place, byte in enumerate(self._length, self._at - begin):
            if 0 <= place < count:
                view[place] = byte
        return count


def _descriptor(stream: Any) -> int | None:
    try:
        return int(stream.fileno())
    except (OSError, ValueError, AttributeError):  # io.UnsupportedOperation is both of the first
        return None
