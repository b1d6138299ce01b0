"""The loop: source → session → recognizer → sinks.

A source never waits for the recognizer. When recognition falls behind the clock, previews are
dropped; what is to become final text never is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

import streamer
from streamer.config import Settings
from streamer.core.highpass import HighPass
from streamer.core.session import Session, require_numbers
from streamer.errors import InputError, StreamerError
from streamer.messages import (
    SAMPLE_RATE,
    Block,
    Event,
    Final,
    Gap,
    Partial,
    SessionEnded,
    SessionStarted,
)
from streamer.recognition import load_recognizer
from streamer.recognition.vad import VoiceDetector
from streamer.sinks import Sink, Status
from streamer.sources import captured_s, say
from streamer.sources.clock import StreamClock
from streamer.sources.devices import find_input
from streamer.sources.files import RATES
from streamer.sources.microphone import Microphone
from streamer.sources.mixer import Mixer

if TYPE_CHECKING:
    import numpy.typing as npt

    from streamer.messages import LogProbs, Window
    from streamer.recognition.recognizer import Recognizer
    from streamer.sinks.journal import Journal
    from streamer.sources import Source

STATUS_EVERY_S = 0.1


@dataclass(slots=True)
class Work:
    """What a transcriber has done so far."""

    previews: int = 0
    """Windows of open utterances that were recognized."""
    dropped: int = 0
    """Those that came too late to be of use."""
    segments_s: float = 0.0
    """Seconds of finished segments, whether they turned out to be speech or noise."""


class Transcriber:
    """Audio in, events out: one speaker's session with a recognizer that may be shared.

    Args:
        recognizer: from `streamer.load_recognizer`.
        rate: samples a second of the audio that will be fed.
        settings: defaults where not given.
        previews: whether `Partial` events are to be made at all.
        now: the stream's clock in seconds. With it, events carry the time at which they were
            made, and previews that are older than their cadence are dropped; without it,
            everything depends on the audio alone.
        wants_previews: asked before each; they stop being of use when the end is near.

    Raises:
        InputError: no audio has such a rate.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        rate: int,
        settings: Settings | None = None,
        *,
        previews: bool = True,
        now: Callable[[], float] | None = None,
        wants_previews: Callable[[], bool] = lambda: True,
    ) -> None:
        if rate not in RATES:
            raise InputError(f"{rate} samples a second is no rate of audio; give the true one")
        settings = settings or Settings()
        self._recognizer = recognizer
        self._rate = rate
        self._now = now
        self._patience = settings.preview_ms / 1000
        self._wants_previews = wants_previews
        self._position = 0
        self._mixer = Mixer(rate)
        self._remarked = False
        self.work = Work()
        self._foreseen: tuple[tuple[int, int, int], LogProbs] | None = None
        self._session = Session(
            rate,
            settings,
            recognizer.vocabulary,
            recognizer.grid,
            VoiceDetector(settings.vad_mode, settings.vad_frame_ms),
            previews=previews,
            calibration=recognizer.calibration,
            decoder=recognizer.decoder,
        )

    @property
    def heard_s(self) -> float:
        """Seconds of audio fed so far."""
        return (self._position + self._mixer.waiting) / self._rate

    def feed(self, audio: npt.ArrayLike | Block | Gap) -> list[Partial | Final | Gap]:
        """Take the next audio and give what can be shown now.

        Args:
            audio: float32 within -1 … 1 or int16, shape (n,) or (n, channels), of any length; or
                a `Block` or `Gap` that begins where the last one ended.

        Raises:
            InputError: a sample is not a number; nothing of this audio has been taken.
        """
        if isinstance(audio, Gap):
            return [*self._mix_rest(), *self._take(audio), audio]
        item = audio if isinstance(audio, Block) else self._mixed(audio)
        require_numbers(item, self._rate)
        # Second by second, so that an hour in one piece does not become an hour of windows.
        pieces = range(0, len(item.samples), self._rate)
        return [
            event
            for first in pieces
            for event in self._take(
                Block(item.start + first, item.samples[first : first + self._rate])
            )
        ]

    def finish(self) -> list[Partial | Final | SessionEnded]:
        """End the audio: the last words, then the account. Nothing may be fed afterwards."""
        rest = self._mix_rest()
        return [*rest, *self._recognize(self._session.finish()), self._session.ended()]

    def _mixed(self, audio: npt.ArrayLike) -> Block:
        frames = _frames(audio)
        if not np.isfinite(frames).all():
            return Block(self._position, frames.sum(axis=1))  # it is refused, with its time
        samples = self._mixer.push(frames)
        if self._mixer.remark and not self._remarked:
            self._remarked = True
            say(self._mixer.remark)
        return Block(self._position, samples)

    def _mix_rest(self) -> list[Partial | Final]:
        """Recognize what the mixer held back: no more audio follows it."""
        rest = self._mixer.flush()
        return list(self._take(Block(self._position, rest))) if len(rest) else []

    def _take(self, item: Block | Gap) -> Iterator[Partial | Final]:
        windows = self._session.feed(item)
        self._position = item.end
        yield from self._recognize(windows)

    def _recognize(self, windows: Iterable[Window]) -> Iterator[Partial | Final]:
        for window in windows:
            if window.last:
                self.work.segments_s += (window.offset - window.onset) / SAMPLE_RATE
            elif self._too_late(window):
                self.work.dropped += 1
                continue
            else:
                self.work.previews += 1
            log_probs = self._log_probs(window)
            for event in self._session.accept(window, log_probs):
                yield event if self._now is None else replace(event, at=self._now())

    def _log_probs(self, window: Window) -> LogProbs:
        """A last window has often been recognized already, while its end was not yet sure."""
        asked = window.segment, window.start, len(window.samples)
        foreseen, self._foreseen = self._foreseen, None
        if foreseen and foreseen[0] == asked:
            return foreseen[1]
        log_probs = self._recognizer.log_probs(window.samples, draft=window.draft)
        if window.whole and not window.last:
            self._foreseen = asked, log_probs
        return log_probs

    def _too_late(self, window: Window) -> bool:
        if not self._wants_previews():
            return True
        return self._now is not None and self._now() - window.due / SAMPLE_RATE > self._patience


