"""Any encoder-decoder or transducer of transformers, in torch: samples → words.

    samples ─ Listening ─► inputs, prompt ─ generate ─► tokens ─ written_words ─► Writing

`generate` of transformers prepares everything: the encoder, the prompt of a language and a task,
the cache, what a model never says. The loop over tokens is ours (`custom_generate`), because a
draft is verified in it: its tokens go through the decoder in one run, and are believed as far as
each of them is the most probable one. A model whose cache cannot be cut is decoded step by step.

A transducer is decoded by transformers alone. It tells when it said what.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import threading
import time
import unicodedata
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.utils import ModelOutput

from streamer.errors import ModelError, StreamerError
from streamer.messages import SAMPLE_RATE, UNSPACED, WrittenWord
from streamer.recognition.accelerators import choose_accelerator, default_threads
from streamer.recognition.models import cpu_threads, quiet
from streamer.recognition.moonshine import Writing, continuation, without_loop
from streamer.recognition.speech_models import Listening, load_speech_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from streamer.messages import Samples
    from streamer.recognition.checkpoints import Checkpoint
    from streamer.recognition.speech_models import Kind

_SHORTEST = SAMPLE_RATE // 10
"""In less there are no words, and some feature extractors have no frame."""
_ENGLISH = "the quick brown fox jumps over the lazy dog and then it sleeps until the next morning"
_LETTERS_PER_SECOND, _SPARE_TOKENS = 26, 3
"""The fastest readers of English need 24. What goes on beyond is made up."""
_LEAST_SHARE = 0.25
"""Tokens a letter of English, in the largest vocabularies."""
_FOREIGN = 3
"""Letters of other scripts may take a token or more each."""
_SAMPLES_A_STEP = 128
"""A transducer makes no more steps, tokens and blanks: ten in each 80 ms."""
_WARM_UP = 4 * SAMPLE_RATE
_WARM_UP_TOKENS = 6
"""New tokens of a preview, with a draft."""
_CADENCE_SHARE = 0.8
"""Of the time between two previews, computing one may take so much."""


# A length of ours is given with every call, and transformers says each time that it has another.
logging.getLogger("transformers.generation.utils").addFilter(
    lambda record: not str(record.msg).startswith("Both `max_new_tokens`")
)


class TorchWriter:
    """A loaded model: shared by threads, one window at a time.

    Attributes:
        model: of transformers; only to be looked at.
        accelerator: `cpu`, `cuda` or `mps`.
        preview_ms: the distance of previews that the machine can hold; 0 where it holds any.
        uses_drafts: whether drafts save time.
        longest_s: how much audio one window may have, in seconds; 0 for any.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        kind: Kind,
        *,
        accelerator: str = "auto",
        threads: int = 0,
        language: str = "",
        task: str = "transcribe",
    ) -> None:
        """Load a model and warm it up.

        Args:
            checkpoint: where it lies.
            kind: `writer` or `transducer`.
            accelerator: `auto`, `cpu`, `cuda` or `mps`.
            threads: CPU threads; 0 takes one for each 50 million weights.
            language: of the speech, as the model calls it; empty where none is asked for.
            task: `transcribe`, or `translate` into English.

        Raises:
            ModelError: the checkpoint is damaged, or `generate` does not run on speech alone.
            SettingsError: the accelerator is not there, or the model has no such language or task.
        """
        self.accelerator = choose_accelerator(accelerator)
        self.model = load_speech_model(checkpoint, self.accelerator)
        size = sum(parameter.numel() for parameter in self.model.parameters())
        self.threads = threads or default_threads(size, torch.get_num_threads())
        self._listening = Listening(checkpoint, self.model, language=language, task=task)
        self.longest_s = self._listening.longest_s
        self._transducer = kind == "transducer"
        self.uses_drafts = not self._transducer
        # `generate` of a transducer keeps its place in the model itself.
        self._lock = threading.Lock()
        one_language = language in ("en", "english") or task == "translate"
        share = max(self._listening.tokens_of(_ENGLISH) / len(_ENGLISH), _LEAST_SHARE)
        self._tokens_per_second = share * _LETTERS_PER_SECOND * (1 if one_language else _FOREIGN)
        self._most_tokens = _room(self.model.config)
        self._name = checkpoint.name
        with quiet():  # what is said once is said here
            self.preview_ms = self._warm_up()

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
            samples: shape (n,), at 16 kHz. In less than 0.1 s there are no words.
            draft: tokens that are expected, such as those of a shorter window. They may save time;
                what is written depends on them no more than rounding does.
            cut: whether the window may end inside a sentence; it makes no difference here.
            at_least: so many tokens there are before the text may end; not of a transducer.

        Raises:
            ModelError: the model does not run on this window.
        """
        if len(samples) < _SHORTEST:
            return Writing((), (), 1.0, "end", ())
        with self._running(len(samples)):
            writing = self._written(samples, draft, at_least)
            if _overflowed(writing) and self.model.dtype != torch.float32:
                self.model.float()  # half precision is too narrow for these weights
                writing = self._written(samples, draft, at_least)
        return writing

    def _written(self, samples: Samples, draft: Sequence[int], at_least: int) -> Writing:
        inputs = self._listening.inputs(samples)
        if self._transducer:
            return self._transduced(inputs, len(samples))
        more = {"min_new_tokens": at_least} if at_least else {}
        return self._decoded(inputs, draft, self._limit(len(samples)), **more)

    @contextlib.contextmanager
    def _running(self, samples: int) -> Iterator[None]:
        """One window at a time, without gradients, on our threads; failures are a ModelError."""
        try:
            with self._lock, torch.inference_mode(), cpu_threads(self.threads):
                yield
        except StreamerError:
            raise
        except Exception as error:  # each architecture has its own ways to fail
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ModelError(
                f"{self._name}: a {type(self.model).__name__} does not write "
                f"{samples / SAMPLE_RATE:.1f} s of plain audio down ({reason}); name another model"
            ) from error

    def _limit(self, samples: int) -> int:
        limit = int(samples / SAMPLE_RATE * self._tokens_per_second) + _SPARE_TOKENS
        return min(limit, self._most_tokens)

    def _decoded(
        self, inputs: dict[str, Any], draft: Sequence[int], limit: int, **options: Any
    ) -> Writing:
        loop = _Loop(list(map(int, draft))[:limit] if self.uses_drafts else [], limit)

        # `generate` looks at the names of these.
        def custom_generate(
            model: Any,
            input_ids: Any,
            logits_processor: Any,
            stopping_criteria: Any,
            generation_config: Any,
            **model_kwargs: Any,
        ) -> Any:
            return loop.run(model, input_ids, logits_processor, generation_config, model_kwargs)

        self.model.generate(
            **inputs,
            **self._listening.generation,
            **options,
            custom_generate=custom_generate,
            max_new_tokens=limit + 1,
            do_sample=False,
            num_beams=1,
        )
        self.uses_drafts = self.uses_drafts and loop.can_draft
        words = written_words(loop.tokens, loop.probabilities, self._listening.spell)
        return Writing(
            tuple(loop.tokens), tuple(loop.probabilities), loop.end, loop.ended, tuple(words)
        )

    def _transduced(self, inputs: dict[str, Any], samples: int) -> Writing:
        scores, most = (
            _Scores(self.model.config.vocab_size),
            samples // _SAMPLES_A_STEP + _SPARE_TOKENS,
        )
        given = self.model.generate(
            **inputs,
            logits_processor=LogitsProcessorList([scores]),
            max_new_tokens=most,
            do_sample=False,
            num_beams=1,
            return_dict_in_generate=True,
        )
        config = self.model.config
        tokens = given.sequences[0].tolist()[-len(scores.rows) :]
        steps = given.durations[0].tolist()[-len(scores.rows) :]
        hop = self._frame_samples()
        kept, probabilities, spans = list[int](), list[float](), list[tuple[int, int]]()
        frame = 0
        for token, row, step in zip(tokens, scores.rows, steps, strict=True):
            if token not in (config.blank_token_id, config.pad_token_id):
                kept.append(token)
                probabilities.append(float(row.softmax(-1)[token]))
                spans.append((frame * hop, (frame + max(step, 1)) * hop))
            frame += step
        words = written_words(kept, probabilities, self._listening.spell, spans if hop else ())
        end = math.nan if any(row.isnan().any() for row in scores.rows) else 1.0
        return Writing(tuple(kept), tuple(probabilities), end, "end", tuple(words))

    def _frame_samples(self) -> int:
        """Samples of one frame of the encoder; 0 where the configuration does not tell."""
        encoder = getattr(self.model.config, "encoder_config", None)
        factor = getattr(encoder, "subsampling_factor", 0)
        return int(factor * self._listening.hop_samples)

    def _warm_up(self) -> int:
        """Write of noise; return how far apart previews must be, in milliseconds."""
        noise = np.random.default_rng(0).standard_normal(_WARM_UP).astype(np.float32) * 0.01
        if _overflowed(self.write(noise)):
            raise ModelError(
                f"{self._name}: its weights hold numbers that are none; get the model again"
            )
        begun = time.perf_counter()
        if self._transducer:
            self.write(noise)
        else:
            with self._running(len(noise)):
                inputs = self._listening.inputs(noise)
                self._decoded(inputs, (), _WARM_UP_TOKENS, min_new_tokens=_WARM_UP_TOKENS)
        return round((time.perf_counter() - begun) / _CADENCE_SHARE * 1000)


def _overflowed(writing: Writing) -> bool:
    """Whether what the model computed were no numbers."""
    return any(map(math.isnan, (*writing.probabilities, writing.end_probability)))


class _Scores(LogitsProcessor):  # type: ignore[misc]
    """Keeps what a transducer thought at each step.

    Behind the tokens a TDT model has its durations, which must not be taken for tokens.
    """

    def __init__(self, vocabulary: int) -> None:
        self._vocabulary = vocabulary
        self.rows: list[Any] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Shape (1, outputs), with durations ruled out."""
        self.rows.append(scores[0, : self._vocabulary].float().cpu())
        tokens = scores.clone()
        tokens[:, self._vocabulary :] = -torch.inf
        return tokens


