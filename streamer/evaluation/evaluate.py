"""`streamer eval`: how right, how soon, how stable and at what cost, beside other policies.

Each recording is heard offline, every clip in one piece, and then live by each policy in turn:
the same recognizer, the same voice detection, one machine, one run. Live, the microphone stays
open after the last word, so that its final too has to wait for the silence. Delays and stability
are defined in `streamer.evaluation.delays`; in addition

    WER, CER offline   greedy, one call for each clip
    WER live           of the concatenated finals; delta: live minus offline
    disagreement       word edits between the live finals and the offline text, over offline words:
                       what streaming changed, whatever the weights are worth
    cost               CPU seconds (process, all threads) for a second of speech
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import jiwer
import numpy as np

from streamer.core.ctc import decode
from streamer.core.resample import Resampler
from streamer.evaluation.baselines import POLICIES
from streamer.evaluation.delays import Delays, TimedWord, percentiles
from streamer.evaluation.metrics import error_rates, scored
from streamer.evaluation.recordings import Clip, Recording
from streamer.evaluation.simulation import Policy, RealClock, VirtualClock, simulate
from streamer.live import Transcriber
from streamer.messages import SAMPLE_RATE, Event, Final
from streamer.sources.files import read_audio

if TYPE_CHECKING:
    from streamer.config import Settings
    from streamer.messages import Samples
    from streamer.recognition.recognizer import Recognizer

OURS = "streamer"
NAMES = (OURS, *POLICIES)
PAUSE_S = 0.5
"""Longer ones between words are no speech."""
_AROUND = SAMPLE_RATE // 5
_FAINT = 0.003


@dataclass(slots=True)
class Figures:
    """What one policy did over all recordings."""

    delays: Delays = field(default_factory=Delays)
    texts: list[str] = field(default_factory=list)
    """The concatenated finals of each recording."""
    cpu_s: float = 0.0
    busy_s: float = 0.0


@dataclass(slots=True)
class Evaluation:
    """Everything that was measured; `summary` is what `--json` prints."""

    model: str
    seconds: float = 0.0
    speech_s: float = 0.0
    references: list[str] = field(default_factory=list)
    """Of each recording."""
    clip_references: list[str] = field(default_factory=list)
    clip_texts: list[str] = field(default_factory=list)
    offline: list[str] = field(default_factory=list)
    """The offline text of each recording."""
    policies: dict[str, Figures] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Rates as fractions, delays in seconds."""
        offline = error_rates(self.clip_references, self.clip_texts)
        return {
            "model": self.model,
            "files": len(self.references),
            "seconds": round(self.seconds, 2),
            "offline": {"wer": round(offline.wer, 4), "cer": round(offline.cer, 4)},
            "policies": {
                name: self._of(figures, offline.wer) for name, figures in self.policies.items()
            },
        }

    def _of(self, figures: Figures, offline_wer: float) -> dict[str, Any]:
        live = error_rates(self.references, figures.texts)
        delays = figures.delays
        return {
            "wer": round(live.wer, 4),
            "delta": round(live.wer - offline_wer, 4),
            "disagreement": round(disagreement(self.offline, figures.texts), 4),
            "word_delay": percentiles(delays.word),
            "settle_delay": percentiles(delays.settle),
            "final_delay": percentiles(delays.final),
            "first_word_delay": percentiles(delays.first_word),
            "upwr": round(delays.upwr, 4),
            "retracted": round(delays.retracted_share, 4),
            "cost": round(figures.cpu_s / max(self.speech_s, 1.0), 4),
        }


def disagreement(offline: Sequence[str], live: Sequence[str]) -> float:
    """Word edits between two sets of texts over the words of the first."""
    counted = jiwer.process_words(list(offline), list(live))
    edits: int = counted.substitutions + counted.deletions + counted.insertions
    words: int = counted.hits + counted.substitutions + counted.deletions
    return edits / max(1, words)


