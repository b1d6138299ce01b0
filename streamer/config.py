"""Settings: frozen, validated once. Flags win over environment, file and defaults, in that order.

The file is `$XDG_CONFIG_HOME/streamer/config.toml`, one `name = value` a line; the environment
variable of a setting is its name in capitals behind `STREAMER_`, its flag the name with hyphens.
Paths may begin with `~`; in the file they are relative to its folder, elsewhere to the current one.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any

from streamer.errors import SettingsError

DEFAULT_MODEL = "moonshine-tiny"
EMBEDDED_MODEL = "embedded-sew"
NO_LM = Path("none")

_PREFIX = "STREAMER_"
_NO_SETTINGS = frozenset({"STREAMER_SPEECH"})
"""Where the project's own tests look for speech. Every other variable with the prefix is a
setting, or an error."""

_RANGES: dict[str, tuple[float, float]] = {
    "ring_seconds": (1, 600),
    "vad_mode": (0, 3),
    "min_speech_ms": (30, 2_000),
    "pre_roll_ms": (0, 2_000),
    "hangover_ms": (100, 5_000),
    "max_utterance_s": (5, 60),
    "preview_ms": (80, 2_000),
    "preview_window_ms": (1_000, 60_000),
    "right_context_ms": (0, 2_000),
    "min_certainty": (0, 1),
    "threads": (0, 256),
}
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "Path | None": (Path, NoneType),
}
_SAID = {"Path | None": "path"}
"""How a type is called in messages, where it has another name there."""
_CHOICES: dict[str, tuple[object, ...]] = {
    "vad_frame_ms": (10, 20, 30),
    "accelerator": ("auto", "cpu", "cuda", "mps"),
    "preview_accelerator": ("auto", "cpu", "cuda", "mps"),
    "task": ("transcribe", "translate"),
    "format": ("console", "text", "jsonl"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set. Times are in the unit of the name's ending.

    `Settings()` is the defaults; `load_settings()` is what the command line would take. Where a
    path is expected text will do, and empty text means none.

    Raises:
        SettingsError: a value is of the wrong type or out of range.
    """

    model: str = DEFAULT_MODEL
    """`moonshine-tiny`, `embedded-sew`, the hub name of a speech model that transformers loads, or
    a folder with a model."""
    device: str = ""
    """Microphone: a number or part of a name; empty for the system's default."""
    accelerator: str = "auto"
    """Where the model runs: `auto` takes CUDA, then MPS, then the CPU."""
    threads: int = 0
    """CPU threads for the model; 0 takes one for each 50 million weights."""
    preview_model: str = ""
    """Another model, named in the same way, for what is still being spoken; empty for `model`."""
    preview_accelerator: str = "auto"
    """Where the model for previews runs."""
    language: str = ""
    """What is spoken, as a model of several languages calls it (`de`, `deu`, `german`); empty
    leaves it to the model."""
    task: str = "transcribe"
    """`transcribe`, or `translate` into English, of a model that can."""
    ring_seconds: int = 30
    """Audio that may wait for a slow recognizer before the oldest is lost."""
    vad_mode: int = 2
    """webrtcvad's aggressiveness, 0 (most is speech) to 3 (least)."""
    vad_frame_ms: int = 20
    """Length of one voice decision: 10, 20 or 30."""
    min_speech_ms: int = 120
    """Voiced time that opens an utterance."""
    pre_roll_ms: int = 400
    """Audio before the first voiced frame that belongs to the utterance."""
    hangover_ms: int = 0
    """Unvoiced time that ends an utterance; it falls to a third while one grows long. 0 takes the
    model's own: 700 for a writer, 500 for CTC."""
    max_utterance_s: int = 30
    """An utterance that grows longer is split at its quietest place."""
    preview_ms: int = 320
    """Time between two looks at an utterance that is still being spoken."""
    preview_window_ms: int = 2_600
    """How far back such a look reaches, of a CTC model; a writer hears the utterance so far."""
    right_context_ms: int = 320
    """A word this far from the newest audio may become stable, of a CTC model."""
    min_certainty: float = 0.25
    """An utterance whose letters the recognizer is less certain of is taken for noise."""
    adapter: bool = True
    """Whether previews of `moonshine-tiny` are written by weights that know where audio ends."""
    hotwords: Path | None = None
    """A text file, one word or phrase a line, that is to be expected."""
    lm: Path | None = None
    """A word n-gram model (ARPA, or gzipped) that helps to read; `none` for none. If not given, the
    model's own is used if it has one."""
    raw: bool = False
    """Print a CTC model's own spelling instead of sentence case."""
    format: str = "console"
    """How `streamer listen` writes: `console` for people, `text` for finished lines only, `jsonl`
    for one JSON object a line."""
    record: Path | None = None
    """A folder in which `streamer listen` keeps audio and transcript."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value: Any = getattr(self, field.name)
            if field.name in PATHS and isinstance(value, str | Path):
                value = Path(os.path.expanduser(value)) if str(value) else None
                object.__setattr__(self, field.name, value)
            kind = _TYPES[str(field.type)]
            if not isinstance(value, kind) or (bool not in kind and isinstance(value, bool)):
                said = _SAID.get(str(field.type), field.type)
                raise SettingsError(f"{field.name} = {value!r}: must be of type {said}")
            if isinstance(value, int | float) and field.name in _RANGES:
                low, high = _RANGES[field.name]
                if not low <= value <= high and not (value == 0 and field.default == 0):
                    raise SettingsError(
                        f"{field.name} = {value!r}: must be between {low} and {high}"
                    )
            choices = _CHOICES.get(field.name)
            if choices and value not in choices:
                allowed = ", ".join(map(str, choices))
                raise SettingsError(f"{field.name} = {value!r}: must be one of {allowed}")


_KINDS = {field.name: str(field.type) for field in fields(Settings)}
NAMES = tuple(_KINDS)
"""Of all settings."""
PATHS = frozenset(name for name, kind in _KINDS.items() if kind == "Path | None")
"""Of those that are paths."""


def settings_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the settings file is looked for."""
    home = environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".config"
    return Path(home) / "streamer" / "config.toml"


