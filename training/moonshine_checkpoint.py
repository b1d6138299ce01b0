"""The published writer as a checkpoint of transformers, and whether it writes the same.

    python -m training.moonshine_checkpoint write FOLDER
    python -m training.moonshine_checkpoint compare FOLDER MANIFEST [--containing TEXT] [--limit N]
                                                    [--accelerator cuda]

`compare` writes clips down by the published files in ONNX Runtime and by the checkpoint in torch.
The published encoder rounds its activations to eight bits, with one scale for a whole window, so
that a change which nobody hears rounds all of them otherwise. How often that alone changes a text
is the measure for the checkpoint, which computes in single precision on a CPU, in half precision
on a GPU.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, normalizers
from transformers import GenerationConfig

from streamer.config import DEFAULT_MODEL
from streamer.evaluation.metrics import error_rates, scored
from streamer.recognition import resolve
from streamer.recognition.moonshine import Moonshine
from streamer.recognition.moonshine_files import TOKENIZER, installed_folder, read_pieces
from streamer.recognition.torch_writer import TorchWriter
from streamer.sources.files import read_audio
from training.cut_windows.adapters import BEGIN, END, base_model

if TYPE_CHECKING:
    from collections.abc import Iterable

_UNKNOWN = "<unk>"
_FIRST_BYTE = 3
"""Three special tokens, then all bytes, then pieces."""
_INAUDIBLE = np.float32(1e-7)
"""Amplitude of noise, 140 dB below the loudest sample."""
_WORD_START = "\u2581"


def write_checkpoint(folder: Path) -> None:
    """Write the published weights and tokens as transformers loads them.

    Args:
        folder: is made if it is not there.

    Raises:
        ModelError: the published files are not installed, or damaged.
    """
    published = installed_folder()
    model = base_model(published)
    model.generation_config = GenerationConfig(
        bos_token_id=BEGIN, decoder_start_token_id=BEGIN, eos_token_id=END, pad_token_id=END
    )
    model.save_pretrained(folder)
    _tokenizer(read_pieces((published / TOKENIZER).read_bytes())).save(
        str(folder / "tokenizer.json")
    )
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": _UNKNOWN}
    for name, content in {
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", **special},
        "preprocessor_config.json": {
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "processor_class": "Wav2Vec2Processor",
            "do_normalize": False,
            "return_attention_mask": True,
            "sampling_rate": 16_000,
        },
    }.items():
        (folder / name).write_text(json.dumps(content, indent=1) + "\n")


def _tokenizer(pieces: list[bytes]) -> FastTokenizer:
    """The published pieces with the merges that make them: those into earlier pieces come first."""
    names = list[str]()
    for number, piece in enumerate(pieces):
        # A byte has another name than the piece of that letter.
        byte = _FIRST_BYTE <= number < _FIRST_BYTE + 256
        names.append(f"<0x{piece[0]:02X}>" if byte else piece.decode("utf-8"))
    numbers = {name: number for number, name in enumerate(names)}
    merges = [
        (name[:at], name[at:])
        for name in names[_FIRST_BYTE + 256 :]
        for at in range(1, len(name))
        if name[:at] in numbers and name[at:] in numbers
    ]
    tokenizer = FastTokenizer(
        models.BPE(numbers, merges, unk_token=_UNKNOWN, fuse_unk=True, byte_fallback=True)
    )
    tokenizer.add_special_tokens(names[:_FIRST_BYTE])
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(_WORD_START), normalizers.Replace(" ", _WORD_START)]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(_WORD_START, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1, right=0),
        ]
    )
    return tokenizer


def compare(
    folder: Path, clips: Iterable[Path], accelerator: str = "cpu"
) -> list[tuple[str, str, str]]:
    """What is written of each clip.

    Args:
        folder: the checkpoint.
        clips: recordings.
        accelerator: where the checkpoint computes.

    Returns:
        By the published files; by them with noise in the audio that nobody hears; by the
        checkpoint.
    """
    published = Moonshine(installed_folder())
    checkpoint = TorchWriter(resolve(str(folder)), "writer", accelerator=accelerator, language="en")
    noise = np.random.default_rng(0)
    texts = []
    for clip in clips:
        samples, _ = read_audio(clip)
        noisy = samples + noise.standard_normal(len(samples)).astype(np.float32) * _INAUDIBLE
        texts.append(
            (
                published.write(samples).text,
                published.write(noisy).text,
                checkpoint.write(samples).text,
            )
        )
    return texts


def clips_of(manifest: Path, containing: str = "", limit: int | None = None) -> list[Path]:
    """The first recordings of a manifest whose names hold a text."""
    with manifest.open(newline="", encoding="utf-8") as table:
        files = [row["file"] for row in csv.DictReader(table, delimiter="\t")]
    return [manifest.parent / file for file in files if containing in file][:limit]


def main() -> None:
    """Run one of the two commands."""
    parser = argparse.ArgumentParser(description=f"{DEFAULT_MODEL} for transformers")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("write").add_argument("folder", type=Path)
    comparing = commands.add_parser("compare")
    comparing.add_argument("folder", type=Path)
    comparing.add_argument("manifest", type=Path)
    comparing.add_argument("--containing", default="")
    comparing.add_argument("--limit", type=int)
    comparing.add_argument("--accelerator", default="cpu")
    options = parser.parse_args()
    if options.command == "write":
        write_checkpoint(options.folder)
        return
    clips = clips_of(options.manifest, options.containing, options.limit)
    texts = compare(options.folder, clips, options.accelerator)
    for published, noisy, checkpoint in texts:
        if checkpoint != published:
            print(f"published:  {published}\nwith noise: {noisy}\ncheckpoint: {checkpoint}\n")
    for said, place in (("published files with inaudible noise", 1), ("checkpoint", 2)):
        same = sum(written[0] == written[place] for written in texts)
        rates = error_rates(*([scored(written[at]) for written in texts] for at in (0, place)))
        print(
            f"{said}: {same} of {len(texts)} texts the same; "
            f"{rates.wer:.1%} of {rates.words} words other"
        )


if __name__ == "__main__":
    main()