def evaluate(
    recordings: Sequence[Recording],
    recognizer: Recognizer,
    settings: Settings,
    policies: Sequence[str] = NAMES,
    *,
    real_pace: bool = False,
    progress: Callable[[str, float], object] = lambda name, seconds: None,
) -> Evaluation:
    """Hear all recordings offline and live.

    Args:
        recordings: with their transcripts.
        recognizer: shared by all policies.
        settings: of voice detection, cadence and text.
        policies: which, by name.
        real_pace: let the audio arrive by the wall's clock instead of a virtual one.
        progress: called with a policy's name and the seconds of audio just heard.

    Raises:
        InputError: audio cannot be read.
    """
    evaluation = Evaluation(recognizer.name)
    evaluation.policies = {name: Figures() for name in policies}
    for recording in recordings:
        audio, words = _offline(recording, recognizer, evaluation)
        progress("offline", len(audio) / SAMPLE_RATE)
        audio = np.concatenate((audio, _quiet(audio, SAMPLE_RATE * settings.hangover_ms // 500)))
        for name, figures in evaluation.policies.items():
            clock = RealClock() if real_pace else VirtualClock()
            policy: Policy
            if name == OURS:
                policy = Transcriber(recognizer, SAMPLE_RATE, settings, now=clock.now)
            else:
                policy = POLICIES[name](recognizer, SAMPLE_RATE, settings, clock.now)
            cpu = time.process_time()
            events: list[Event] = simulate(policy, clock, audio, SAMPLE_RATE)
            figures.cpu_s += time.process_time() - cpu
            figures.busy_s += clock.busy_s
            figures.delays.take(events, words)
            finals = [event.text for event in events if isinstance(event, Final)]
            figures.texts.append(scored(" ".join(finals)))
            progress(name, len(audio) / SAMPLE_RATE)
    return evaluation


def _offline(
    recording: Recording, recognizer: Recognizer, evaluation: Evaluation
) -> tuple[Samples, list[TimedWord]]:
    """The audio of a recording at 16 kHz, and its words as offline recognition times them."""
    parts: list[Samples] = []
    words: list[TimedWord] = []
    start = 0
    for clip in recording.clips:
        samples = _load(clip)
        found = _recognized(samples, recognizer, start)
        evaluation.clip_references.append(scored(clip.text))
        evaluation.clip_texts.append(scored(" ".join(word.text for word in found)))
        words += found
        parts.append(samples)
        start += len(samples)
    evaluation.speech_s += _speech_s(words)
    evaluation.seconds += start / SAMPLE_RATE
    evaluation.references.append(scored(" ".join(clip.text for clip in recording.clips)))
    evaluation.offline.append(scored(" ".join(word.text for word in words)))
    return np.concatenate(parts), words


def _speech_s(words: Sequence[TimedWord]) -> float:
    """Seconds of speech: words, and the pauses between them up to `PAUSE_S`."""
    spoken = sum(word.end - word.start for word in words)
    pauses = (after.start - before.end for before, after in pairwise(words))
    return spoken + sum(pause for pause in pauses if 0 < pause <= PAUSE_S)


def _load(clip: Clip) -> Samples:
    samples, rate = read_audio(clip.path)
    resampler = Resampler(rate)
    return np.concatenate((resampler.push(samples), resampler.flush()))


def _quiet(samples: Samples, size: int) -> Samples:
    """Noise far below `samples`, as a quiet room has: zeros would be a new sound."""
    noise = np.random.default_rng(0).standard_normal(size, np.float32)
    noise *= np.float32(_FAINT) * samples.std()
    return noise


def _recognized(samples: Samples, recognizer: Recognizer, start: int) -> list[TimedWord]:
    """The words of a clip, heard in one piece with a little faint noise around it."""
    grid = recognizer.grid
    size = grid.fit(len(samples) + 2 * _AROUND)
    padded = _quiet(samples, size)
    padded[_AROUND : _AROUND + len(samples)] += samples
    first = (start - _AROUND) / SAMPLE_RATE
    hop_s = grid.hop / SAMPLE_RATE
    return [
        TimedWord(word.text.upper(), first + word.start * hop_s, first + word.end * hop_s)
        for word in decode(recognizer.log_probs(padded), recognizer.vocabulary)
    ]