def load_settings(
    *, file: Path | None = None, environ: Mapping[str, str] = os.environ, **given: Any
) -> Settings:
    """The settings that the command line would take: `given`, environment, file, defaults.

    Args:
        file: the settings file; `settings_path()` when not given, and then it may be absent.
        environ: the environment.
        given: what wins over all others, by name, as flags do; `None` means not given.

    Raises:
        SettingsError: unreadable file, unknown setting, wrong type or value out of range.
    """
    for name in given:
        _require_known(name, f"unknown setting {name!r}")
    merged: dict[str, Any] = {}
    merged.update(_from_file(file or settings_path(environ), required=file is not None))
    merged.update(_from_environment(environ))
    merged.update({name: value for name, value in given.items() if value is not None})
    return Settings(**merged)


def _require_known(name: str, complaint: str, prefix: str = "") -> None:
    if name in _KINDS:
        return
    near = difflib.get_close_matches(name, _KINDS, n=1)
    spelled = [f"{prefix}{one.upper()}" if prefix else one for one in near or NAMES]
    hint = f"did you mean {spelled[0]}?" if near else f"known: {', '.join(spelled)}"
    raise SettingsError(f"{complaint}; {hint}")


def _from_file(path: Path, *, required: bool) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if required:
            raise SettingsError(f"{path}: no such settings file") from None
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: not a readable TOML file ({error})") from error
    for name in table:
        _require_known(name, f"{path}: unknown setting {name!r}")
    try:
        Settings(**table)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None
    return {name: _beside(path, name, value) for name, value in table.items()}


def _beside(file: Path, name: str, value: Any) -> Any:
    """A setting of this file: paths, and models that are folders, are relative to it."""
    text = os.path.expanduser(value) if isinstance(value, str) else ""
    if name in PATHS and text and (name, text) != ("lm", str(NO_LM)):
        return file.parent / text
    # A hub's name has the form of a relative path too.
    if name == "model" and (text.startswith((".", os.sep)) or (file.parent / text).is_dir()):
        return str(file.parent / text)
    return value


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for variable in sorted(environ):
        text = environ[variable]
        if not variable.startswith(_PREFIX) or variable in _NO_SETTINGS or not text:
            continue
        name = variable.removeprefix(_PREFIX).lower()
        _require_known(name, f"{variable}={text}: no such setting", _PREFIX)
        kind = _KINDS[name]
        try:
            found[name] = _parse(text, kind)
            Settings(**{name: found[name]})
        except (ValueError, SettingsError) as error:
            reason = error if isinstance(error, SettingsError) else f"must be of type {kind}"
            raise SettingsError(f"{variable}={text}: {reason}") from None
    return found


def _parse(text: str, kind: str) -> Any:
    if kind == "bool":
        if text.lower() not in ("0", "1", "true", "false", "yes", "no"):
            raise ValueError(text)
        return text.lower() in ("1", "true", "yes")
    return {"int": int, "float": float}.get(kind, str)(text)