class _Loop:
    """Decodes one window's tokens, greedily, with a draft.

    Attributes:
        tokens, probabilities: what was written, and how sure each token was.
        end: the probability of the end after the last token.
        ended: what stopped it; see `Writing`.
        can_draft: whether the model's cache can be cut.
    """

    def __init__(self, draft: list[int], limit: int) -> None:
        self._draft, self._limit = draft, limit
        self.tokens: list[int] = []
        self.probabilities: list[float] = []
        self.end = 1.0
        self.ended: Literal["end", "limit", "loop"] = "end"
        self.can_draft = True
        self._ends: list[float] = []

    def run(
        self, model: Any, ids: Any, processors: Any, settings: Any, given: dict[str, Any]
    ) -> Any:
        """Write until the end; returns all ids, shape (1, n), as `generate` expects them.

        Args:
            model: in which everything runs.
            ids: the prompt, shape (1, n).
            processors: of the logits.
            settings: of `generate`.
            given: for the model's forward pass.
        """
        ends = _ids(settings.eos_token_id)
        vocabulary = model.config.get_text_config(decoder=True).vocab_size
        draft = [
            *itertools.takewhile(lambda token: 0 <= token < vocabulary and token not in ends,
                                 self._draft)
        ]  # fmt: skip
        cache: Any = given.get("past_key_values")
        self.can_draft = bool(given.get("use_cache")) and hasattr(cache, "crop")
        expected: Sequence[int] = draft if self.can_draft else []
        if self.can_draft:
            cache.activate_past_recording()
        first = True
        while True:
            fed = torch.cat((ids, ids.new_tensor([list(expected)])), dim=1) if expected else ids
            rows, outputs = _forward(model, fed, len(expected), given, first=first)
            before = len(self.tokens)
            done = self._take(rows, fed, ids.shape[1], processors, ends, expected)
            new = self.tokens[before:]
            ids = torch.cat((ids, ids.new_tensor([new])), dim=1) if new else ids
            if done:
                return ids
            if self.can_draft:
                outputs.past_key_values.crop(len(new) - 1 - len(expected))
            given = _grown(model, outputs, given, len(new))
            expected = continuation(self.tokens, draft) if self.can_draft else []
            expected = expected[: self._limit - len(self.tokens)]
            first = False

    def _take(
        self,
        rows: Any,
        fed: Any,
        known: int,
        processors: Any,
        ends: set[int],
        expected: Sequence[int],
    ) -> bool:
        """Take tokens as long as they are those that were expected, and one more.

        Args:
            rows: logits, shape (expected + 1, vocabulary).
            fed: the ids that they follow, shape (1, known + expected).
            known: how many of them are sure.
            processors: of the logits.
            ends: ids that end a text.
            expected: the tokens behind those.

        Returns:
            Whether the text has ended.
        """
        for place, row in enumerate(rows):
            scores = processors(fed[:, : known + place], row[None])[0]
            chances = scores.softmax(-1)
            token = int(scores.argmax())
            end = sum(float(chances[one]) for one in ends if one < len(chances))
            self._ends.append(end)
            if token in ends or len(self.tokens) == self._limit:
                self.end, self.ended = end, "end" if token in ends else "limit"
                return True
            self.tokens.append(token)
            self.probabilities.append(float(chances[token]))
            kept = without_loop(self.tokens)
            if kept is not None:
                self.end, self.ended = self._ends[kept], "loop"
                del self.tokens[kept:], self.probabilities[kept:]
                return True
            if list(expected[place : place + 1]) != [token]:
                return False
        return False


