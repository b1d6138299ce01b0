"""Live capture: a device's callback fills a ring buffer, the reader takes blocks from it.

Theory of operation. PortAudio calls `_Capture._heard` on its own thread every `BLOCK_MS`. It
copies the frames into the ring, notes what the device says it dropped, rings a bell and returns;
nothing the recognizer does can make it wait. The reader, on whatever thread iterates, turns ring
positions into absolute sample indices: it adds what was lost before, so an index is always the
time since the first captured sample.

Samples can be lost in four ways, and each becomes a `Gap` at its place: the reader was later
than the ring is long (`overflow`, exact); the device overflowed and says so (`device-overflow`:
the jump of the device's clock against the count of samples, else that of the machine's); samples
stopped coming for a while and nobody says so (`interrupted`: see `losses`; until that is decided
the reader waits); the device went away (`device-lost`: the clock). A lost device is looked for by
name until it is back or patience ends.
"""

from __future__ import annotations

import atexit
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from streamer.core.ring import RingBuffer
from streamer.errors import DeviceError
from streamer.messages import Block, Gap
from streamer.sources import Bell, Closing, quiet_stderr
from streamer.sources.devices import Device, find_again, one_line, portaudio, refresh
from streamer.sources.losses import ON_TIME_S, LossDetector, elapsed
from streamer.sources.mixer import Mixer

if TYPE_CHECKING:
    import numpy.typing as npt

    from streamer.messages import Samples

BLOCK_MS = 20
"""What the device hands over at a time. Left to choose (0), PortAudio and PulseAudio together
deliver the first audio two seconds late, or stall for good when the sound server goes away."""
RECOVERY_S = 30
"""How long a lost device is looked for."""

_FALLBACK_RATES = (48_000, 44_100, 32_000, 16_000, 8_000)
_SLICE_S = 0.25
_SILENT_SLICES = 8
_CALL_S = 10
_QUIETEST_DB = -120.0

T = TypeVar("T")


