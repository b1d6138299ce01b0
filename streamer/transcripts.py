"""A whole recording at once: the live path without its previews, as fast as it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from streamer.config import Settings
from streamer.errors import InputError
from streamer.live import Transcriber
from streamer.messages import Block, Final, Gap
from streamer.recognition import load_recognizer
from streamer.sources.files import AudioFile

if TYPE_CHECKING:
    import numpy.typing as npt

    from streamer.recognition import Recognizer


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said in a recording of `duration` seconds, segment by segment, by which `model`."""

    segments: tuple[Final, ...]
    duration: float
    model: str

    @property
    def text(self) -> str:
        """Everything in one line."""
        return " ".join(segment.text for segment in self.segments)


def transcribe(
    audio: str | Path | AudioFile | npt.ArrayLike,
    rate: int | None = None,
    *,
    recognizer: Recognizer | None = None,
    settings: Settings | None = None,
    progress: Callable[[float], object] = lambda seconds: None,
) -> Transcript:
    """Transcribe a file or an array.

    Args:
        audio: path of a file that libsndfile reads, or an opened one, whose `stop` ends it early;
            or samples, float32 within -1 … 1 or int16, of shape (n,) or (n, channels).
        rate: samples a second of an array, which needs it; files know theirs.
        recognizer: from `load_recognizer`, to be shared between calls; loaded when not given.
        settings: defaults where not given; `load_settings()` for those of the command line.
        progress: called with the seconds of audio heard so far.

    Raises:
        InputError: the file cannot be read, a sample is not a number, or the rate is impossible.
        ModelError: the model cannot be loaded.
        SettingsError: the settings expect other words than the recognizer was loaded with.
    """
    settings = settings or Settings()
    if isinstance(audio, str | Path):
        with AudioFile(audio) as file:
            return _transcribe(file, file.rate, recognizer, settings, progress)
    if isinstance(audio, AudioFile):
        return _transcribe(audio, audio.rate, recognizer, settings, progress)
    if rate is None:
        raise InputError("samples alone do not tell their rate; give it: transcribe(audio, rate)")
    return _transcribe([audio], rate, recognizer, settings, progress)


def _transcribe(
    items: Iterable[Block | Gap | npt.ArrayLike],
    rate: int,
    recognizer: Recognizer | None,
    settings: Settings,
    progress: Callable[[float], object],
) -> Transcript:
    recognizer = recognizer or load_recognizer(settings)
    transcriber = Transcriber(recognizer, rate, settings, previews=False)
    segments: list[Final] = []
    for item in items:
        segments += (event for event in transcriber.feed(item) if isinstance(event, Final))
        progress(transcriber.heard_s)
    segments += (event for event in transcriber.finish() if isinstance(event, Final))
    return Transcript(tuple(segments), transcriber.heard_s, recognizer.name)
