"""The live transcriber of the package `moonshine-voice` beside our policies: a rival's own program.

It runs the weights of our default model with a voice detection, cadence and threads of its own. All
of its work happens inside `Stream.add_audio`, in the thread that calls it, and its only clock is
the count of samples, so that a virtual clock measures it as it measures ours.

Where its `MicTranscriber` finds that audio has come while it was busy, it hands all of that on at
once. So does this policy: of audio that came late it makes one call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from streamer.config import DEFAULT_MODEL
from streamer.errors import ModelError, SettingsError
from streamer.messages import SAMPLE_RATE, Final, Partial
from streamer.recognition import resolve

if TYPE_CHECKING:
    from streamer.messages import Block, Samples

RIVALS: dict[str, dict[str, str]] = {
    "moonshine-voice": {},
    "moonshine-voice-lean": {"return_audio_data": "false"},
}
"""Policies that are programs of their own, and the options they are loaded with. By default each
update of this one gives all audio since the stream's beginning back, as a list of numbers, which
costs more with every minute. The lean one leaves that out: kinder than what its users get."""


class Library:
    """The rival, loaded once; its streams share it.

    Args:
        options: of its `Transcriber`.

    Raises:
        ModelError: the weights are not here.
        SettingsError: the package is not installed, or cannot be loaded.
    """

    def __init__(self, options: dict[str, str]) -> None:
        try:
            import moonshine_voice
        except (ImportError, OSError) as error:  # the latter for a lack of PortAudio
            raise SettingsError(
                f"moonshine-voice cannot be loaded ({error}): pip install 'moonshine-voice<0.1'"
            ) from error
        folder = resolve(DEFAULT_MODEL).folder
        self._transcriber: Any = moonshine_voice.Transcriber(
            str(folder), moonshine_voice.ModelArch.TINY, options=options
        )

    def whole(self, samples: Samples) -> str:
        """What it writes of a clip, shape (n,), that it gets at once."""
        found = self._transcriber.transcribe_without_streaming(samples.tolist(), SAMPLE_RATE)
        return " ".join(line.text for line in found.lines)

    def stream(self, listener: Callable[[Any], None]) -> Any:
        """A new stream that has begun and tells its events to `listener`."""
        stream = self._transcriber.create_stream()
        stream.add_listener(listener)
        stream.start()
        return stream


class MoonshineVoice:
    """One stream of it: see `streamer.evaluation.simulation.Policy`.

    An event's line becomes a partial without stable words as long as it is open, then a final
    without word times: the weights that come with the package give it none. Spans are as the
    library tells them; one line may begin shortly before the one before it ends.

    Args:
        library: shared.
        rate: samples a second of the blocks.
        now: the stream's clock, in seconds.
    """

    def __init__(self, library: Library, rate: int, now: Callable[[], float]) -> None:
        self._rate, self._now = rate, now
        self._waiting: list[Samples] = []
        self._told: dict[int, tuple[Any, float]] = {}
        """What an update told of each line, and when first."""
        self._segments: dict[int, int] = {}
        self._finished: set[int] = set()
        self._error: Exception | None = None
        self._stream = library.stream(self._hear)

    def feed(self, block: Block) -> list[Partial | Final]:
        """Take the next block and give what can be shown now."""
        self._waiting.append(block.samples)
        if self._now() * self._rate >= block.end + len(block.samples):
            return []  # the next block is here as well
        return self._add()

    def finish(self) -> list[Partial | Final]:
        """End the audio: the last words."""
        events = self._add() if self._waiting else []
        self._stream.stop()
        events += self._events()
        self._stream.close()
        return events

    def _add(self) -> list[Partial | Final]:
        samples = np.concatenate(self._waiting)
        self._waiting.clear()
        self._stream.add_audio(samples.tolist(), self._rate)
        return self._events()

    def _hear(self, event: Any) -> None:
        """The listener. What it raised, the library would print and forget."""
        line = event.line
        if line is None:
            self._error = event.error
        elif line.line_id not in self._finished:
            _, at = self._told.get(line.line_id, (line, self._now()))
            self._told[line.line_id] = line, at

    def _events(self) -> list[Partial | Final]:
        if self._error:
            raise ModelError(f"moonshine-voice: it failed: {self._error}") from self._error
        events: list[Partial | Final] = []
        for number, (line, at) in self._told.items():
            segment = self._segments.setdefault(number, len(self._segments))
            start, end, text = line.start_time, line.start_time + line.duration, line.text.strip()
            if line.is_complete:
                self._finished.add(number)
                events.append(Final(segment, start, end, text, text, (), at))
            else:
                events.append(Partial(segment, start, end, "", text, at))
        self._told.clear()
        return events
