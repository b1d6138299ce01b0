"""The loop: source → session → recognizer → sinks.

A source never waits for the recognizer. When recognition falls behind the clock, previews are
dropped; what is to become final text never is.
"""

from __future__ import annotations

import dataclasses
import math
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

import numpy as np

import streamer
from streamer.config import Settings
from streamer.core.session import Session, require_numbers
from streamer.errors import InputError, OutputError, StreamerError
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
from streamer.recognition import load_recognizer, require_same_words
from streamer.recognition.vad import VoiceDetector
from streamer.sinks import Sink, Status
from streamer.sources.devices import find_input
from streamer.sources.files import RATES
from streamer.sources.microphone import Microphone

if TYPE_CHECKING:
    import numpy.typing as npt

    from streamer.messages import LogProbs, Samples, Window
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
        SettingsError: the settings expect other words than the recognizer was loaded with.
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
        require_same_words(settings, recognizer)
        self._recognizer = recognizer
        self._rate = rate
        self._now = now
        self._patience = settings.preview_ms / 1000
        self._wants_previews = wants_previews
        self._position = 0
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
        return self._position / self._rate

    def feed(self, audio: npt.ArrayLike | Block | Gap) -> list[Partial | Final | Gap]:
        """Take the next audio and give what can be shown now.

        Args:
            audio: float32 within -1 … 1 or int16, shape (n,) or (n, channels), of any length; or
                a `Block` or `Gap` that begins where the last one ended.

        Raises:
            InputError: a sample is not a number; nothing of this audio has been taken.
        """
        item = audio if isinstance(audio, Block | Gap) else Block(self._position, _mono(audio))
        if isinstance(item, Gap):
            return [*self._take(item), item]
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
        return [*self._recognize(self._session.finish()), self._session.ended()]

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
                yield event if self._now is None else dataclasses.replace(event, at=self._now())

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


class StreamClock:
    """Seconds since the first captured sample, by the monotonic clock.

    A block cannot arrive before its last sample was captured, so the earliest arrival seen,
    relative to the sample count, tells best when the stream began.
    """

    def __init__(self) -> None:
        self._began: float | None = None

    def arrived(self, seconds: float) -> None:
        """Audio up to this stream time has just arrived."""
        began = time.monotonic() - seconds
        self._began = began if self._began is None else min(self._began, began)

    def now(self) -> float:
        """Stream time in seconds; 0 before anything arrived."""
        return 0.0 if self._began is None else time.monotonic() - self._began


def events(
    source: Source,
    recognizer: Recognizer,
    settings: Settings | None = None,
    *,
    real_time: bool = True,
    on_audio: Callable[[Block | Gap, float], object] | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Generator[Event, None, None]:
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
    try:
        for item in source:
            heard = item.end / source.rate
            clock.arrived(heard)
            if on_audio:
                on_audio(item, clock.now() - heard)
            yield from transcriber.feed(item)
    except StreamerError as error:
        failure = error
    yield from transcriber.finish()
    if failure:
        raise failure


class Listener(Iterator[Event]):
    """A microphone that is being heard; `listen` makes one. It iterates over the events.

    A context manager: leaving it closes it, as forgetting it does.
    """

    def __init__(self, microphone: Microphone, recognizer: Recognizer, settings: Settings) -> None:
        self._asked_to_stop: list[bool] = []
        self._microphone = microphone
        asked = self._asked_to_stop
        self._events = events(microphone, recognizer, settings, stopping=lambda: bool(asked))
        # At exit PortAudio ends by itself, and no thread could be started to close the device.
        weakref.finalize(self, microphone.close).atexit = False

    def stop(self) -> None:
        """End the iteration after the last words and the account; from any thread or signal."""
        self._asked_to_stop.append(True)
        self._microphone.stop()

    def close(self) -> None:
        """End at once: what was not recognized yet is dropped. Again does nothing.

        While another thread iterates, it is a `stop`.
        """
        try:
            self._events.close()
        except ValueError:  # another thread is inside the generator
            self.stop()
            return
        self._microphone.close()

    def __next__(self) -> Event:
        try:
            return next(self._events)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def listen(settings: Settings | None = None, *, recognizer: Recognizer | None = None) -> Listener:
    """Listen to a microphone. It is open when this returns, before that the model is loaded.

    What is said meanwhile is not lost, up to `ring_seconds`.

    Args:
        settings: `device` names the microphone; defaults where not given; `load_settings()` for
            those of the command line.
        recognizer: from `load_recognizer`; loaded when not given.

    Returns:
        The events, from `SessionStarted` on; `stop()` ends them with the last words.

    Raises:
        DeviceError: no such microphone; while iterating, when it is lost for good.
        ModelError: the model cannot be loaded.
        SettingsError: the settings expect other words than the recognizer was loaded with.
    """
    settings = settings or Settings()
    if recognizer:
        require_same_words(settings, recognizer)
    with ExitStack() as stack:
        microphone = Microphone(find_input(settings.device), settings.ring_seconds)
        stack.enter_context(microphone)
        listener = Listener(microphone, recognizer or load_recognizer(settings), settings)
        stack.pop_all()
        return listener


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
        OutputError, OSError: a sink failed.
    """
    failure: OutputError | OSError | None = None
    working = list(sinks)

    def tell(report: Callable[[Sink], None]) -> None:
        nonlocal failure
        for sink in tuple(working):
            try:
                report(sink)
            except (OutputError, OSError) as error:
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
        self._shown = time.monotonic()
        self._cpu_began = time.process_time()
        self._heard = 0
        self._lost = 0

    def read(self, item: Block | Gap, lag_s: float) -> Status | None:
        """Take the next item; a status if it is time for one."""
        level = -100.0
        if isinstance(item, Gap):
            self._lost += item.end - item.start
        else:
            self._heard += len(item.samples)
            power = float(np.mean(np.square(item.samples))) if len(item.samples) else 0.0
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
            elapsed_s=item.end / self._source.rate + max(lag_s, 0.0),
        )


def _mono(audio: npt.ArrayLike) -> Samples:
    """Any array of audio as float32 of shape (n,)."""
    array = np.asarray(audio)
    if array.dtype == np.int16:
        array = array.astype(np.float32) / 32768
    elif not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"audio of type {array.dtype} is not supported; give float32 or int16")
    if array.ndim == 2 and array.shape[1]:
        array = array.mean(axis=1)
    if array.ndim != 1:
        raise InputError(f"audio of shape {array.shape} is not supported; give (n,) or (n, c)")
    return array.astype(np.float32)
