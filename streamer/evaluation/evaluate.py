"""`streamer eval`: how right, how soon, how stable and at what cost, beside other policies.

Each recording is heard offline, every clip in one piece, and then live by each policy in turn:
the same recognizer, the same voice detection, one machine, one run. A rival, where it is named,
hears the same audio with a voice detection of its own, and is measured against what it hears
offline itself. Live, the microphone stays open after the last word, so that its final too has to
wait for the silence. Case and punctuation do not count. Delays and stability are defined in
`streamer.evaluation.delays`; in addition

    WER, CER offline   one call for each clip. A CTC model's is read greedily; where a language
                       model helps to read, with that besides
    WER live           of the concatenated finals; delta: live minus offline, read in the same way
    disagreement       word edits between the live finals and the offline text, over offline words:
                       what streaming changed, whatever the weights are worth
    cost               CPU seconds (process, all threads) for a second of speech
    calibration        of our policy, which alone tells confidences: the expected calibration error
                       of its final words, see `streamer.evaluation.calibration`
    word times         how far the right ones of our final words begin and end from where a forced
                       alignment of the transcript has them, see `streamer.evaluation.aligning`
    as files           WER and cost of our policy without previews, as `streamer transcribe` hears a
                       file; and how many recordings have another text than live, to the letter
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import jiwer
import numpy as np

from streamer.core.ctc import GreedyDecoder
from streamer.core.resample import Resampler
from streamer.corpora.layouts import Clip
from streamer.corpora.recordings import Recording
from streamer.errors import SettingsError
from streamer.evaluation.aligning import Aligner, WordTimeErrors
from streamer.evaluation.baselines import POLICIES, FrameBaseline, is_ctc, whole_window
from streamer.evaluation.calibration import Confidence
from streamer.evaluation.delays import Delays, TimedWord, percentiles, timed_words
from streamer.evaluation.metrics import error_rates, scored
from streamer.evaluation.moonshine_voice import RIVALS, Library, MoonshineVoice
from streamer.evaluation.padding import AROUND, faint_noise, in_quiet_room
from streamer.evaluation.simulation import Policy, RealClock, VirtualClock, simulate
from streamer.live import Transcriber
from streamer.messages import SAMPLE_RATE, Event, Final
from streamer.sources.files import read_audio

if TYPE_CHECKING:
    from streamer.config import Settings
    from streamer.core.ctc import Decoder
    from streamer.messages import Samples
    from streamer.recognition import Recognizer
    from streamer.recognition.ctc_recognizer import CtcRecognizer

OURS = "streamer"
NAMES = (OURS, *POLICIES)
"""Those on the same recognizer. `RIVALS` run where they are named."""
PAUSE_S = 0.5
"""Longer ones between words are no speech."""


@dataclass(slots=True)
class Offline:
    """What one engine hears of all recordings, each clip in one piece.

    `hear` takes a clip, shape (n,), and times its words from its beginning.
    """

    hear: Callable[[Samples], list[TimedWord]]
    clip_texts: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    """Of each recording."""
    words: list[TimedWord] = field(default_factory=list)
    """Of the last recording, timed from its beginning."""

    def take(self, clips: Sequence[Samples]) -> None:
        """Hear the next recording."""
        self.words = []
        start = 0.0
        for samples in clips:
            found = self.hear(samples)
            self.clip_texts.append(scored(" ".join(word.text for word in found)))
            self.words += [TimedWord(w.text, start + w.start, start + w.end) for w in found]
            start += len(samples) / SAMPLE_RATE
        self.texts.append(scored(" ".join(word.text for word in self.words)))


@dataclass(slots=True)
class Figures:
    """What one policy did over all recordings."""

    offline: Offline
    """Its engine's."""
    settles: bool
    """Whether it calls words stable before the final. Where it does not, how soon, how rightly and
    how many are has no answer."""
    delays: Delays = field(default_factory=Delays)
    texts: list[str] = field(default_factory=list)
    """The concatenated finals of each recording, as scored."""
    confidence: Confidence = field(default_factory=Confidence)
    word_times: WordTimeErrors = field(default_factory=WordTimeErrors)
    cpu_s: float = 0.0
    busy_s: float = 0.0


@dataclass(slots=True)
class Files:
    """What our policy makes of the same recordings without previews."""

    texts: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    """Names of recordings whose text is another than live."""
    cpu_s: float = 0.0


