"""From emission frames to words that are probable as language too: a CTC prefix beam search.

Written here because ready decoders keep to the words of a lexicon where they have a model of words,
and know no hotwords (flashlight-text), or need an older numpy (pyctcdecode).

Theory of operation. A *prefix* is a text that an utterance may begin with. At each frame every
prefix of the beam stays as it is (a blank, or its last letter goes on) or grows by a token; ways
that lead to the same prefix are added up. What language says of a prefix multiplies its weight as
it grows: for each word that ends, a model of word sequences; for an unfinished one, half of what
the best word that it may become will cost; for each letter of a hotword, a bonus that is taken back
where the word turns out to be another. A word that neither knows costs something and is not
forbidden.

Weights are plain numbers relative to the best of the frame, which is faster than logarithms; what
falls too far behind is dropped. In the end the best text is aligned with the emission, so that its
words have exact frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from streamer.core.alignment import align
from streamer.core.ctc import read_path, sentence_case
from streamer.core.ngram import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streamer.core.ctc import FrameWord, Vocabulary
    from streamer.core.hotwords import Hotwords
    from streamer.core.ngram import NGram
    from streamer.messages import LogProbs

MOST_NATS = 500.0
"""What a token may gain at most: many phrases that end at once must not overflow."""


@dataclass(frozen=True, slots=True)
class BeamRules:
    """How emissions, a language model and hotwords are weighed: of one checkpoint.

    What other values cost is in points of WER, with the embedded model's values and its language
    model, on every second clip of five sets that no weights were trained on; the hotwords' bonus is
    of one chapter of LibriSpeech dev-clean. `python -m training.biasing --vary` tells for others.
    """

    model_weight: float
    """The power to which the model's probabilities are taken; 0.7 and 1.0 cost one point, the
    latter four on test-other."""
    word_bonus: float
    """Nats for each word, against a model's liking for few; 0 costs a point, 0.5 and 1.5 hardly
    any."""
    unknown_cost: float
    """Nats for a word that neither a model nor a hotword knows: words that a network runs together
    are such; 10 costs half a point, 18 none."""
    look_ahead: float
    """Of what the best word that an unfinished one may become will cost, how much it costs already:
    all of it drops rare words at their first letters, up to four points in whole chapters; nothing
    of it costs up to eight."""
    hotword_bonus: float
    """Nats for each letter of a hotword; more finds a few more, and writes some that nobody
    says."""
    width: int
    """Prefixes that are kept from frame to frame; 60 take a third less time and cost up to two
    points on recorded speech, 150 gain nothing."""
    depth: float
    """Nats that a kept prefix may be behind the best; 8 cost one point."""
    faintest: float
    """A letter that is less probable is not tried."""


class _Prefix:
    """A text, as the text before it and one token more, and what language knows of it."""

    __slots__ = (
        "ahead", "children", "context", "ends_blank", "ends_token", "frame", "gain", "hot",
        "next_blank", "next_token", "parent", "token", "weight", "word",
    )  # fmt: skip

    def __init__(self, parent: _Prefix | None, token: int) -> None:
        self.parent, self.token = parent, token
        self.children: dict[int, _Prefix] = {}
        self.weight = self.ends_blank = self.ends_token = self.next_blank = self.next_token = 0.0
        self.frame = -1
        self.word = ""  # what is spelled of the last word
        self.context = ""  # of the model, before that word
        self.ahead = 0.0  # what the model has said of the unfinished word
        self.hot = 0
        self.gain = 1.0  # by which a weight is multiplied when the parent grows to this


class BeamDecoder:
    """Reads emissions; see `streamer.core.ctc.Decoder`.

    Args:
        vocabulary: what the columns mean; it has a delimiter.
        model: of word sequences, in the letters of the vocabulary.
        hotwords: to be expected.
        rules: of the checkpoint.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        model: NGram | None = None,
        hotwords: Hotwords | None = None,
        *,
        rules: BeamRules,
    ) -> None:
        assert vocabulary.delimiter is not None
        self._vocabulary, self._delimiter = vocabulary, vocabulary.delimiter
        self._model, self._hotwords = model, hotwords
        self._ids = {token: id_ for id_, token in enumerate(vocabulary.tokens)}
        self._rules = rules
        self.has_language_model = model is not None
        self._unknown = rules.model_weight * model.score("", UNKNOWN)[0] if model else 0.0
        self._most_for_a_letter = math.exp(rules.hotword_bonus) if hotwords else 1.0

    def __call__(self, log_probs: LogProbs, after: Sequence[str] = ()) -> list[FrameWord]:
        """The words of the best text.

        Args:
            log_probs: shape (frames, vocabulary).
            after: the words before it, where it is not a beginning.
        """
        if len(log_probs) == 0:
            return []
        text = self.text(log_probs, after)
        return read_path(align(text, log_probs, self._vocabulary), log_probs, self._vocabulary)

    def spell(self, words: Sequence[str], *, opening: bool) -> list[str]:
        """Sentence case, but hotwords in their own."""
        shown = sentence_case(words, opening=opening)
        return self._hotwords.respell(words, shown) if self._hotwords else shown

    def text(self, log_probs: LogProbs, after: Sequence[str] = ()) -> list[int]:
        """The best text: ids of its letters, and one delimiter between each two words."""
        delimiter = self._delimiter
        probs = np.exp(log_probs, dtype=np.float64)
        rules = self._rules
        hidden = sorted({self._vocabulary.blank} | self._vocabulary.special)
        blanks = probs[:, hidden].sum(axis=1).tolist()
        probs[:, hidden] = 0.0
        root = _Prefix(None, delimiter)
        if self._model:
            root.context = self._model.start
            for word in after[-self._model.order :]:
                root.context = self._model.score(root.context, word)[1]
        if self._hotwords:
            for token in self._spelled(after):
                root.hot, _ = self._hotwords.step(root.hot, token)
        root.ends_blank = root.weight = 1.0
        beam = [root]
        furthest = math.exp(-rules.depth)
        for frame, (blank, row) in enumerate(zip(blanks, probs.tolist(), strict=True)):
            faintest = (
                rules.faintest if blank > rules.faintest else min(rules.faintest, max(row) / 2)
            )
            tokens = [(token, p) for token, p in enumerate(row) if p > faintest]
            grown = list(beam)
            for prefix in beam:
                prefix.frame = frame
                prefix.next_blank = prefix.weight * blank
                prefix.next_token = prefix.ends_token * row[prefix.token]
            # What is lighter than this will not be kept. Of a letter that is clear before language
            # is asked, because it gains the hotword's bonus at most.
            stays = [prefix.next_blank + prefix.next_token for prefix in beam]
            least = min(stays) if len(beam) >= rules.width else max(stays) * furthest
            least_letter = least / self._most_for_a_letter
            for prefix in beam:
                last, weight = prefix.token, prefix.weight
                for token, p in tokens:
                    if token != last:
                        p *= weight
                    elif token != delimiter:
                        p *= prefix.ends_blank
                    else:  # parts no more than one does
                        prefix.next_token += prefix.ends_blank * p
                        continue
                    if p <= least_letter and token != delimiter:
                        continue
                    child = prefix.children.get(token) or self._grow(prefix, token, least / p)
                    if child is None:
                        continue
                    if child.frame != frame:
                        child.frame = frame
                        grown.append(child)
                    child.next_token += p * child.gain
            beam = self._kept(grown)
        return self._best(beam)

    def _spelled(self, words: Sequence[str]) -> Iterator[int]:
        """The tokens of words that are behind; a letter that is none is -1, which no phrase has."""
        for word in words:
            yield from (self._ids.get(letter, -1) for letter in word)
            yield self._delimiter

    def _kept(self, grown: list[_Prefix]) -> list[_Prefix]:
        """The best prefixes, weighed anew; the others are forgotten."""
        most = 0.0
        for prefix in grown:
            prefix.weight = prefix.next_blank + prefix.next_token
            most = max(most, prefix.weight)
        width = self._rules.width
        least = most * math.exp(-self._rules.depth)
        kept = [prefix for prefix in grown if prefix.weight >= least]
        if len(kept) > width:
            kept = sorted(kept, key=lambda prefix: prefix.weight, reverse=True)[:width]
        scale = 1 / most
        for prefix in kept:
            prefix.ends_blank = prefix.next_blank * scale
            prefix.ends_token = prefix.next_token * scale
            prefix.weight *= scale
        for prefix in set(grown).difference(kept):
            prefix.weight = prefix.ends_blank = prefix.ends_token = 0.0
            prefix.next_blank = prefix.next_token = 0.0
            if prefix.parent and not prefix.children:
                del prefix.parent.children[prefix.token]
        return kept

    def _grow(self, prefix: _Prefix, token: int, least: float = 0.0) -> _Prefix | None:
        """The prefix with one token more, unless its gain would be less than `least`."""
        nats = 0.0
        hot = completed = 0
        word, context, ahead = "", prefix.context, 0.0
        if self._hotwords:
            hot, completed = self._hotwords.step(prefix.hot, token)
            lent = self._hotwords.lent[hot] - self._hotwords.lent[prefix.hot]
            nats += self._rules.hotword_bonus * (completed + lent)
        if token != self._delimiter:
            word = prefix.word + self._vocabulary.tokens[token]
            if self._model:
                ahead = self._hoped(word, hot)
                nats += ahead - prefix.ahead
        elif self._model:
            worth, context = self._ended(prefix)
            nats += worth - prefix.ahead
        gain = math.exp(min(nats, MOST_NATS))
        if gain < least:
            return None
        child = prefix.children[token] = _Prefix(prefix, token)
        child.word, child.context, child.ahead = word, context, ahead
        child.hot, child.gain = hot, gain
        return child

    def _hoped(self, word: str, hot: int) -> float:
        """What an unfinished word counts for: a part of what it will be worth at most."""
        assert self._model
        best = self._model.ahead(word)
        if best is not None:
            return self._rules.look_ahead * self._rules.model_weight * best
        named = self._hotwords and self._hotwords.spelling(hot)
        return self._unknown - (0.0 if named else self._rules.unknown_cost)

    def _ended(self, prefix: _Prefix) -> tuple[float, str]:
        """What the finished word of a prefix is worth, and the model's context after it."""
        assert self._model
        nats, context = self._model.score(prefix.context, prefix.word)
        nats = self._rules.model_weight * nats + self._rules.word_bonus
        if prefix.word in self._model:
            return nats, context
        named = self._hotwords and self._hotwords.step(prefix.hot, self._delimiter)[1]
        return nats - (0.0 if named else self._rules.unknown_cost), context

    def _best(self, beam: Sequence[_Prefix]) -> list[int]:
        """The text of the best prefix once its last word has ended, with or without delimiter."""
        weights: dict[_Prefix, float] = {}
        for prefix in beam:
            weight = prefix.weight
            if prefix.token == self._delimiter:
                prefix = prefix.parent or prefix
            else:
                ended = self._grow(prefix, self._delimiter)
                assert ended
                weight *= ended.gain
            weights[prefix] = weights.get(prefix, 0.0) + weight
        prefix = max(weights, key=weights.__getitem__)
        text = []
        while prefix.parent:
            text.append(prefix.token)
            prefix = prefix.parent
        return text[::-1]