def _forward(
    model: Any, fed: Any, expected: int, given: dict[str, Any], *, first: bool
) -> tuple[Any, Any]:
    """One run of the decoder.

    Returns:
        The logits behind the last sure token and behind each expected one, shape (expected + 1,
        vocabulary), and all that the model gave.
    """
    prepared = _grown(model, ModelOutput(), dict(given), expected) if expected else given
    cached = bool(given.get("use_cache"))
    inputs = model.prepare_inputs_for_generation(
        fed,
        next_sequence_length=expected + 1 if cached and not first else None,
        is_first_iteration=first,
        **prepared,
    )
    if "logits_to_keep" in inputs:
        inputs["logits_to_keep"] = expected + 1
    outputs = model(**inputs, return_dict=True)
    return outputs.logits[0, -expected - 1 :].float(), outputs


def _grown(model: Any, outputs: Any, given: dict[str, Any], tokens: int) -> dict[str, Any]:
    """Masks and places for so many more tokens, and the outputs' cache."""
    grown: dict[str, Any] = model._update_model_kwargs_for_generation(
        outputs, given, is_encoder_decoder=model.config.is_encoder_decoder, num_new_tokens=tokens
    )
    return grown


def _ids(ids: Any) -> set[int]:
    """One id, several or none, as a set."""
    if ids is None:
        return set()
    return set(ids) if isinstance(ids, list | tuple) else {int(ids)}


