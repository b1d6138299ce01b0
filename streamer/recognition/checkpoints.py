"""Where a model lies.

`resolve` turns a name into a folder: the embedded model, a folder, the hub's local cache, or the
hub. A complete cache is used without a word to the network. Nothing here needs torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from streamer.config import DEFAULT_MODEL, EMBEDDED_MODEL
from streamer.errors import ModelError
from streamer.recognition.checkpoint_files import (
    BEAM_RULES,
    CALIBRATION,
    CONFIG,
    EMBEDDED_FOLDER,
    LANGUAGE_MODEL,
    LIVE_RULES,
    SMALL_FILES,
    VOCABULARY,
    WRITER_RULES,
    read_json,
)
from streamer.recognition.moonshine_files import holds_moonshine, installed_folder

SEW_TINY = "asapp/sew-tiny-100k-ft-ls100h"
CONNECT_SECONDS = 4.0
"""How long the hub may take to answer first: a name server that never does blocks for longer."""

_SMALL_FILES = (*SMALL_FILES, CALIBRATION, LIVE_RULES, BEAM_RULES, WRITER_RULES, LANGUAGE_MODEL)
_SMALL_ENDINGS = (".json", ".jinja", ".model", ".txt")
"""Of other small files: tokenizers, prompts, and how text is generated."""
_TOKENIZER_ENDINGS = ("tokenizer.json", ".model", "tekken.json")
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""In order of preference; an index stands for its shards."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model's `folder` and `name`."""

    folder: Path
    name: str


def resolve(name: str, *, progress: bool = True, letters: bool = True) -> Checkpoint:
    """Find the folder of a model.

    Args:
        name: `moonshine-tiny`, `embedded-sew`, a folder or a hub name.
        progress: show a download on stderr.
        letters: whether it must have learned letters; one that is pre-trained only has no
            vocabulary.

    Raises:
        ModelError: no such folder or hub model, or the hub cannot be reached.
    """
    if name == EMBEDDED_MODEL:
        return Checkpoint(EMBEDDED_FOLDER, EMBEDDED_MODEL)
    if name == DEFAULT_MODEL:
        return Checkpoint(installed_folder(), DEFAULT_MODEL)
    folder = Path(os.path.expanduser(name))
    try:
        there = bool(name) and folder.exists()
    except OSError as error:
        raise ModelError(f"{name}: cannot be a model's folder ({error.strerror})") from error
    if there and folder.is_dir():
        if holds_moonshine(folder):
            return Checkpoint(folder, name)
        if lacking := _lacking(folder, letters):
            raise ModelError(
                f"{name}: no {lacking} in this folder; name one that holds a speech model"
            )
        return Checkpoint(folder, name)
    if there or not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name, re.ASCII):
        raise ModelError(f"{name}: neither a model's folder nor a hub name such as {SEW_TINY}")
    try:
        return Checkpoint(_from_cache(name, letters) or _from_hub(name, progress=progress), name)
    except ModelError as error:
        raise ModelError(f"{error}; `--model {DEFAULT_MODEL}` needs no hub") from error


def _lacking(folder: Path, letters: bool) -> str | None:
    """The first necessary file that the folder has not, or `None`."""
    if not (folder / CONFIG).is_file():
        return CONFIG
    weights = next((file for file in _WEIGHTS if (folder / file).is_file()), None)
    if weights is None:
        return "model.safetensors or pytorch_model.bin"
    needed = list[str]()
    if letters and not any(
        file.name == VOCABULARY or file.name.endswith(_TOKENIZER_ENDINGS)
        for file in folder.iterdir()
    ):
        return f"{VOCABULARY} or tokenizer.json"
    if weights.endswith(".index.json"):
        shards = read_json(folder / weights).get("weight_map")
        needed += sorted(set(shards.values())) if isinstance(shards, dict) else []
    return next((file for file in needed if not (folder / file).is_file()), None)


def _from_cache(name: str, letters: bool) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, CONFIG)
    if not isinstance(config, str) or _lacking(Path(config).parent, letters):
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
                config = path if file == CONFIG else config
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
    if CONFIG not in present or weights is None:
        raise ModelError(f"{name}: this hub model holds no weights that PyTorch can load")
    shards: list[str] = []
    if weights.endswith(".index.json"):
        stem, _, ending = weights.removesuffix(".index.json").partition(".")
        shards = sorted(file for file in present if re.fullmatch(rf"{stem}-[^/]*\.{ending}", file))
    others = sorted(
        file
        for file in present - {*_SMALL_FILES}
        if file.endswith(_SMALL_ENDINGS) and "/" not in file and ".index." not in file
    )
    return [*(file for file in _SMALL_FILES if file in present), *others, weights, *shards]


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


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
