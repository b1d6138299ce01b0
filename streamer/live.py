"""The loop: source → session → recognizer → sinks.

A source never waits for the recognizer. When recognition falls behind the clock, previews are
dropped; what is to become final text never is.
"""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Self

import numpy as np

import streamer
from streamer.config import Settings
from streamer.core.highpass import HighPass
from streamer.core.session import Counts, Session, require_numbers
from streamer.errors import InputError, OutputError, StreamerError
from streamer.messages import (
    Block,
    Event,
    Final,
    Gap,
    Partial,
    SessionStarted,
)
from streamer.recognition import load_recognizer, require_same_words
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

    from streamer.messages import Window
    from streamer.recognition import Recognizer
    from streamer.sinks.journal import Journal
    from streamer.sources import Source

STATUS_EVERY_S = 0.1


class Lane:
    """One stream of audio on its way to text: a session, and the clock it follows.

    Args:
        session: of the stream.
        now: the stream's clock in seconds. With it, events carry the time at which they were made
            and late previews are left out; without it, everything depends on the audio alone.
        wants_previews: asked before each; they stop being of use when the end is near.
    """

    def __init__(
        self,
        session: Session,
        *,
        now: Callable[[], float] | None = None,
        wants_previews: Callable[[], bool] = lambda: True,
    ) -> None:
        self.session = session
        self._now = now
        self._wants_previews = wants_previews

    def pending(self) -> list[Window]:
        """The windows to be recognized next."""
        now = self._now() if self._now else None
        return self.session.pending(now if self._wants_previews() else math.inf)

    def events(self) -> list[Event]:
        """What has become known."""
        found = self.session.events()
        if self._now is None:
            return found
        at = self._now()
        return [
            replace(event, at=at) if isinstance(event, Partial | Final) else event
            for event in found
        ]


def step(lanes: Sequence[Lane], recognizer: Recognizer) -> list[Event] | None:
    """Recognize the windows that are due next, of all lanes together; final ones go first.

    Returns:
        The events that came of it, or `None` if there was nothing to do.
    """
    batch = [(lane, window) for lane in lanes for window in lane.pending()]
    events: list[Event] = []
    for urgent in (True, False):
        part = [pair for pair in batch if (pair[1].kind == "final") == urgent]
        if part:
            readings = recognizer.recognize([window for _, window in part])
            for (lane, window), reading in zip(part, readings, strict=True):
                lane.session.accept(window, reading)
                events += lane.events()
    for lane in lanes:
        events += lane.events()
    return events if batch or events else None


class Transcriber:
    """Audio in, events out: one speaker's session with a recognizer that may be shared.

    Args:
        recognizer: from `streamer.load_recognizer`.
        rate: samples a second of the audio that will be fed.
        settings: defaults where not given.
        previews: whether `Partial` events are to be made at all.
        now: the stream's clock in seconds; see `Lane`.
        wants_previews: asked before each; see `Lane`.

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
        self._mixer = Mixer(rate)
        self._remarked = False
        self._session = Session(
            rate,
            settings,
            recognizer.shape,
            recognizer.hypothesis(settings),
            VoiceDetector(settings.vad_mode, settings.vad_frame_ms),
            previews=previews,
        )
        self._lane = Lane(self._session, now=now, wants_previews=wants_previews)

    @property
    def heard_s(self) -> float:
        """Seconds of audio fed so far."""
        return (self._session.received + self._mixer.waiting) / self._rate

    @property
    def counts(self) -> Counts:
        """What was asked of the recognizer so far."""
        return self._session.counts

    def feed(self, audio: npt.ArrayLike | Block | Gap) -> list[Event]:
        """Take the next audio and give what can be shown now.

        Args:
            audio: float32 within -1 … 1 or int16, shape (n,) or (n, channels), of any length; or
                a `Block` or `Gap` that begins where the last one ended.

        Raises:
            InputError: a sample is not a number; nothing of this audio has been taken.
        """
        if isinstance(audio, Gap):
            rest = self._mix_rest()
            self._session.feed(audio)
            return rest + self._recognized()
        item = audio if isinstance(audio, Block) else self._mixed(audio)
        require_numbers(item, self._rate)
        # Second by second, so that an hour in one piece does not become an hour of windows.
        events: list[Event] = []
        for first in range(0, len(item.samples), self._rate):
            piece = item.samples[first : first + self._rate]
            self._session.feed(Block(item.start + first, piece))
            events += self._recognized()
        return events

    def finish(self) -> list[Event]:
        """End the audio: the last words, then the account. Nothing may be fed afterwards."""
        events = self._mix_rest()
        self._session.finish()
        return events + self._recognized()

    def _mixed(self, audio: npt.ArrayLike) -> Block:
        frames, position = _frames(audio), self._session.received
        if not np.isfinite(frames).all():
            return Block(position, frames.sum(axis=1))  # it is refused, with its time
        samples = self._mixer.push(frames)
        if self._mixer.remark and not self._remarked:
            self._remarked = True
            say(self._mixer.remark)
        return Block(position, samples)

    def _mix_rest(self) -> list[Event]:
        """Recognize what the mixer held back: no more audio follows it."""
        rest = self._mixer.flush()
        if not len(rest):
            return []
        self._session.feed(Block(self._session.received, rest))
        return self._recognized()

    def _recognized(self) -> list[Event]:
        events: list[Event] = []
        while (found := step([self._lane], self._recognizer)) is not None:
            events += found
        return events


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
            elapsed_s=item.end / self._source.rate + max(lag_s, 0.0),
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
