"""Moonshine tiny, an encoder-decoder for English, in ONNX Runtime: samples → words.

    samples ─ encoder ─► hidden states ─ decoder, token by token ─► Writing

The decoder takes the most probable token each time, until it says that the text ends, a token
limit is reached or the text goes round in a loop. Tokens of a *draft* are computed in one run and
believed as far as each of them is the most probable one; then it goes on step by step, and with the
draft again where that meets the text. A run
gives each token the logits that single steps give it, to the last bit, so that a draft changes
nothing but the time.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnxruntime

from streamer.errors import ModelError
from streamer.messages import SAMPLE_RATE, WrittenWord
from streamer.recognition.moonshine_decoder import Adapter, Decoder
from streamer.recognition.moonshine_files import DECODER, ENCODER, TOKENIZER, Tokenizer, verify
from streamer.recognition.ort_format import OrtFile
from streamer.recognition.writer_hotwords import Candidate, Phrases

if TYPE_CHECKING:
    from pathlib import Path

    from streamer.messages import Samples

_BEGIN, _END = 1, 2
_SHORTEST = 895
"""Samples of which the encoder makes its first hidden state."""
_TOKENS_PER_SECOND, _SPARE_TOKENS = 6.5, 3
"""The fastest readers need 6; what goes on beyond is made up."""
_LOOP_TOKENS, _LOOP_TURNS = 12, 3
"""A loop: so many tokens at least, in so many turns at least. People say "no, no, no"."""
_RESUMED = 8
"""Tokens of a draft to try again after a difference: one costs a seventh of a step of its own."""


@dataclass(frozen=True, slots=True)
class Writing:
    """What was written of one window."""

    tokens: tuple[int, ...]
    """Without begin and end."""
    probabilities: tuple[float, ...]
    """Of each token, given those before it."""
    end_probability: float
    """Of the text's end after the last token."""
    ended: Literal["end", "limit", "loop"]
    """`end`: by the model; `limit`: more tokens than can be said in the time; `loop`: the text went
    round, and only the first turn was kept."""
    words: tuple[WrittenWord, ...]

    @property
    def text(self) -> str:
        """All words."""
        return " ".join(word.text for word in self.words)