@dataclass(slots=True)
class Evaluation:
    """Everything that was measured; `summary` is what `--json` prints."""

    model: str
    offline: Offline
    greedy: Offline
    """The same, where no language model helps to read."""
    seconds: float = 0.0
    speech_s: float = 0.0
    references: list[str] = field(default_factory=list)
    """Of each recording."""
    clip_references: list[str] = field(default_factory=list)
    policies: dict[str, Figures] = field(default_factory=dict)
    as_files: Files = field(default_factory=Files)

    def summary(self) -> dict[str, Any]:
        """Rates as fractions, delays in seconds."""
        offline = self._offline(self.greedy)
        if self.greedy is not self.offline:
            offline["lm"] = self._offline(self.offline)
        return {
            "model": self.model,
            "files": len(self.references),
            "seconds": round(self.seconds, 2),
            "offline": offline,
            **({"as_files": self._as_files()} if OURS in self.policies else {}),
            "policies": {
                name: self._of(figures) | (figures.confidence.figures() if name == OURS else {})
                for name, figures in self.policies.items()
            },
        }

    def _offline(self, heard: Offline) -> dict[str, Any]:
        rates = error_rates(self.clip_references, heard.clip_texts)
        return {"wer": round(rates.wer, 4), "cer": round(rates.cer, 4)}

    def _as_files(self) -> dict[str, Any]:
        return {
            "wer": round(error_rates(self.references, self.as_files.texts).wer, 4),
            "differing": self.as_files.differing,
            "cost": self._cost(self.as_files.cpu_s),
        }

    def _cost(self, cpu_s: float) -> float:
        return round(cpu_s / max(self.speech_s, 1.0), 4)

    def _of(self, figures: Figures) -> dict[str, Any]:
        offline = error_rates(self.clip_references, figures.offline.clip_texts)
        live = error_rates(self.references, figures.texts)
        delays = figures.delays
        stable = delays.stable_early_share if figures.settles else None
        return {
            "offline_wer": round(offline.wer, 4),
            "wer": round(live.wer, 4),
            "delta": round(live.wer - offline.wer, 4),
            "disagreement": round(disagreement(figures.offline.texts, figures.texts), 4),
            "word_delay": percentiles(delays.word),
            "settle_delay": percentiles(delays.settle if figures.settles else []),
            "final_delay": percentiles(delays.final),
            "first_word_delay": percentiles(delays.first_word),
            "word_start_error": percentiles(figures.word_times.start),
            "word_end_error": percentiles(figures.word_times.end),
            "upwr": round(delays.upwr, 4),
            "retracted": round(delays.retracted_share, 4) if figures.settles else None,
            "stable_early": None if stable is None else round(stable, 4),
            "cost": self._cost(figures.cpu_s),
        }


def disagreement(offline: Sequence[str], live: Sequence[str]) -> float:
    """Word edits between two sets of texts over the words of the first."""
    counted = jiwer.process_words(list(offline), list(live))
    edits: int = counted.substitutions + counted.deletions + counted.insertions
    words: int = counted.hits + counted.substitutions + counted.deletions
    return edits / max(1, words)


def policies_for(recognizer: Recognizer) -> tuple[str, ...]:
    """The names of those that work with its kind of model."""
    ctc = is_ctc(recognizer)
    return (
        OURS,
        *(n for n, kind in POLICIES.items() if ctc or not issubclass(kind, FrameBaseline)),
    )