def _room(config: Any) -> int:
    """How many tokens of text the decoder has places for."""
    text = config.get_text_config(decoder=True)
    places = getattr(text, "max_target_positions", None) or getattr(
        text, "max_position_embeddings", None
    )
    # A prompt of task and language, and the end.
    return max(1, places - 16) if isinstance(places, int) else 1_000


def written_words(
    tokens: Sequence[int],
    probabilities: Sequence[float],
    spell: Callable[[Sequence[int]], str],
    spans: Sequence[tuple[int, int]] = (),
) -> list[WrittenWord]:
    """The words of some tokens, whatever pieces a tokenizer makes of them.

    Each token belongs to the word of its first letter. One that completes no letter, such as the
    first byte of several, goes with the next; those of no text go with the word before.

    Args:
        tokens: of one text.
        probabilities: of each of them.
        spell: the text of some tokens, with spaces between words.
        spans: when each token was said, in samples; empty where that is not known.
    """
    text = spell(tokens)
    bounds = _bounds(text)
    if not bounds:
        return []
    owners = list[int]()
    at = 0
    for count in range(1, len(tokens) + 1):
        begun = at
        # An incomplete character is spelled by a sign that the next token takes back.
        at = max(at, min(len(spell(tokens[:count]).rstrip("\ufffd")), len(text)))
        letters = [place for place in range(begun, at) if not text[place].isspace()]
        owners.append(_word_at(bounds, letters[0]) if letters else -1)
    for index in range(len(owners) - 1, -1, -1):
        if owners[index] < 0:
            owners[index] = owners[index + 1] if index + 1 < len(owners) else len(bounds) - 1
    words = []
    for number, (begin, end) in enumerate(bounds):
        own = [index for index, owner in enumerate(owners) if owner == number]
        # One token may hold several words.
        sure = own or [max((i for i, owner in enumerate(owners) if owner < number), default=0)]
        counted = [i for i in sure if any(letter.isalnum() for letter in spell([tokens[i]]))]
        words.append(
            WrittenWord(
                text[begin:end],
                tuple(tokens[index] for index in own),
                min(probabilities[index] for index in counted or sure),
                (spans[sure[0]][0], spans[sure[-1]][1]) if spans else None,
            )
        )
    return words


def _bounds(text: str) -> list[tuple[int, int]]:
    """Where the words of a text begin and end; in scripts without spaces, its characters."""
    bounds = list[tuple[int, int]]()
    for place, letter in enumerate(text):
        if letter.isspace():
            continue
        begins = not place or text[place - 1].isspace()
        unspaced = bool(UNSPACED.match(letter))
        if not begins and unicodedata.category(letter)[0] not in "MP":
            begins = unspaced or bool(UNSPACED.match(text[place - 1]))
        if begins:
            bounds.append((place, place + 1))
        else:
            bounds[-1] = bounds[-1][0], place + 1
    return bounds


def _word_at(bounds: Sequence[tuple[int, int]], place: int) -> int:
    return next(index for index, (_, end) in enumerate(bounds) if place < end)
