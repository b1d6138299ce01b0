"""What the small files of a checkpoint say: its letters, and how it wants to hear."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

from streamer.core.beam import BeamRules
from streamer.core.ctc import Calibration, FrameGrid, Vocabulary
from streamer.core.ctc_hypothesis import CtcRules
from streamer.core.writer_hypothesis import WriterRules
from streamer.errors import ModelError
from streamer.messages import SAMPLE_RATE
from streamer.recognition.moonshine_files import MOONSHINE_RULES, holds_moonshine

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Rules = TypeVar("_Rules", bound="DataclassInstance")

CONFIG = "config.json"
VOCABULARY = "vocab.json"
EMBEDDED_FOLDER = Path(__file__).parent / "embedded"
LIVE_RULES = "live.json"
"""How live text is made of a CTC model's emissions."""
_EMBEDDED_HOP = 320
"""Samples between two frames of the embedded model, for which the rules were fitted."""
BEAM_RULES = "beam.json"
"""How they are weighed against a language model and hotwords."""
WRITER_RULES = "writer.json"
"""How live text is made of an encoder-decoder's words."""
SAFETENSORS = "model.safetensors"
GRAPH = "sew.onnx"
"""What ONNX Runtime computes with those weights."""
CALIBRATION = "calibration.json"
"""Ours alone; of these weights and no others, so it is copied with nothing."""
LANGUAGE_MODEL = "words.arpa.gz"
"""Ours too: what the model's emissions are read with, where nothing else is asked for."""
LANGUAGE_MODEL_LICENSE = "WORDNET-LICENSE"
"""Wants to go wherever the embedded model's language model goes."""
SMALL_FILES = (
    CONFIG,
    VOCABULARY,
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
SEW_TINY_TOKENS = ("<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ")
"""The outputs of `asapp/sew-tiny-100k-ft-ls100h`, in order."""
SEW_TINY_LETTERS = Vocabulary(SEW_TINY_TOKENS, 0, 4, frozenset(range(4)))
"""What they mean."""


def read_vocabulary(folder: Path, rows: int) -> Vocabulary:
    """Read what the model's output rows mean, as transformers' Wav2Vec2CTCTokenizer would.

    Args:
        folder: a checkpoint.
        rows: outputs of the model.

    Raises:
        ModelError: the vocabulary is missing, damaged or of another size.
    """
    if not (folder / VOCABULARY).is_file():
        raise ModelError(f"{folder}: no {VOCABULARY}; the model's letters are not known")
    settings = read_json(folder / "special_tokens_map.json", optional=True)
    settings |= read_json(folder / "tokenizer_config.json", optional=True)
    ids: Any = read_json(folder / VOCABULARY)
    if language := settings.get("target_lang"):
        ids = ids.get(language)
    if not isinstance(ids, dict) or not all(isinstance(n, int) for n in ids.values()):
        raise ModelError(f"{folder / VOCABULARY}: not a table of tokens and their numbers")
    special = {
        role: _content(settings.get(f"{role}_token", default))
        for role, default in (("bos", "<s>"), ("eos", "</s>"), ("unk", "<unk>"), ("pad", "<pad>"))
    }
    added = read_json(folder / "added_tokens.json", optional=True)
    for number, token in settings.get("added_tokens_decoder", {}).items():
        added.setdefault(_content(token), int(number))
    for token in special.values():
        if token is not None and token not in ids and token not in added:
            added[token] = max([*ids.values(), *added.values()], default=-1) + 1
    ids = {**added, **ids}
    by_id = {number: token for token, number in ids.items()}
    letters = {number for token, number in ids.items() if token not in added}
    if set(range(rows)) - set(by_id) or max(letters, default=0) >= rows:
        raise ModelError(
            f"{folder}: {VOCABULARY} has {len(letters)} tokens, but the model {rows} outputs"
        )
    blank = ids.get(special["pad"] or "", rows)
    if blank >= rows:
        raise ModelError(f"{folder}: no output for the CTC blank ({special['pad']})")
    tokens = [by_id[number] for number in range(rows)]
    hidden = {number for number, token in enumerate(tokens) if token in special.values()}
    if settings.get("do_lower_case"):
        tokens = [token.lower() for token in tokens]
    delimiter = ids.get(_content(settings.get("word_delimiter_token", "|")) or "", rows)
    return Vocabulary(
        tokens=tuple(tokens),
        blank=blank,
        delimiter=delimiter if delimiter < rows else None,
        special=frozenset(hidden - {delimiter}),
    )


def read_normalization(folder: Path) -> bool:
    """Whether the model wants each window with zero mean and unit variance.

    Raises:
        ModelError: the model hears another sampling rate than `SAMPLE_RATE`.
    """
    rate = sampling_rate(folder)
    if rate != SAMPLE_RATE:
        raise ModelError(f"{folder}: this model hears {rate} samples a second, not {SAMPLE_RATE}")
    return bool(_extractor(folder).get("do_normalize", True))


def sampling_rate(folder: Path) -> Any:
    """How many samples a second the model hears."""
    return _extractor(folder).get("sampling_rate", SAMPLE_RATE)


def _extractor(folder: Path) -> dict[str, Any]:
    extractor = read_json(folder / "processor_config.json", optional=True)
    extractor = extractor.get("feature_extractor") or {}
    return read_json(folder / "preprocessor_config.json", optional=True) or extractor


def frame_grid(config: Mapping[str, Any]) -> FrameGrid:
    """How a model of this configuration turns samples into frames.

    Raises:
        ModelError: its convolutions cannot be.
    """
    kernels, strides = config.get("conv_kernel"), config.get("conv_stride")
    pooled = config.get("squeeze_factor", 1)
    if not (_positive(kernels) and _positive(strides) and len(kernels) == len(strides)) or (
        not _positive([pooled])
    ):
        raise ModelError(f"{CONFIG}: it describes convolutions that cannot be; get the model again")
    hop, receptive = 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        receptive += (kernel - 1) * hop
        hop *= stride
    return FrameGrid(hop, receptive, hop * pooled)


def _positive(numbers: Any) -> TypeGuard[Sequence[int]]:
    """Whether these are positive whole numbers, and at least one."""
    return (
        isinstance(numbers, list | tuple)
        and bool(numbers)
        and all(isinstance(number, int) and number > 0 for number in numbers)
    )


def read_calibration(folder: Path, *, with_lm: bool) -> Calibration | None:
    """What the model's confidence is worth, where `training/calibrate.py` has found out.

    Args:
        folder: a checkpoint.
        with_lm: whether a language model helps to read.

    Raises:
        ModelError: the file is damaged.
    """
    fitted = read_json(folder / CALIBRATION, optional=True).get("lm" if with_lm else "greedy")
    if fitted is None:
        return None
    try:
        calibration = Calibration(float(fitted["bias"]), float(fitted["slope"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder / CALIBRATION}: no bias and slope; delete the file") from error
    if not (math.isfinite(calibration.bias) and math.isfinite(calibration.slope)):
        raise ModelError(f"{folder / CALIBRATION}: bias or slope is no number; delete the file")
    return calibration


def read_live_rules(folder: Path) -> CtcRules:
    """How live text is made of the model's emissions; the embedded model's where it brings none.

    Raises:
        ModelError: the file is damaged.
    """
    return read_rules(_own_or_embedded(folder, LIVE_RULES), CtcRules)


def read_beam_rules(folder: Path) -> BeamRules:
    """How emissions are weighed against language; as the embedded model's where it brings none.

    Raises:
        ModelError: the file is damaged.
    """
    return read_rules(_own_or_embedded(folder, BEAM_RULES), BeamRules)


def read_writer_rules(folder: Path) -> WriterRules:
    """How live text is made of the model's words.

    Where it brings no rules they are those of Moonshine tiny. Of another model nobody has measured
    how sure it is of words that stay, so that its words are shown at even odds.

    Raises:
        ModelError: the file is damaged.
    """
    if (folder / WRITER_RULES).is_file():
        return read_rules(folder / WRITER_RULES, WriterRules)
    rules = read_rules(EMBEDDED_FOLDER / MOONSHINE_RULES, WriterRules)
    return rules if holds_moonshine(folder) else replace(rules, show_chance=0.5)


def read_rules(path: Path, kind: type[_Rules]) -> _Rules:
    """A dataclass of whole and real numbers, from a JSON file of its fields.

    Raises:
        ModelError: the file is damaged, or a field is missing.
    """
    kinds = {field.name: {"int": int, "float": float}[str(field.type)] for field in fields(kind)}
    try:
        table = read_json(path)
        rules = {name: number(table[name]) for name, number in kinds.items()}
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: not all rules are in it; delete the file") from error
    if not all(map(math.isfinite, rules.values())):
        raise ModelError(f"{path}: a rule is no number; delete the file")
    return kind(**rules)


def _own_or_embedded(folder: Path, name: str) -> Path:
    own = folder / name
    return own if own.is_file() else EMBEDDED_FOLDER / name


def rules_at(rules: CtcRules, hop_samples: int) -> CtcRules:
    """The embedded model's rules for a model whose frames are as far apart as that."""
    factor = hop_samples / _EMBEDDED_HOP
    return replace(
        rules,
        stay_by_frame=rules.stay_by_frame * factor,
        stay_frames=math.ceil(rules.stay_frames / factor),
        settle_frames=math.ceil(rules.settle_frames / factor),
        show_after_frames=math.ceil(rules.show_after_frames / factor),
    )


def write_small_files(folder: Path, tokens: tuple[str, ...] = SEW_TINY_TOKENS) -> None:
    """Write what `transformers` needs beside the weights and `config.json` (Wav2Vec2Processor)."""
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    files: dict[str, dict[str, Any]] = {
        VOCABULARY: {token: number for number, token in enumerate(tokens)},
        "special_tokens_map.json": {**special},
        "tokenizer_config.json": {
            **special,
            "word_delimiter_token": "|",
            "do_lower_case": False,
            "tokenizer_class": "Wav2Vec2CTCTokenizer",
        },
        "preprocessor_config.json": {
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "feature_size": 1,
            "sampling_rate": SAMPLE_RATE,
            "padding_value": 0.0,
            "padding_side": "right",
            "do_normalize": True,
            "return_attention_mask": False,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1) + "\n")


def _content(token: Any) -> Any:
    """A token as text: the files hold it as such or as an object with flags."""
    return token.get("content") if isinstance(token, dict) else token


def read_json(path: Path, *, optional: bool = False) -> dict[str, Any]:
    """The object in a JSON file; an empty one where an optional file is not there.

    Raises:
        ModelError: missing, unreadable, or no object.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if optional:
            return {}
        raise ModelError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: not a readable JSON file ({_first_line(error)})") from error
    if not isinstance(table, dict):
        raise ModelError(f"{path}: not a JSON object")
    return table


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
