"""Settings: frozen, validated once. Flags win over environment, file and defaults, in that order.

The file is `$XDG_CONFIG_HOME/streamer/config.toml`, one `name = value` a line; the environment
variable of a setting is its name in capitals behind `STREAMER_`.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from streamer.errors import SettingsError

DEFAULT_MODEL = "asapp/sew-tiny-100k-ft-ls100h"
EMBEDDED_MODEL = "embedded-sew"
MOONSHINE_MODEL = "moonshine-tiny"
NO_LM = "none"

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
}
_CHOICES: dict[str, tuple[object, ...]] = {
    "vad_frame_ms": (10, 20, 30),
    "accelerator": ("auto", "cpu", "cuda", "mps"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set. Times are in the unit of the name's ending.

    Raises:
        SettingsError: a value is of the wrong type or out of range.
    """

    model: str = DEFAULT_MODEL
    """A hub name, a folder, or `embedded-sew`."""
    device: str = ""
    """Microphone: a number or part of a name; empty for the system's default."""
    accelerator: str = "auto"
    """Where the model runs: `auto` takes CUDA, then MPS, then the CPU."""
    threads: int = 0
    """CPU threads for the model; 0 takes one for each 50 million weights."""
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
    hangover_ms: int = 500
    """Unvoiced time that ends an utterance; in the second fifth of `max_utterance_s` it falls to a
    third."""
    max_utterance_s: int = 30
    """An utterance that grows longer is split at its quietest place."""
    preview_ms: int = 320
    """Time between two looks at an utterance that is still being spoken."""
    preview_window_ms: int = 2_600
    """How far back such a look reaches."""
    right_context_ms: int = 320
    """A word this far from the newest audio may become stable."""
    min_certainty: float = 0.25
    """An utterance whose letters the recognizer is less certain of is taken for noise."""
    hotwords: str = ""
    """A text file, one word or phrase a line, that is to be expected; empty for none."""
    lm: str = ""
    """A word n-gram model (ARPA, or gzipped) that helps to read; `none` for none, empty for the
    model's own if it has one."""
    raw: bool = False
    """Print the model's own spelling instead of sentence case."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value: Any = getattr(self, field.name)
            kind = _TYPES[str(field.type)]
            if not isinstance(value, kind) or (bool not in kind and isinstance(value, bool)):
                raise SettingsError(f"{field.name} = {value!r}: must be of type {field.type}")
            if isinstance(value, int | float) and field.name in _RANGES:
                low, high = _RANGES[field.name]
                if not low <= value <= high:
                    raise SettingsError(
                        f"{field.name} = {value!r}: must be between {low} and {high}"
                    )
            choices = _CHOICES.get(field.name)
            if choices and value not in choices:
                allowed = ", ".join(map(str, choices))
                raise SettingsError(f"{field.name} = {value!r}: must be one of {allowed}")


_KINDS = {field.name: str(field.type) for field in fields(Settings)}


def settings_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the settings file is looked for."""
    home = environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".config"
    return Path(home) / "streamer" / "config.toml"


def load_settings(
    flags: Mapping[str, Any], *, file: Path | None = None, environ: Mapping[str, str] = os.environ
) -> Settings:
    """Merge the four layers.

    Args:
        flags: values given on the command line; `None` means not given.
        file: the settings file; `settings_path()` when not given, and then it may be absent.
        environ: the environment.

    Raises:
        SettingsError: unreadable file, unknown setting, wrong type or value out of range.
    """
    merged: dict[str, Any] = {}
    merged.update(_from_file(file or settings_path(environ), required=file is not None))
    merged.update(_from_environment(environ))
    merged.update({name: value for name, value in flags.items() if value is not None})
    return Settings(**merged)


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
        if name not in _KINDS:
            near = difflib.get_close_matches(name, _KINDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(_KINDS)}"
            raise SettingsError(f"{path}: unknown setting {name!r}; {hint}")
    try:
        Settings(**table)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None
    return table


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, kind in _KINDS.items():
        variable = f"STREAMER_{name.upper()}"
        if not (text := environ.get(variable)):
            continue
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
    return {"str": str, "int": int, "float": float}[kind](text)
