"""One utterance's text by two ears: an encoder-decoder writes it, a CTC network follows.

Theory of operation. Each preview is written anew from its window's audio, so a word may come out
otherwise each time, and an encoder-decoder makes words up where its audio ends inside one. So each
word is counted: how many windows in a row have had it at its place. From that, its probability and
its neighbours' follows its chance to stay, to be in the final text at that place. Words are shown
up to where the most is gained: a word gains by how much its chance exceeds `show_chance`, so that a
doubtful one is shown with sure ones behind it. A word is stable once it and all before it have been
there in several windows with a high chance; the last one never is. Until the CTC network has heard
letters in the utterance, nothing is shown at all.

Words are the same without regard to case and punctuation. The windows' words are aligned, the
stable ones with the newest window's too, so that a word which changes, comes or goes early on does
no harm to those behind it.

When a window has become long, the hypothesis looks for a pause between two words that are stable
or will hardly change. The words before it are not written again: the next windows begin in the
pause.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from streamer.core.ctc import certainty
from streamer.core.hypothesis import FinalText, Preview, beginning, contradicted
from streamer.core.word_times import spelling_cost, word_frames
from streamer.messages import SAMPLE_RATE, Word, spaced

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamer.config import Settings
    from streamer.core.ctc import FrameGrid, Vocabulary
    from streamer.messages import LogProbs, Reading, Window, WrittenWord


_LEAST = 1e-3
"""A probability is taken for no nearer to 0 or 1 than this."""
_AGAIN = 5
_SENTENCE_ENDS = (".", "!", "?", '."', '!"', '?"', ".'", "!'", "?'")


@dataclass(frozen=True, slots=True)
class WriterRules:
    """How live text is made of one writer's words; chosen by `training/writer_rules.py`.

    A word's chance to stay is the logistic function of a sum: `chance_bias`, `chance_odds` times
    the logarithm of its probability's odds, `chance_before` and `chance_behind` times that of the
    least probability of the two words before it and of the two behind it, and `chance_again` for
    each window in a row, up to `_AGAIN`, that had it before.

    Words are shown as far as the sum of their chances less `show_chance` is greatest. A word is
    stable once `settle_windows` windows in a row had it and it has `settle_chance`, or once each of
    the `passed_words` behind it was there as often and has `passed_chance`.

    An utterance is speech if the follower is certain of its letters (`streamer.core.ctc.certainty`)
    as the settings ask. A text of up to `short_letters` must also cost `short_cost` at most to
    spell on the follower's emission (`streamer.core.word_times.spelling_cost`), and one of which
    the follower is only `doubtful_share` as certain `doubtful_cost` at most.

    Windows longer than `slide_after_ms` slide to a pause between stable words, and keep
    `slide_keep_ms` at least.
    """

    chance_bias: float
    chance_odds: float
    chance_before: float
    chance_behind: float
    chance_again: float
    show_chance: float
    settle_windows: int
    settle_chance: float
    passed_words: int
    passed_chance: float
    short_letters: int
    short_cost: float
    doubtful_share: float
    doubtful_cost: float
    slide_after_ms: int
    slide_keep_ms: int


@dataclass(frozen=True, slots=True)
class WriterModel:
    """What a hypothesis knows of its recognizer. All of it is shared and read-only.

    `vocabulary` and `grid` are the follower's: what its emission's columns are, and how samples
    become frames.
    """

    vocabulary: Vocabulary
    grid: FrameGrid
    rules: WriterRules


class WriterHypothesis:
    """See `streamer.core.hypothesis.Hypothesis`.

    Args:
        model: its recognizer's.
        settings: of which `min_certainty` is read.
        after_sentence: whether the utterance before ended with a whole sentence.
        begins: the model sample up to which audio has become text. Where an utterance was split,
            the word at the cut may lie on both sides of it.
    """

    def __init__(
        self,
        model: WriterModel,
        settings: Settings,
        *,
        after_sentence: bool = False,
        begins: int = 0,
    ) -> None:
        self._model = model
        self._settings = settings
        self._after_sentence = after_sentence
        self._begins = begins
        self._is_speech = False
        # Where windows began, and how many stable words lie before: whole ones come back to the
        # beginning, and those that were asked for before a slide begin where the ones before did.
        self._starts: list[tuple[int, int]] = [(0, 0)]
        self._kept = 0  # of the newest window
        self._stable: list[str] = []
        self._newest: list[str] = []  # the words of the last window,
        self._counts: list[int] = []  # and how many windows in a row had each of them
        self.draft: tuple[int, ...] = ()
        self.settled_until = begins

    def update(self, window: Window, reading: Reading) -> Preview:
        """Compare the window's words with those of the windows before."""
        words = _written(reading)
        if window.kind == "likely_final" and window.start < window.speech_start:
            assert reading.emission is not None
            first, end = self._own(window, self._places(window, words, reading.emission))
            words = words[first:end]
        if reading.emission is not None and not self._is_speech:
            self._is_speech = self._heard(words, reading.emission)
        if not self._is_speech:
            return Preview((), ())
        self._kept = next(kept for start, kept in reversed(self._starts) if start <= window.start)
        self._count([_plain(word.text) for word in words])
        chances = chances_to_stay([w.probability for w in words], self._counts, self._model.rules)
        self._settle(words, chances)
        whole = window.kind == "likely_final"
        shown = [word.text for word in words[self._first() : None if whole else self._end(chances)]]
        newest = window.kind == "preview" and window.start >= self.settled_until
        long = len(window.samples) > self._samples("slide_after_ms")
        if newest and long and reading.emission is not None:
            self._slide(window, words, reading.emission)
        ahead = [_plain(word) for word in self._stable[self._kept : self._starts[-1][1]]]
        rest = words[beginning(ahead, self._newest) :]
        self.draft = tuple(token for word in rest for token in word.tokens)
        spelled = self._spelled(window, [*self._stable, *shown])
        stable = len(self._stable)
        return Preview(tuple(spelled[:stable]), tuple(spelled[stable:]))

    def close(self, window: Window, reading: Reading) -> FinalText:
        """Take the text of the whole utterance, and time its words."""
        written, emission = _written(reading), reading.emission
        assert emission is not None
        if not self._heard(written, emission):
            written = ()
        places = self._places(window, written, emission)
        first, end = self._own(window, places)
        words, times = written[first:end], places[first:end]
        self._begins = times[-1][1] if times else window.speech_end
        text = [word.text for word in words]
        # Between the words of its context the writer knows what a word begins and ends.
        text = self._spelled(window, text, begins=not first, ends=end == len(written))
        self._after_sentence = not text or text[-1].endswith(_SENTENCE_ENDS)
        timed = tuple(
            Word(word, begin / SAMPLE_RATE, end / SAMPLE_RATE, round(written.probability, 4))
            for word, written, (begin, end) in zip(
                text, words, _inside(times, window.speech_start, window.speech_end), strict=True
            )
        )
        shown = [_plain(word) for word in self._stable]
        return FinalText(
            start=window.speech_start,
            end=window.speech_end,
            words=timed,
            raw=spaced(text),
            retracted=contradicted(shown, [_plain(word) for word in text]),
        )

    def following(self) -> WriterHypothesis:
        """One that knows how the text ended: a writer hears each utterance by itself."""
        return WriterHypothesis(
            self._model,
            self._settings,
            after_sentence=self._after_sentence,
            begins=self._begins,
        )

    def _places(
        self, window: Window, words: Sequence[WrittenWord], emission: LogProbs
    ) -> list[tuple[int, int]]:
        """Where a window's words are, in model samples: by the writer where it tells."""
        spans = [word.span for word in words if word.span]
        if words and len(spans) == len(words):
            return [(window.start + start, window.start + end) for start, end in spans]
        hop = self._model.grid.hop
        frames = word_frames([word.text for word in words], emission, self._model.vocabulary)
        return [(window.start + first * hop, window.start + end * hop) for first, end in frames]

    def _own(self, window: Window, places: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """From which of a window's words, and up to which, are the utterance's.

        On both sides of a split a window reaches into the other's audio. A word is on that side of
        the cut where its middle is.
        """
        middles = [(first + end) // 2 for first, end in places]
        first = bisect_left(middles, self._begins) if window.start < window.speech_start else 0
        end = bisect_left(middles, window.speech_end) if window.split else len(middles)
        return first, max(first, end)

    def _spelled(
        self, window: Window, words: Sequence[str], *, begins: bool = True, ends: bool = True
    ) -> list[str]:
        """The words of an utterance: what goes on with a sentence begins with no capital.

        A writer gives every window one that begins there (`begins`), and a full stop at its end
        (`ends`). "I" and words with a capital further in keep theirs.
        """
        spelled = list(words)
        if begins and window.continues and not self._after_sentence and spelled:
            first = spelled[0]
            if not (_plain(first).split("'")[0] == "I" or first[1:] != first[1:].lower()):
                spelled[0] = first[:1].lower() + first[1:]
        if ends and window.split and spelled:
            # Nobody paused where the utterance was cut; the writer ends every window like that.
            spelled[-1] = spelled[-1].rstrip(".") or spelled[-1]
        return spelled

    def _count(self, words: list[str]) -> None:
        """Note the window's words, and how often each has been there."""
        counts = [1] * len(words)
        matches = SequenceMatcher(None, self._newest, words, autojunk=False)
        for before, now, size in matches.get_matching_blocks():
            for offset in range(size):
                counts[now + offset] += self._counts[before + offset]
        self._newest, self._counts = words, counts

    def _first(self, end: int | None = None) -> int:
        """Which of the window's words is the first behind the stable ones."""
        stable = [_plain(word) for word in self._stable[self._kept :]]
        return beginning(stable, self._newest[:end])

    def _settle(self, words: Sequence[WrittenWord], chances: Sequence[float]) -> None:
        """Let `_stable` grow by the words that were there often and will hardly change."""
        rules = self._model.rules

        def sure(index: int, chance: float) -> bool:
            return self._counts[index] >= rules.settle_windows and chances[index] >= chance

        # The last word may still be cut, and a mark behind a word depends on what follows it.
        for index in range(self._first(len(words) - 1), len(words) - 1):
            # A name may come out otherwise each time; what follows it shows where it is.
            behind = range(index + 1, index + 1 + rules.passed_words)
            passed = behind.stop <= len(words) and all(sure(b, rules.passed_chance) for b in behind)
            if not (sure(index, rules.settle_chance) or passed):
                return
            self._stable.append(words[index].text)

    def _end(self, chances: Sequence[float]) -> int:
        """Up to which of the words behind the stable ones showing gains the most."""
        first = end = self._first()
        gained = most = 0.0
        for index in range(first, len(chances)):
            gained += chances[index] - self._model.rules.show_chance
            if gained >= most:
                most, end = gained, index + 1
        return end

    def _slide(self, window: Window, words: Sequence[WrittenWord], emission: LogProbs) -> None:
        """Let the next windows begin in the longest pause between two words that stay."""
        hop, places = self._model.grid.hop, self._places(window, words, emission)
        latest = window.start + len(window.samples) - self._samples("slide_keep_ms")
        stable = self._first()
        stay = stable
        if stable < 2 and len(window.samples) > 2 * self._samples("slide_after_ms"):
            stay = len(words)
        pauses = [
            (places[index][0] - places[index - 1][1], index)
            for index in range(1, stay)
            if places[index][0] <= latest
        ]
        if not pauses:
            return
        _, count = max(pauses)
        frame = (places[count - 1][1] + places[count][0] - 2 * window.start) // (2 * hop)
        self.settled_until = window.start + frame * hop
        if count > stable:
            # A doubtful word at the beginning must not hold up all that follows for ever.
            self._stable += [word.text for word in words[stable:count]]
            stable = count
        self._starts.append((self.settled_until, len(self._stable) - (stable - count)))

    def _heard(self, words: Sequence[WrittenWord], emission: LogProbs) -> bool:
        """The second opinion: an encoder-decoder has words for noise, too."""
        rules, vocabulary = self._model.rules, self._model.vocabulary
        sure, least = certainty(emission, vocabulary), self._settings.min_certainty
        if not words or sure < rules.doubtful_share * least:
            return False
        text = [word.text for word in words]
        short = sum(letter.isalnum() for letter in "".join(text)) <= rules.short_letters
        if sure >= least and not short:
            return True
        cost = spelling_cost(text, emission, vocabulary)
        if cost is None:  # digits alone
            return sure >= least
        return cost <= (rules.short_cost if sure >= least else rules.doubtful_cost)

    def _samples(self, rule: str) -> int:
        milliseconds: int = getattr(self._model.rules, rule)
        return milliseconds * SAMPLE_RATE // 1000


def chances_to_stay(
    probabilities: Sequence[float], counts: Sequence[int], rules: WriterRules
) -> list[float]:
    """The chance of each word of a window to be in the final text at its place, 0 … 1.

    Args:
        probabilities: of its words.
        counts: how many windows in a row have had each of them, this one too.
        rules: of the writer.
    """
    weights = _weights(rules)
    logits = [
        sum(weight * value for weight, value in zip(weights, evidence, strict=True))
        for evidence in evidences(probabilities, counts)
    ]
    return [1 / (1 + math.exp(-logit)) for logit in logits]


def evidences(
    probabilities: Sequence[float], counts: Sequence[int]
) -> list[tuple[float, float, float, float, float]]:
    """What the chance of each word is made of, in the order of the rules."""
    bounded = [min(max(probability, _LEAST), 1 - _LEAST) for probability in probabilities]
    return [
        (
            1.0,
            math.log(probability / (1 - probability)),
            math.log(min(bounded[max(index - 2, 0) : index], default=1.0)),
            math.log(min(bounded[index + 1 : index + 3], default=1.0)),
            min(counts[index] - 1, _AGAIN),
        )
        for index, probability in enumerate(bounded)
    ]


def _weights(rules: WriterRules) -> tuple[float, float, float, float, float]:
    return (
        rules.chance_bias,
        rules.chance_odds,
        rules.chance_before,
        rules.chance_behind,
        rules.chance_again,
    )


def _written(reading: Reading) -> tuple[WrittenWord, ...]:
    assert reading.words is not None
    return reading.words


def _plain(word: str) -> str:
    """A word as it is compared: without case and punctuation."""
    bare = "".join(letter for letter in word if letter.isalnum() or letter in "'’").upper()
    return bare or word


def _inside(times: Sequence[tuple[int, int]], start: int, end: int) -> list[tuple[int, int]]:
    """Times within a segment, in order, none of length zero where there is room."""
    moved: list[tuple[int, int]] = []
    at = start
    for index, (first, last) in enumerate(times):
        left = len(times) - 1 - index  # words that need a sample yet
        first = min(max(first, at), max(end - left - 1, at))
        last = min(max(last, first + 1), max(end - left, first + 1))
        moved.append((first, last))
        at = last
    return moved
