"""The files of Moonshine tiny: where they lie, whether they are whole, what its tokens spell.

The quantized English model is part of the wheel of `moonshine-voice` up to 0.0.73, so that it
needs no download of its own. The package is not imported: it would load a library of 42 MB.
"""

from __future__ import annotations

import hashlib
import importlib.util
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from streamer.config import DEFAULT_MODEL
from streamer.errors import ModelError

if TYPE_CHECKING:
    import numpy.typing as npt

ENCODER, DECODER, TOKENIZER = "encoder_model.ort", "decoder_model_merged.ort", "tokenizer.bin"
SHA256 = {
    ENCODER: "94e90a4654fc45cdfedb77c4c08e1739f48862998e58fada384b25118134f221",
    DECODER: "cf524c4862d36e9e5ab032eddc73637efd822d70e868ac575cf1a46e1e4708a0",
    TOKENIZER: "6884b35fd6377d4c4d32336a0bc152f36b64d1e45b6503683cdc238250a8472d",
}
CUT_ADAPTER = "moonshine-tiny-cut.safetensors"
"""Beside the embedded model: what teaches the decoder to stop where the audio is cut."""
MOONSHINE_RULES = "moonshine-tiny-writer.json"
"""Beside the embedded model: how live text is made of this one's words."""
_PACKAGE = "moonshine_voice"
_REQUIREMENT = "moonshine-voice>=0.0.73,<0.1"
_WORD_START = "\u2581"
_END, _BYTES = 2, 3
"""The token at which texts end, and the first of the 256 that spell single bytes."""


def installed_folder() -> Path:
    """The folder of the model's files in the installed package.

    Raises:
        ModelError: the package is not installed, or holds no model.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    for place in (spec and spec.submodule_search_locations) or ():
        folder = Path(place) / "assets" / "tiny-en"
        if holds_moonshine(folder):
            return folder
    lacking = "is not installed" if spec is None else "is installed without its model"
    raise ModelError(
        f"{DEFAULT_MODEL}: the package moonshine-voice, which holds it, {lacking}; "
        f"`pip install '{_REQUIREMENT}'`, or name a folder with {', '.join(SHA256)}"
    )


def holds_moonshine(folder: Path) -> bool:
    """Whether all of the model's files are there."""
    return all((folder / name).is_file() for name in SHA256)


def verify(folder: Path) -> None:
    """Compare the files with those that were published; all 44 MB took 37 ms.

    Raises:
        ModelError: one is missing, cannot be read or is another.
    """
    for name, expected in SHA256.items():
        try:
            with (folder / name).open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise ModelError(f"{folder / name}: {error.strerror or error}") from error
        if found != expected:
            raise ModelError(
                f"{folder / name}: damaged, or not the English Moonshine tiny of moonshine-voice "
                f"0.0.73; `pip install --force-reinstall '{_REQUIREMENT}'`"
            )


class Tokenizer:
    """What each token spells, read from a `tokenizer.bin`."""

    def __init__(self, path: Path) -> None:
        self._pieces = read_pieces(path.read_bytes())

    def __len__(self) -> int:
        return len(self._pieces)

    def spell(self, tokens: tuple[int, ...]) -> str:
        """The text of some tokens, with a space before each word."""
        spelled = b"".join(self._pieces[token] for token in tokens)
        return spelled.decode("utf-8", "replace").replace(_WORD_START, " ")

    def encode(self, text: str) -> list[int]:
        """The tokens that the model was taught to write a word or phrase with.

        Byte pairs are merged in the order in which they were found, which is that of their ids.
        """
        parts = [letter.encode() for letter in f" {text}".replace(" ", _WORD_START)]
        while True:
            merges = [
                (self._ids[left + right], at)
                for at, (left, right) in enumerate(pairwise(parts))
                if left + right in self._ids
            ]
            if not merges:
                break
            _, at = min(merges)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return [
            token
            for part in parts
            for token in (
                [self._ids[part]] if part in self._ids else [_BYTES + byte for byte in part]
            )
        ]

    @cached_property
    def _ids(self) -> dict[bytes, int]:
        # The last one of each: the first 256 spell single bytes that no other token has.
        return {piece: token for token, piece in enumerate(self._pieces)}

    @cached_property
    def ends_word(self) -> npt.NDArray[np.bool_]:
        """Of each token, whether a word is complete before it: shape (tokens,)."""
        spelled = (self.spell((token,)) for token in range(len(self)))
        ends = np.array([not text[:1].isalnum() for text in spelled])
        ends[:_BYTES] = [token == _END for token in range(_BYTES)]
        ends[_BYTES + 128 : _BYTES + 256] = False  # parts of letters
        return ends

    def opens_word(self, token: int) -> bool:
        """Whether a space goes before it."""
        return token in self._openers

    @cached_property
    def _openers(self) -> frozenset[int]:
        mark = _WORD_START.encode()
        return frozenset(i for i, piece in enumerate(self._pieces) if piece.startswith(mark))


def read_pieces(data: bytes) -> list[bytes]:
    """Each piece follows its length: one byte, or from 128 on two, of which the first is marked."""
    pieces, at = [], 0
    while at < len(data):
        length = data[at]
        at += 1
        if length >= 128:
            length = length - 128 + (data[at] << 7)
            at += 1
        pieces.append(data[at : at + length])
        at += length
    return pieces