class Moonshine:
    """A loaded model: immutable, and shared by threads."""

    accelerator, preview_ms, longest_s = "cpu", 0, 0

    def __init__(
        self,
        folder: Path,
        *,
        threads: int = 1,
        adapter: Path | None = None,
        hotwords: Sequence[str] = (),
    ) -> None:
        """Load the model.

        Args:
            folder: holds its three files.
            threads: that one call of `write` may use.
            adapter: of the decoder, for windows that end while somebody speaks.
            hotwords: words and phrases that are to be expected, as they are to be written.

        Raises:
            ModelError: a file is missing, damaged or another model's.
        """
        verify(folder)
        self._tokenizer = Tokenizer(folder / TOKENIZER)
        self.phrases = Phrases(hotwords, self._tokenizer) if hotwords else None
        try:
            self._encoder = onnxruntime.InferenceSession(
                str(folder / ENCODER), _options(threads), ["CPUExecutionProvider"]
            )
            file = OrtFile.read((folder / DECODER).read_bytes())
            self._decoder = self._cut_decoder = Decoder(file, lambda: _options(threads))
            if adapter:
                self._cut_decoder = Decoder(file, lambda: _options(threads), Adapter(adapter))
        except Exception as error:  # ONNX Runtime has a class for each reason
            raise ModelError(
                f"{folder}: ONNX Runtime {onnxruntime.__version__} cannot run this model; "
                "`pip install -U onnxruntime`"
            ) from error

    @property
    def uses_drafts(self) -> bool:
        """Whether drafts save time: not where this processor's kernels round a token's logits
        differently in a run with others, since the text would depend on them."""
        return self._decoder.independent and self._cut_decoder.independent

    def write(
        self,
        samples: Samples,
        draft: Sequence[int] = (),
        *,
        cut: bool = False,
        at_least: int = 0,
    ) -> Writing:
        """Write down what is said in a window.

        Args:
            samples: shape (n,), at 16 kHz. In less than 0.06 s there are no words.
            cut: whether it may end inside a sentence: then the adapter is used, where there is one.
            draft: tokens that are expected, such as those of a shorter window. They may save time;
                what is written does not depend on them.
            at_least: so many tokens there are before the text may end.
        """
        if len(samples) < _SHORTEST:
            return Writing((), (), 1.0, "end", ())
        inputs = {
            "input_values": np.ascontiguousarray(samples, np.float32)[None],
            "attention_mask": np.ones((1, len(samples)), np.int64),
        }
        hidden = self._encoder.run(None, inputs)[0][0]
        limit = token_limit(len(samples))
        decoder = self._cut_decoder if cut else self._decoder
        return self._decode(decoder, hidden, limit, self._usable(draft)[:limit], at_least)

    def _usable(self, draft: Sequence[int]) -> list[int]:
        """The draft up to its first token that no text has."""
        if not self.uses_drafts:
            return []
        vocabulary = self._decoder.vocabulary
        return [*itertools.takewhile(lambda token: _END < token < vocabulary, map(int, draft))]

    def _decode(
        self, decoder: Decoder, hidden: Any, limit: int, draft: list[int], at_least: int
    ) -> Writing:
        state = decoder.begin(hidden)
        expected: Sequence[int] = draft
        rows = iter(decoder.extend(state, [_BEGIN, *expected]))
        tokens, probabilities, ends = list[int](), list[float](), list[float]()
        began, candidates = 0, list[Candidate]()
        while True:
            row = next(rows)
            token, probability, end = _most_probable(row)
            if token == _END and len(tokens) < at_least:
                token = int(np.argmax(np.where(np.arange(len(row)) == _END, -np.inf, row)))
                probability = end * float(np.exp(row[token] - row[_END]))
            if self.phrases and (token == _END or self._tokenizer.opens_word(token)):
                own = probabilities[began:]
                if promising := self.phrases.promising(candidates, tokens[began:], own):

                    def instead(written: Sequence[int], place: int = began) -> Any:
                        state.cut(place + 1)
                        return decoder.extend(state, written)

                    if found := self.phrases.best(promising, own, instead):
                        tokens[began:] = found.tokens
                        probabilities[began:] = [found.probability] * len(found.tokens)
                        expected = continuation(tokens, draft)[: max(0, limit - len(tokens))]
                    rows = iter(instead([*tokens[began:], *expected]))
                    passed = itertools.islice(rows, len(tokens) - began - 1)
                    ends[began + 1 :] = [_most_probable(one)[2] for one in passed]
                    row = next(rows)
                    token, probability, end = _most_probable(row)
                began, candidates = len(tokens), self.phrases.candidates(row)
            ends.append(end)
            if token == _END or len(tokens) >= limit:
                return self._writing(
                    tokens, probabilities, end, "end" if token == _END else "limit"
                )
            tokens.append(token)
            probabilities.append(probability)
            kept = without_loop(tokens)
            if kept is not None:
                return self._writing(tokens[:kept], probabilities[:kept], ends[kept], "loop")
            if expected[:1] == [token]:
                expected = expected[1:]
                continue
            if state.length > len(tokens):
                state.cut(len(tokens))
            expected = continuation(tokens, draft)[: limit - len(tokens)]
            rows = iter(decoder.extend(state, [token, *expected]))

    def _writing(
        self,
        tokens: Sequence[int],
        probabilities: Sequence[float],
        end_probability: float,
        ended: Literal["end", "limit", "loop"],
    ) -> Writing:
        starts = [
            at for at, token in enumerate(tokens) if not at or self._tokenizer.opens_word(token)
        ]
        words = []
        for first, end in itertools.pairwise([*starts, len(tokens)]):
            text = self._tokenizer.spell(tuple(tokens[first:end])).strip()
            if not text:
                continue
            counted = [
                probabilities[at]
                for at in range(first, end)
                if any(letter.isalnum() for letter in self._tokenizer.spell((tokens[at],)))
            ]
            probability = min(counted or probabilities[first:end])
            words.append(WrittenWord(text, tuple(tokens[first:end]), probability))
        return Writing(tuple(tokens), tuple(probabilities), end_probability, ended, tuple(words))


def token_limit(samples: int) -> int:
    """How many tokens a window of so many samples may have."""
    return int(samples / SAMPLE_RATE * _TOKENS_PER_SECOND) + _SPARE_TOKENS


def without_loop(tokens: Sequence[int]) -> int | None:
    """How many tokens to keep of a text that has just begun to go round, or `None`."""
    for period in range(1, len(tokens) // _LOOP_TURNS + 1):
        length = period * max(_LOOP_TURNS, -(-_LOOP_TOKENS // period))
        if length <= len(tokens) and all(
            tokens[at] == tokens[at - period]
            for at in range(len(tokens) - length + period, len(tokens))
        ):
            return len(tokens) - length + period
    return None


def continuation(tokens: Sequence[int], draft: Sequence[int]) -> Sequence[int]:
    """What a draft goes on with after the last two tokens, wherever it has them.

    A word heard differently makes a draft wrong at one place, not from there on.
    """
    places = [
        at + 2 for at in range(len(draft) - 1) if list(draft[at : at + 2]) == list(tokens[-2:])
    ]
    if not places:
        return []
    nearest = min(places, key=lambda at: abs(at - len(tokens)))
    return draft[nearest : nearest + _RESUMED]


def _most_probable(logits: Any) -> tuple[int, float, float]:
    """The most probable token, its probability and that of the end."""
    token = int(logits.argmax())
    weights = np.exp(logits - logits[token])
    total = float(weights.sum(dtype=np.float64))
    return token, 1.0 / total, float(weights[_END]) / total


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    # An arena keeps the memory of the longest window: 350 MB after 30 s, without one 200. Both
    # reach 350 while they write it. Previews take no longer without, 30 s a tenth.
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    # A thread that spins while it waits takes a core from the program beside it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