class Microphone(Closing):
    """One input device as a source of mono blocks at the device's own rate.

    Args:
        device: from `find_input`.
        ring_seconds: audio that may wait for a slow reader before the oldest is lost.
        rate: samples a second to insist on; the device's own when not given.

    Raises:
        DeviceError: on entering, when the device refuses every format; while iterating, when it
            is lost and does not come back within `RECOVERY_S`.
    """

    def __init__(self, device: Device, ring_seconds: int = 30, rate: int | None = None) -> None:
        self.name = device.name
        self._device = device
        self._ring_seconds = ring_seconds
        self._rate = rate
        self._capture: _Capture | None = None
        self._bell = Bell()
        self._stopping = False
        self._position = 0
        self._offset = 0
        self._accounted_drops = 0
        self._mixer: Mixer | None = None
        self._told = False
        self._newest: Samples = np.zeros(0, np.float32)

    @property
    def rate(self) -> int:
        """Samples a second, fixed once the device is open."""
        return self._rate or self._device.default_rate

    @property
    def captured_s(self) -> float:
        """Stream seconds that were captured or are known to be lost, read or not."""
        capture, samples = self._capture, self._offset + self._position
        if capture:
            samples = self._offset + capture.ring.written + capture.lost - self._accounted_drops
        return samples / self.rate

    @property
    def level(self) -> float:
        """Loudness of the newest block in dB below full scale (0 loudest, -120 silence)."""
        block = self._newest
        power = float(np.mean(np.square(block))) if len(block) else 0.0
        return max(10 * math.log10(power), _QUIETEST_DB) if power > 0 else _QUIETEST_DB

    def stop(self) -> None:
        """End the iteration once everything captured so far has been delivered."""
        self._stopping = True
        self._bell.ring()

    def __enter__(self) -> Self:
        self._attach(self._open(self._device))
        return self

    def close(self) -> None:
        """Let go of the device; what is still in the ring is dropped."""
        capture, self._capture = self._capture, None
        if capture:
            capture.close()

    def __iter__(self) -> Iterator[Block | Gap]:
        silent = 0
        while capture := self._capture:
            stopping = self._stopping
            if stopping:
                capture.close()
            ended = stopping or silent >= _SILENT_SLICES or not capture.active
            if ended:
                capture.decide()
            if items := self._take(capture):
                silent = 0
                yield from items
            elif ended:
                silent = 0
                yield from self._mixed_rest()
                if stopping:
                    return
                yield from self._recover(capture)
            else:
                # Slices, not one clock: a process that was suspended has lost only one of them.
                silent = 0 if self._bell.wait(_SLICE_S) else silent + 1

    def _take(self, capture: _Capture) -> list[Block | Gap]:
        """Up to a second of what the ring holds, cut where the device dropped samples."""
        begin = self._position
        start, frames, _ = capture.ring.read(min(self.rate, capture.readable - begin))
        end = start + len(frames)
        items: list[Block | Gap] = []

        def pass_on(until: int) -> None:
            lost_end = min(until, start)
            if self._position < lost_end:
                items.extend(self._mixed_rest())
                items.append(self._gap(lost_end - self._position, "overflow"))
                self._position = lost_end
            if self._position < until:
                items.extend(self._mixed(frames[self._position - start : until - start]))

        while capture.holes and capture.holes[0][0] < end:
            place, lost, reason = capture.holes.popleft()
            pass_on(min(max(place, begin), end))
            items.extend(self._mixed_rest())
            items.append(self._gap(lost - self._accounted_drops, reason))
            self._offset += lost - self._accounted_drops
            self._accounted_drops = lost
        pass_on(end)
        return items

    def _mixed(self, frames: npt.NDArray[Any]) -> Iterator[Block]:
        """What can be given of the frames at `_position`, and of those that waited before."""
        self._mixer = mixer = self._mixer or Mixer(self.rate)
        start = self._offset + self._position - mixer.waiting
        samples = mixer.push(frames)
        self._position += len(frames)
        if mixer.remark and not self._told:
            self._told = True
            self.notice(f"{self.name}: {mixer.remark}")
        yield from self._block(start, samples)

    def _mixed_rest(self) -> Iterator[Block]:
        """What waited: here the audio is interrupted."""
        if self._mixer:
            rest = self._mixer.flush()
            yield from self._block(self._offset + self._position - len(rest), rest)

    def _block(self, start: int, samples: Samples) -> Iterator[Block]:
        if len(samples):
            self._newest = samples
            yield Block(start, samples)

    def _gap(self, length: int, reason: str) -> Gap:
        start = self._offset + self._position
        return Gap(start, start + length, self.rate, reason)

    def _recover(self, lost: _Capture) -> Iterator[Gap]:
        """Wait for the same device, or give up.

        The first gap comes at once, so that what was said before becomes final; the second, which
        begins where the first ends, when the device delivers again. People are told at once that
        they are not heard.
        """
        self._capture = None
        self.notice(f"{self.name}: lost, nothing is heard; waiting up to {RECOVERY_S} s for it")
        deadline = time.monotonic() + RECOVERY_S
        failure: DeviceError | None = None
        hole_from = elapsed()
        yield self._outage(hole_from - lost.newest_at)
        resumed = 0.0
        while not (self._capture or self._stopping or time.monotonic() > deadline):
            try:
                lost.close()
                capture = self._reopened()
                resumed = capture.first_at
                self._attach(capture)
            except _NoAnswerError as error:
                failure = error
                break
            except DeviceError as error:
                failure = error
                self._bell.wait(1)
        yield self._outage((resumed or elapsed()) - hole_from)
        if not (self._capture or self._stopping):
            reason = str(failure).removeprefix(f"{self.name}: ")
            raise DeviceError(
                f"{self.name}: lost while recording and not recovered: {reason}"
            ) from failure

    def _outage(self, seconds: float) -> Gap:
        gap = self._gap(max(round(seconds * self.rate), 1), "device-lost")
        self._offset += gap.end - gap.start
        return gap

    def _reopened(self) -> _Capture:
        if not _Capture.open_count:
            _answered(refresh, self.name)
        capture = self._open(find_again(self._device))
        for _ in range(_SILENT_SLICES):
            if capture.first_at or self._stopping:
                break
            self._bell.wait(_SLICE_S)
        if not capture.first_at:
            capture.close()
            raise DeviceError(f"{self.name}: opens, but delivers nothing")
        return capture

    def _attach(self, capture: _Capture) -> None:
        self._capture = capture
        self._rate = capture.rate
        self._offset += self._position
        self._position = 0
        self._accounted_drops = 0
        self._mixer = None  # it may have other channels

    def _open(self, device: Device) -> _Capture:
        sd = portaudio()
        rates = (self._rate,) if self._rate else (device.default_rate, *_FALLBACK_RATES)
        failure: Exception | None = None
        for rate in dict.fromkeys(rates):
            for channels in device.channel_choices:
                for dtype in ("float32", "int16"):
                    try:
                        return _Capture(
                            device, rate, channels, dtype, self._ring_seconds, self._bell.ring
                        )
                    except (sd.PortAudioError, ValueError) as error:
                        failure = failure or error
        tried = f"{rates[0]} Hz" if self._rate else f"{rates[0]} Hz and other rates"
        raise DeviceError(
            f"{device.name}: refuses to record at {tried} ({one_line(failure or Exception())}); "
            "close programs that use it, or choose another with `streamer devices`"
        ) from failure