def evaluate(
    recordings: Sequence[Recording],
    recognizer: Recognizer,
    settings: Settings,
    policies: Sequence[str] | None = None,
    *,
    real_pace: bool = False,
    progress: Callable[[str, float], object] = lambda name, seconds: None,
) -> Evaluation:
    """Hear all recordings offline and live.

    Args:
        recordings: with their transcripts.
        recognizer: shared by all policies.
        settings: of voice detection, cadence and text.
        policies: which, by name; all that work with the model when not given.
        real_pace: let the audio arrive by the wall's clock instead of a virtual one.
        progress: called with a policy's name and the seconds of audio just heard.

    Raises:
        InputError: audio cannot be read.
        SettingsError: a policy does not work with this kind of model.
    """
    possible = policies_for(recognizer)
    policies = possible if policies is None else policies
    if lacking := [name for name in policies if name in NAMES and name not in possible]:
        raise SettingsError(
            f"{lacking[0]} joins the frames of a CTC model, and {recognizer.name} is none; "
            f"choose from {', '.join((*possible, *RIVALS))}"
        )
    if is_ctc(recognizer):
        decoder = recognizer.decoder
        ours = greedy = Offline(partial(_decoded, recognizer=recognizer, decoder=decoder))
        if decoder.has_language_model:
            letters = GreedyDecoder(recognizer.vocabulary)
            greedy = Offline(partial(_decoded, recognizer=recognizer, decoder=letters))
    else:
        ours = greedy = Offline(partial(_written, recognizer=recognizer, settings=settings))
    evaluation = Evaluation(recognizer.name, ours, greedy)
    aligner = Aligner(recognizer)
    libraries = {name: Library(RIVALS[name]) for name in policies if name in RIVALS}
    for name in policies:
        offline = ours
        if name in libraries:
            offline = Offline(partial(_by_rival, library=libraries[name], aligner=aligner))
        settles = name == OURS or (name in POLICIES and POLICIES[name].settles)
        evaluation.policies[name] = Figures(offline, settles)
    hangover_ms = settings.hangover_ms or recognizer.shape.hangover_ms
    for recording in recordings:
        clips = [_load(clip) for clip in recording.clips]
        audio = np.concatenate(clips)
        evaluation.seconds += len(audio) / SAMPLE_RATE
        evaluation.clip_references += [scored(clip.text) for clip in recording.clips]
        evaluation.references.append(scored(" ".join(clip.text for clip in recording.clips)))
        ours.take(clips)
        if greedy is not ours:
            greedy.take(clips)
        evaluation.speech_s += _speech_s(ours.words)
        said = _said(recording.clips, clips, aligner)
        progress("offline", len(audio) / SAMPLE_RATE)
        audio = np.concatenate((audio, faint_noise(audio, SAMPLE_RATE * hangover_ms // 500)))
        for name, figures in evaluation.policies.items():
            if figures.offline is not ours:
                figures.offline.take(clips)
            clock = RealClock() if real_pace else VirtualClock()
            policy: Policy
            if name == OURS:
                policy = Transcriber(recognizer, SAMPLE_RATE, settings, now=clock.now)
            elif name in libraries:
                policy = MoonshineVoice(libraries[name], SAMPLE_RATE, clock.now)
            else:
                policy = POLICIES[name](recognizer, SAMPLE_RATE, settings, clock.now)
            cpu = time.process_time()
            events: list[Event] = simulate(policy, clock, audio, SAMPLE_RATE)
            figures.cpu_s += time.process_time() - cpu
            figures.busy_s += clock.busy_s
            figures.delays.take(events, figures.offline.words)
            finals = [event for event in events if isinstance(event, Final)]
            text = " ".join(final.text for final in finals)
            figures.texts.append(scored(text))
            words = [word for final in finals for word in final.words]
            figures.confidence.take(evaluation.references[-1], words)
            figures.word_times.take(said, words)
            if name == OURS:
                cpu = time.process_time()
                as_file = _without_previews(audio, recognizer, settings)
                evaluation.as_files.cpu_s += time.process_time() - cpu
                evaluation.as_files.texts.append(scored(as_file))
                if as_file != text:
                    evaluation.as_files.differing.append(recording.name)
            progress(name, len(audio) / SAMPLE_RATE)
    return evaluation


def _without_previews(audio: Samples, recognizer: Recognizer, settings: Settings) -> str:
    transcriber = Transcriber(recognizer, SAMPLE_RATE, settings, previews=False)
    events = transcriber.feed(audio) + transcriber.finish()
    return " ".join(event.text for event in events if isinstance(event, Final))


def _speech_s(words: Sequence[TimedWord]) -> float:
    """Seconds of speech: words, and the pauses between them up to `PAUSE_S`."""
    spoken = sum(word.end - word.start for word in words)
    pauses = (after.start - before.end for before, after in pairwise(words))
    return spoken + sum(pause for pause in pauses if 0 < pause <= PAUSE_S)


def _said(clips: Sequence[Clip], audio: Sequence[Samples], aligner: Aligner) -> list[TimedWord]:
    """The words of the transcripts where they were said, in seconds of the recording."""
    words: list[TimedWord] = []
    start = 0.0
    for clip, samples in zip(clips, audio, strict=True):
        found = aligner.words(scored(clip.text), samples)
        words += [TimedWord(w.text, start + w.start, start + w.end) for w in found]
        start += len(samples) / SAMPLE_RATE
    return words


def _load(clip: Clip) -> Samples:
    samples, rate = read_audio(clip.path)
    resampler = Resampler(rate)
    return np.concatenate((resampler.push(samples), resampler.flush()))


def _decoded(samples: Samples, recognizer: CtcRecognizer, decoder: Decoder) -> list[TimedWord]:
    log_probs = recognizer.log_probs(in_quiet_room(samples, recognizer.grid))
    first, hop_s = -AROUND / SAMPLE_RATE, recognizer.grid.hop / SAMPLE_RATE
    return [
        timed
        for word in decoder(log_probs)
        for timed in timed_words(word.text, first + word.start * hop_s, first + word.end * hop_s)
    ]


def _written(samples: Samples, recognizer: Recognizer, settings: Settings) -> list[TimedWord]:
    window = whole_window(samples, "final")
    [reading] = recognizer.recognize([window])
    final = recognizer.hypothesis(settings).close(window, reading)
    return [timed for word in final.words for timed in timed_words(word.word, word.start, word.end)]


def _by_rival(samples: Samples, library: Library, aligner: Aligner) -> list[TimedWord]:
    return aligner.words(library.whole(samples), samples)
