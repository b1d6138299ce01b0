"""A CTC network of transformers behind its own feature extractor and tokenizer.

What `models.TorchNetwork` knows of convolutions over the waveform and of letters is read from the
checkpoint there. Here it is asked for: how samples become frames is measured, and the tokenizer
says what the outputs mean, be they letters or pieces of words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from streamer.core.ctc import FrameGrid, Vocabulary
from streamer.errors import ModelError
from streamer.messages import SAMPLE_RATE
from streamer.recognition.accelerators import default_threads
from streamer.recognition.models import cpu_threads, freeze, quiet
from streamer.recognition.speech_models import Listening, load_speech_model

if TYPE_CHECKING:
    from streamer.messages import Samples
    from streamer.recognition.checkpoints import Checkpoint

_SHORT, _LONG = 2 * SAMPLE_RATE, 6 * SAMPLE_RATE
_STEP = SAMPLE_RATE // 200
"""Frames are multiples of 5 ms apart, and begin at one."""
_TOLERANCE = 0.02
"""Windows end between two frames."""
_MOST_EDGE = SAMPLE_RATE
"""By so much audio the first frame may see more than the others add."""
_WORD_START = "\u2581"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class FeatureNetwork:
    """Samples → logits. Safe to call from several threads.

    Attributes:
        config: the checkpoint's, with what its file leaves out.
        threads: how many CPU threads compute one window.
        grid: how samples become frames.
        vocabulary: the meaning of the output's columns.
    """

    def __init__(self, checkpoint: Checkpoint, accelerator: str, threads: int) -> None:
        """Load it.

        Args:
            checkpoint: where it lies.
            accelerator: `cpu`, `cuda` or `mps`.
            threads: as of `Recognizer`.

        Raises:
            ModelError: the checkpoint is damaged, lacks a file, or does not run on plain audio.
        """
        self._model = load_speech_model(checkpoint, accelerator)
        freeze(self._model)
        self.config: Mapping[str, Any] = self._model.config.to_dict()
        size = sum(parameter.numel() for parameter in self._model.parameters())
        self.threads = threads or default_threads(size, torch.get_num_threads())
        self._listening = Listening(checkpoint, self._model)
        try:
            with quiet():
                self.grid = self._measured()
                rows = self(np.zeros((1, self.grid.fit(SAMPLE_RATE)), np.float32)).shape[-1]
        except Exception as error:  # each architecture has its own ways to fail
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ModelError(
                f"{checkpoint.name}: a {type(self._model).__name__} does not run on plain audio "
                f"({reason}); name another model"
            ) from error
        blank = self.config.get("blank_token_id", self.config.get("pad_token_id"))
        if not isinstance(blank, int) or not 0 <= blank < rows:
            raise ModelError(f"{checkpoint.name}: no output for the CTC blank ({blank})")
        self.vocabulary = vocabulary_of(self._listening.tokenizer, rows, blank)

    def __call__(self, samples: Samples) -> Samples:
        """Shape (windows, n) → (windows, frames, vocabulary), not yet normalized."""
        with torch.inference_mode(), cpu_threads(self.threads):
            rows = [
                self._model(**self._listening.inputs(window)).logits[0].float().cpu().numpy()
                for window in samples
            ]
        return np.stack(rows)

    def _measured(self) -> FrameGrid:
        """From how many frames windows of several lengths have."""
        noise = np.random.default_rng(0).standard_normal(_LONG).astype(np.float32) * 0.01
        more = self._frames(noise) - self._frames(noise[:_SHORT])
        if more <= 0:
            raise ValueError("more audio gives no more frames")
        apart = (_LONG - _SHORT) / more
        hop = max(1, round(apart / _STEP)) * _STEP
        if abs(apart - hop) > _TOLERANCE * hop:
            raise ValueError(f"its frames are {apart:.0f} samples apart, no multiple of {_STEP}")
        frames = _SHORT // hop
        for edge in range(0, _MOST_EDGE, _STEP):
            if self._frames(noise[: frames * hop + edge]) >= frames:
                return FrameGrid(hop, hop + edge, hop)
        raise ValueError(f"frames of {hop} samples do not fit the audio")

    def _frames(self, samples: Samples) -> int:
        return int(self(samples[None]).shape[1])


def vocabulary_of(tokenizer: Any, rows: int, blank: int) -> Vocabulary:
    """What the outputs of a CTC model mean, by its tokenizer.

    Args:
        tokenizer: of transformers.
        rows: outputs of the model; those that the tokenizer has not are never shown.
        blank: which of them is the blank.
    """
    names = tokenizer.convert_ids_to_tokens(list(range(min(rows, len(tokenizer)))))
    names += [""] * (rows - len(names))
    backend = getattr(tokenizer, "backend_tokenizer", None)
    of_bytes = _bytes_of_letters() if "ByteLevel" in str(getattr(backend, "decoder", "")) else None
    texts = [_text(name or "", of_bytes) for name in names]
    special = {number for number in tokenizer.all_special_ids if number < rows}
    special |= {number for number, name in enumerate(names) if not name}
    parting = getattr(tokenizer, "word_delimiter_token_id", None)
    openers = {
        number
        for number, text in enumerate(texts)
        if text.startswith(" ") and number not in special and number != parting
    }
    alone = [number for number in openers if not texts[number].strip()]
    if parting is None and len(openers) == len(alone) == 1:  # letters, and a space as one of them
        [parting] = alone
        openers = set()
    return Vocabulary(
        tokens=tuple(text.removeprefix(" ") for text in texts),
        blank=blank,
        delimiter=parting if parting is not None and parting < rows else None,
        special=frozenset(special - {parting, blank}),
        openers=frozenset(openers - {blank}),
    )


def _text(name: str, of_bytes: Mapping[str, int] | None) -> str:
    """What a token spells; parts of a character as `Vocabulary` wants them."""
    if byte := _BYTE.fullmatch(name):
        raw = bytes([int(byte[1], 16)])
    elif of_bytes and all(letter in of_bytes for letter in name):
        raw = bytes(of_bytes[letter] for letter in name)
    else:
        return name.replace(_WORD_START, " ")
    return raw.decode("utf-8", "surrogateescape")


def _bytes_of_letters() -> dict[str, int]:
    """The letters that stand for bytes in byte-level tokenizers."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in shown]
    letters = {chr(byte): byte for byte in shown}
    return letters | {chr(256 + index): byte for index, byte in enumerate(others)}