def events(
    source: Source,
    recognizer: Recognizer,
    settings: Settings | None = None,
    *,
    real_time: bool = True,
    on_audio: Callable[[Block | Gap, float], object] | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Everything that happens while `source` lasts, from `SessionStarted` to `SessionEnded`.

    Args:
        source: an opened source; stopping it ends the iteration after the pending words.
        recognizer: from `streamer.load_recognizer`.
        settings: defaults where not given.
        real_time: whether the source follows the clock, so that late previews are dropped.
        on_audio: told of every item before it is recognized, and of its lag in seconds.
        stopping: whether the end has been asked for, so that previews are of no use any more.

    Raises:
        StreamerError: the source failed; the pending words and the account came before.
    """
    clock = StreamClock()
    transcriber = Transcriber(
        recognizer,
        source.rate,
        settings,
        now=clock.now if real_time else None,
        wants_previews=lambda: not stopping(),
    )
    yield SessionStarted(recognizer.name, source.name, source.rate, streamer.__version__)
    failure: StreamerError | None = None
    hole: Gap | None = None
    try:
        for item in source:
            if hole and not _goes_on(hole, item):
                yield hole
                hole = None
            heard = item.end / source.rate
            clock.arrived(max(heard, captured_s(source)))
            if on_audio:
                on_audio(item, clock.now() - heard)
            for event in transcriber.feed(item):
                if isinstance(event, Gap):
                    hole = replace(hole, end=event.end) if hole else event
                else:
                    yield event
    except StreamerError as error:
        failure = error
    if hole:
        yield hole
    yield from transcriber.finish()
    if failure:
        raise failure


def _goes_on(gap: Gap, item: Block | Gap) -> bool:
    """Whether the item is more of the same gap: of an outage the beginning is known at once."""
    return isinstance(item, Gap) and (item.start, item.reason) == (gap.end, gap.reason)


def listen(
    settings: Settings | None = None, *, recognizer: Recognizer | None = None
) -> Iterator[Event]:
    """The events of a microphone, until the iterator is closed.

    Args:
        settings: `device` names the microphone; defaults where not given.
        recognizer: from `load_recognizer`; loaded when not given.

    Raises:
        DeviceError: no such microphone, or it does not deliver.
        ModelError: the model cannot be loaded.
    """
    settings = settings or Settings()
    device = find_input(settings.device)
    recognizer = recognizer or load_recognizer(settings)
    with Microphone(device, settings.ring_seconds) as microphone:
        yield from events(microphone, recognizer, settings)


def run(
    source: Source,
    recognizer: Recognizer,
    settings: Settings,
    sinks: Sequence[Sink],
    *,
    real_time: bool,
    journal: Journal | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Show everything that `source` gives on all `sinks`, until it ends or is stopped.

    A sink that fails ends the session too, but the others still get the pending words.

    Args:
        source, recognizer, settings, real_time, stopping: as for `events`.
        sinks: entered here, and left at the end.
        journal: a sink that also keeps the audio.

    Raises:
        StreamerError: the source failed; the pending words and the account were shown before.
        OSError: a sink failed.
    """
    failure: OSError | None = None
    working = list(sinks)

    def tell(report: Callable[[Sink], None]) -> None:
        nonlocal failure
        for sink in tuple(working):
            try:
                report(sink)
            except OSError as error:
                failure = failure or error
                working.remove(sink)
                source.stop()

    meter = _Meter(source, recognizer.name)

    def on_audio(item: Block | Gap, lag_s: float) -> None:
        if journal:
            journal.audio(item)
        status = meter.read(item, lag_s)
        if status:
            tell(lambda sink: sink.status(status))

    with ExitStack() as stack:
        for sink in sinks:
            stack.enter_context(sink)
        for event in events(
            source,
            recognizer,
            settings,
            real_time=real_time,
            on_audio=on_audio,
            stopping=stopping,
        ):
            tell(partial(_show, event))
    if failure:
        raise failure


def _show(event: Event, sink: Sink) -> None:
    sink.show(event)


class _Meter:
    """What the status line says: level, lag, cost and loss."""

    def __init__(self, source: Source, model: str) -> None:
        self._source = source
        self._model = model
        self._began = self._shown = time.monotonic()
        self._cpu_began = time.process_time()
        self._heard = 0
        self._lost = 0
        self._high_pass = HighPass(source.rate)

    def read(self, item: Block | Gap, lag_s: float) -> Status | None:
        """Take the next item; a status if it is time for one."""
        level = -100.0
        if isinstance(item, Gap):
            self._lost += item.end - item.start
            self._high_pass = HighPass(self._source.rate)
        else:
            self._heard += len(item.samples)
            voice = self._high_pass.push(item.samples)
            power = float(np.mean(np.square(voice))) if len(voice) else 0.0
            level = 10 * math.log10(max(power, 1e-10))
        now = time.monotonic()
        if now - self._shown < STATUS_EVERY_S:
            return None
        self._shown = now
        heard_s = self._heard / self._source.rate
        return Status(
            device=self._source.name,
            model=self._model,
            level_db=level,
            lag_s=lag_s,
            cost=(time.process_time() - self._cpu_began) / max(heard_s, 1.0),
            lost_s=self._lost / self._source.rate,
            elapsed_s=now - self._began,
        )


def _frames(audio: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Any array of audio as float32 of shape (n, channels)."""
    array = np.asarray(audio)
    if array.dtype == np.int16:
        array = array.astype(np.float32) / 32768
    elif not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"audio of type {array.dtype} is not supported; give float32 or int16")
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or not array.shape[1]:
        raise InputError(f"audio of shape {array.shape} is not supported; give (n,) or (n, c)")
    return array.astype(np.float32)
