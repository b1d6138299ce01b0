"""Where a model lies, and what its files say about its letters and its ears.

`resolve` turns a name into a folder: the embedded model, a folder, the hub's local cache, or the
hub. A complete cache is used without a word to the network. `read_vocabulary` and
`read_normalization` read the small files of such a folder. Nothing here needs torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamer.config import DEFAULT_MODEL, EMBEDDED_MODEL
from streamer.core.ctc import Vocabulary
from streamer.errors import ModelError
from streamer.messages import SAMPLE_RATE

CONNECT_SECONDS = 4.0
"""How long the hub may take to answer first: a name server that never does blocks for longer."""

_EMBEDDED_FOLDER = Path(__file__).parent / "embedded"
_CONFIG = "config.json"
_VOCABULARY = "vocab.json"
_SMALL_FILES = (
    _CONFIG,
    _VOCABULARY,
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""In order of preference; an index stands for its shards."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model's `folder` and `name`; `notice` is one line for the user where another was wanted."""

    folder: Path
    name: str
    notice: str | None = None


def resolve(name: str, *, progress: bool = True) -> Checkpoint:
    """Find the folder of a model.

    Args:
        name: `embedded`, a folder, or a hub name. Only for the default model is the embedded one
            taken instead where it is not to be had.
        progress: show a download on stderr.

    Raises:
        ModelError: no such folder or hub model, or the hub cannot be reached.
    """
    if name == EMBEDDED_MODEL:
        return Checkpoint(_EMBEDDED_FOLDER, EMBEDDED_MODEL)
    folder = Path(os.path.expanduser(name))
    if name and folder.is_dir():
        if lacking := _lacking(folder):
            raise ModelError(
                f"{name}: no {lacking} in this folder; name one that holds a CTC model"
            )
        return Checkpoint(folder, name)
    if (name and folder.exists()) or not re.fullmatch(
        r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name, re.ASCII
    ):
        raise ModelError(f"{name}: neither a model's folder nor a hub name such as {DEFAULT_MODEL}")
    try:
        return Checkpoint(_from_cache(name) or _from_hub(name, progress=progress), name)
    except ModelError as error:
        if name != DEFAULT_MODEL:
            raise
        notice = (
            f"{error}. Using the embedded model, which is for trying out only; the other is for "
            "work"
        )
        return Checkpoint(_EMBEDDED_FOLDER, EMBEDDED_MODEL, notice)


def _lacking(folder: Path) -> str | None:
    """The first necessary file that the folder has not, or `None`."""
    if not (folder / _CONFIG).is_file():
        return _CONFIG
    weights = next((file for file in _WEIGHTS if (folder / file).is_file()), None)
    if weights is None:
        return "model.safetensors or pytorch_model.bin"
    needed = [_VOCABULARY]
    if weights.endswith(".index.json"):
        shards = _read_json(folder / weights).get("weight_map")
        needed += sorted(set(shards.values())) if isinstance(shards, dict) else []
    return next((file for file in needed if not (folder / file).is_file()), None)


def _from_cache(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, _CONFIG)
    if not isinstance(config, str) or _lacking(Path(config).parent):
        return None
    return Path(config).parent


def _from_hub(name: str, *, progress: bool) -> Path:
    """Download what is needed of a model into the hub's cache; what is there already stays."""
    from huggingface_hub import constants, hf_hub_download

    if constants.HF_HUB_OFFLINE:
        raise ModelError(
            f"{name} is not in the local cache, and HF_HUB_OFFLINE forbids fetching it"
        )
    files = _needed(name, _ask_hub(name))
    config = ""
    with _bars(progress):
        try:
            for file in files:
                if file not in _SMALL_FILES:
                    _fetch_blob(name, file)
                path = hf_hub_download(name, file, etag_timeout=CONNECT_SECONDS)
                config = path if file == _CONFIG else config
        # OSError, and errors of the hub's transport, whose classes change with its version.
        except Exception as error:
            raise ModelError(
                f"{name}: the download broke off ({_first_line(error)}); it goes on where it "
                "stopped when you start again"
            ) from error
    return Path(config).parent