class _NoAnswerError(DeviceError):
    """PortAudio hangs: there is no point in asking again."""


class _Capture:
    """One open stream: its ring, and what the callback noticed.

    `holes` holds (ring position, frames lost until then, reason): running totals, so that entries
    pushed out of the bounded queue are still in the next one's figure.
    """

    open_count = 0

    def __init__(
        self,
        device: Device,
        rate: int,
        channels: int,
        dtype: str,
        ring_seconds: int,
        heard: Callable[[], None],
    ) -> None:
        self.rate = rate
        self.ring = RingBuffer(rate * ring_seconds, channels, dtype)
        self.holes: deque[tuple[int, int, str]] = deque(maxlen=1_000)
        self.lost = 0
        self.first_at = 0.0
        self.newest_at = elapsed()
        self._name = device.name
        self._ring_bell = heard
        self._due = 0.0
        self._detector = LossDetector(rate)
        self._deciding = threading.Lock()
        self._held: int | None = None
        self._reported = False

        def open_stream() -> Any:
            stream = portaudio().InputStream(
                device=device.index,
                samplerate=rate,
                channels=channels,
                dtype=dtype,
                blocksize=rate * BLOCK_MS // 1_000,
                callback=self._heard,
                finished_callback=heard,
            )
            try:
                stream.start()
            except Exception:
                stream.close()
                raise
            return stream

        self._stream: Any = _answered(open_stream, device.name)
        _Capture.open_count += 1

    @property
    def active(self) -> bool:
        """Whether the device may still deliver."""
        return bool(self._stream and self._stream.active)

    @property
    def readable(self) -> int:
        """Frames, of those written, that no hole can be put into any more."""
        written = self.ring.written  # before the next line: a doubt is raised before it is written
        held = self._held
        return written if held is None else min(written, held)

    def decide(self) -> None:
        """Nothing more will come: make everything readable."""
        with self._deciding:
            self._note(self._detector.decide())
            self._held = None

    def _note(self, hole: tuple[int, int] | None) -> None:
        if hole:
            reason = "device-overflow" if self._reported else "interrupted"
            self.lost += hole[1]
            self.holes.append((hole[0], self.lost, reason))
            self._reported = False

    def close(self) -> None:
        """Stop capturing; what is in the ring stays."""
        stream, self._stream = self._stream, None
        if stream:
            _answered(stream.close, self._name)
            _Capture.open_count -= 1

    def _heard(self, frames: Any, count: int, times: Any, status: Any) -> None:
        """PortAudio's callback, on its thread: copy, count, return."""
        self.newest_at = elapsed()
        if not self.first_at:
            self.first_at = self.newest_at - count / self.rate
        captured_at = times.inputBufferAdcTime
        begin = self.ring.written
        with self._deciding:  # held by the reader only when nothing more is expected
            at_least = 0
            if status.input_overflow:
                jump = captured_at - self._due if self._due else 0.0
                at_least = max(round(jump * self.rate), 1)
                if jump > ON_TIME_S:
                    self._note(self._detector.decide())
                    self._detector.count(at_least)
                    self._reported = True
                    self._note((begin, at_least))
                    at_least = 0
            self._reported = self._reported or at_least > 0
            self._note(
                self._detector.arrived(self.newest_at, begin, begin + count, at_least=at_least)
            )
            self._held = self._detector.undecided
            self._due = captured_at + count / self.rate
            self.ring.write(frames)
        self._ring_bell()


def _answered(action: Callable[[], T], name: str) -> T:
    """Call PortAudio, which never returns when a sound server hangs: give up on it then.

    Raises:
        _NoAnswerError: PortAudio is stuck for good, so its cleanup at exit is skipped too.
    """
    answer: queue.SimpleQueue[tuple[T | None, Exception | None]] = queue.SimpleQueue()

    def call() -> None:
        try:
            answer.put((action(), None))
        except Exception as error:
            answer.put((None, error))

    with quiet_stderr():
        threading.Thread(target=call, name="portaudio", daemon=True).start()
        try:
            result, failure = answer.get(timeout=_CALL_S)
        except queue.Empty:
            atexit.unregister(portaudio()._exit_handler)
            raise _NoAnswerError(
                f"{name}: the sound system does not answer; restart it or connect again"
            ) from None
    if failure:
        raise failure
    return result  # type: ignore[return-value]
