"""Audio, windows and recognizers that are computed: whatever a test needs to know of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from streamer.config import Settings
from streamer.core.ctc import FrameGrid, GreedyDecoder, Vocabulary
from streamer.core.ctc_hypothesis import CtcHypothesis, CtcModel
from streamer.core.endpointer import DETECTOR_LAG_MS
from streamer.core.session import Session
from streamer.core.window_planner import WindowPlanner, WindowShape
from streamer.messages import SAMPLE_RATE, Reading
from streamer.recognition.checkpoint_files import EMBEDDED_FOLDER, read_live_rules

if TYPE_CHECKING:
    from streamer.core.endpointer import Detector
    from streamer.messages import Event, LogProbs, Samples, Window
    from streamer.recognition import Recognizer

SEW = FrameGrid(hop=320, receptive=400, stride=640)
WAV2VEC2 = FrameGrid(hop=320, receptive=400, stride=320)
RULES = read_live_rules(EMBEDDED_FOLDER)
TOKENS = ("<pad>", "|", *"ABCDEFGH")
VOCABULARY = Vocabulary(TOKENS, blank=0, delimiter=1, special=frozenset())

QUIET, LOUD = 1e-4, 0.5
LAG_S = DETECTOR_LAG_MS / 1000


class ByLevel:
    """A voice detector that calls everything louder than -40 dB voice and notes what it heard.

    Without webrtcvad's lag: so the silence that ends an utterance is shorter by `LAG_S`.
    """

    def __init__(self) -> None:
        self.heard: list[Samples] = []

    def __call__(self, frame: Samples) -> bool:
        """Whether the frame is loud."""
        self.heard.append(frame.copy())
        return bool(np.mean(frame**2) > 1e-4)


def always(frame: Samples) -> bool:
    """A voice detector that takes everything for speech."""
    return True


def audio(*parts: tuple[float, float], seed: int = 0, rate: int = SAMPLE_RATE) -> Samples:
    """Noise in stretches of (seconds, amplitude); the loud ones have syllables, as speech does."""
    generator = np.random.default_rng(seed)
    stretches = []
    for seconds, amplitude in parts:
        stretch = generator.uniform(-1, 1, round(seconds * rate)) * amplitude
        if amplitude == LOUD:
            stretch[np.arange(len(stretch)) % (rate // 4) >= rate * 3 // 20] *= 0.1
        stretches.append(stretch)
    return np.concatenate(stretches).astype(np.float32)


def shape_of(grid: FrameGrid = SEW, *, slides: bool = True) -> WindowShape:
    """What a CTC recognizer wants, or one whose windows do not slide."""
    if not slides:
        return WindowShape(grid)
    context, edge = (
        -(-(ms * SAMPLE_RATE // 1000) // grid.stride) * grid.stride
        for ms in (RULES.context_ms, RULES.edge_ms)
    )
    return WindowShape(grid, context=context, slides=True, edge=edge)


def planned(
    signal: Samples,
    blocks: Iterable[Samples] | None = None,
    *,
    detector: Detector | None = None,
    grid: FrameGrid = SEW,
    previews: bool = True,
    **options: object,
) -> list[Window]:
    """All windows of a signal that comes in these blocks."""
    settings = Settings(**options)  # type: ignore[arg-type]
    planner = WindowPlanner(settings, shape_of(grid), detector or ByLevel(), previews=previews)
    windows = []
    for block in blocks or [signal]:
        windows += planner.push(block)
    return windows + planner.flush()


def letters(window: Window) -> LogProbs:
    """An emission with a letter in every second frame, and a word in every eight."""
    frames = SEW.frames(len(window.samples))
    first = window.start // SEW.hop
    return spelled([(0, 2, 0, 3, 0, 4, 0, 1)[(first + frame) % 8] for frame in range(frames)])


def spelled(columns: Sequence[int], probability: float = 0.99) -> LogProbs:
    """Log-probabilities, one row a column number, in which that column is nearly sure."""
    probabilities = np.full((len(columns), len(TOKENS)), 1e-3, np.float32)
    probabilities[np.arange(len(columns)), columns] = probability
    return np.log(probabilities)


class Spelling:
    """A recognizer: `emit` computes a window's emission, `asked` notes what it was asked."""

    name = "spelling"

    def __init__(
        self, emit: Callable[[Window], LogProbs] = letters, vocabulary: Vocabulary = VOCABULARY
    ) -> None:
        self.shape = shape_of()
        self.model = CtcModel(vocabulary, self.shape, GreedyDecoder(vocabulary), RULES)
        self.emit = emit
        self.asked: list[list[Window]] = []

    def hypothesis(self, settings: Settings) -> CtcHypothesis:
        """See `streamer.recognition.Recognizer`."""
        return CtcHypothesis(self.model, settings)

    def recognize(self, batch: Sequence[Window]) -> list[Reading]:
        """See `streamer.recognition.Recognizer`."""
        self.asked.append(list(batch))
        return [Reading(emission=self.emit(window)) for window in batch]


def session_of(
    recognizer: Recognizer,
    rate: int = SAMPLE_RATE,
    detector: Detector = always,
    *,
    previews: bool = True,
    lane: str = "",
    **options: object,
) -> Session:
    """A session of a stream that this recognizer will hear."""
    settings = Settings(**options)  # type: ignore[arg-type]
    hypothesis = recognizer.hypothesis(settings)
    return Session(
        rate, settings, recognizer.shape, hypothesis, detector, previews=previews, lane=lane
    )


def recognized(session: Session, recognizer: Recognizer, now: float | None = None) -> list[Event]:
    """The events of everything that waits in a session."""
    events = session.events()
    while windows := session.pending(now):
        for window, reading in zip(windows, recognizer.recognize(windows), strict=True):
            session.accept(window, reading)
            events += session.events()
    return events + session.events()