def _fetch_blob(name: str, file: str) -> None:
    """Put one large file where the hub's client will find it, continuing an earlier attempt.

    The client itself throws away what an interrupted process has fetched.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get, repo_folder_name
    from huggingface_hub.utils import build_hf_headers

    url = hf_hub_url(name, file)
    about = get_hf_file_metadata(url, timeout=CONNECT_SECONDS)
    home = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model")
    blob = home / "blobs" / str(about.etag)
    if about.etag is None or blob.exists():
        return
    blob.parent.mkdir(parents=True, exist_ok=True)
    part = blob.with_name(f"{blob.name}.part")
    with part.open("ab") as stream:
        http_get(
            url,
            stream,
            resume_size=stream.tell(),
            headers=build_hf_headers(),
            expected_size=about.size,
            displayed_filename=file,
        )
    # Large files are named by their sha256, small ones by git's hash.
    if len(about.etag) == 64:
        with part.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != about.etag:
            part.unlink()
            raise OSError(f"{file} arrived damaged")
    part.replace(blob)


def _ask_hub(name: str) -> list[str]:
    """The model's file names, or a ModelError within CONNECT_SECONDS."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    answer: list[list[str] | Exception] = []

    def ask() -> None:
        try:
            info = HfApi().model_info(name, timeout=CONNECT_SECONDS)
            answer.append([sibling.rfilename for sibling in info.siblings or ()])
        except Exception as error:  # handed over to the thread that waits
            answer.append(error)

    # Looking up a host's name cannot be interrupted; a daemon thread can be left behind.
    thread = threading.Thread(target=ask, name="ask-hub", daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    if not answer:
        raise ModelError(f"{name}: the model hub did not answer within {CONNECT_SECONDS:g} s")
    if isinstance(answer[0], RepositoryNotFoundError):
        raise ModelError(f"{name}: the model hub has no such public model") from answer[0]
    if isinstance(answer[0], Exception):
        raise ModelError(f"{name}: the model hub cannot be reached") from answer[0]
    return answer[0]


def _needed(name: str, files: Iterable[str]) -> list[str]:
    """The files to fetch, small ones first: with the weights a snapshot is complete."""
    present = set(files)
    weights = next((file for file in _WEIGHTS if file in present), None)
    if _CONFIG not in present or weights is None:
        raise ModelError(f"{name}: this hub model holds no weights that PyTorch can load")
    shards: list[str] = []
    if weights.endswith(".index.json"):
        stem, _, ending = weights.removesuffix(".index.json").partition(".")
        shards = sorted(file for file in present if re.fullmatch(rf"{stem}-[^/]*\.{ending}", file))
    return [*(file for file in _SMALL_FILES if file in present), weights, *shards]


@contextlib.contextmanager
def _bars(shown: bool) -> Iterator[None]:
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if shown or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def read_vocabulary(folder: Path, rows: int) -> Vocabulary:
    """Read what the model's output rows mean, as transformers' Wav2Vec2CTCTokenizer would.

    Args:
        folder: a checkpoint.
        rows: outputs of the model.

    Raises:
        ModelError: the vocabulary is missing, damaged or of another size.
    """
    if not (folder / _VOCABULARY).is_file():
        raise ModelError(f"{folder}: no {_VOCABULARY}; the model's letters are not known")
    settings = _read_json(folder / "special_tokens_map.json", optional=True)
    settings |= _read_json(folder / "tokenizer_config.json", optional=True)
    ids: Any = _read_json(folder / _VOCABULARY)
    if language := settings.get("target_lang"):
        ids = ids.get(language)
    if not isinstance(ids, dict) or not all(isinstance(n, int) for n in ids.values()):
        raise ModelError(f"{folder / _VOCABULARY}: not a table of tokens and their numbers")
    special = {
        role: _content(settings.get(f"{role}_token", default))
        for role, default in (("bos", "<s>"), ("eos", "</s>"), ("unk", "<unk>"), ("pad", "<pad>"))
    }
    added = _read_json(folder / "added_tokens.json", optional=True)
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
            f"{folder}: {_VOCABULARY} has {len(letters)} tokens, but the model {rows} outputs"
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
    extractor = _read_json(folder / "processor_config.json", optional=True)
    extractor = extractor.get("feature_extractor") or {}
    extractor = _read_json(folder / "preprocessor_config.json", optional=True) or extractor
    rate = extractor.get("sampling_rate", SAMPLE_RATE)
    if rate != SAMPLE_RATE:
        raise ModelError(f"{folder}: this model hears {rate} samples a second, not {SAMPLE_RATE}")
    return bool(extractor.get("do_normalize", True))


def _content(token: Any) -> Any:
    """A token as text: the files hold it as such or as an object with flags."""
    return token.get("content") if isinstance(token, dict) else token


def _read_json(path: Path, *, optional: bool = False) -> dict[str, Any]:
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
