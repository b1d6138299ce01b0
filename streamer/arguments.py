"""The command line's grammar: which commands and flags there are, and what their help says."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import streamer
from streamer.config import DEFAULT_MODEL, Settings
from streamer.errors import SettingsError

FORMATS = ("txt", "srt", "vtt", "json")
"""What `transcribe` writes."""

_VOICE = {
    "vad_mode": "what the voice detector rejects, from 0 (least) to 3 (most)",
    "vad_frame_ms": "length of one voice decision: 10, 20 or 30",
    "min_speech_ms": "voiced time that opens an utterance",
    "pre_roll_ms": "audio before it that belongs to it",
    "hangover_ms": "unvoiced time that ends it; 0 takes the model's own",
    "max_utterance_s": "it is split where it grows longer",
    "min_certainty": "below this certainty, 0 to 1, it is taken for noise",
}
_PREVIEWS = {
    "preview_ms": "time between two looks at an utterance",
    "preview_window_ms": "how far back such a look reaches, of a CTC model",
    "right_context_ms": "a word this far from the newest audio may become stable, of a CTC model",
}
_NUMBERS = {
    **_VOICE,
    **_PREVIEWS,
    "ring_seconds": "audio that may wait for a slow model before the oldest is lost",
}
"""What the flags of settings that are numbers mean; the longer story is told in `Settings`."""


def _formats(text: str) -> list[str]:
    chosen = [form.strip() for form in text.split(",")]
    unknown = [form for form in chosen if form not in FORMATS]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"unknown format {unknown[0]!r}; choose from {', '.join(FORMATS)}"
        )
    return list(dict.fromkeys(chosen))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as for every other error; the usage is a `--help` away."""
        self.exit(SettingsError.exit_code, f"streamer: {message}; see `{self.prog} --help`\n")


def parse(arguments: Sequence[str], commands: Collection[str]) -> argparse.Namespace:
    """What the command line asks for; the program ends here where that is none of `commands`."""
    parser = build_parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        command = next((word for word in unknown if word in commands), None)
        advice = f"put `{command}` first" if command else f"see `streamer {options.command} --help`"
        parser.exit(
            SettingsError.exit_code,
            f"streamer: unrecognized arguments: {' '.join(unknown)}; {advice}\n",
        )
    return options


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; the chosen one is its `command`."""
    parser = _Parser(
        prog="streamer",
        description="Speak, and read your words. `streamer` alone means `streamer listen`.",
    )
    parser.add_argument("--version", action="version", version=f"streamer {streamer.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    common = _Parser(add_help=False)
    common.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="settings file (TOML) instead of ~/.config/streamer/config.toml",
    )
    common.add_argument("--debug", action="store_true", help="show a traceback on errors")

    model = _Parser(add_help=False)
    group = model.add_argument_group("model")
    group.add_argument(
        "--model",
        type=_given,
        metavar="NAME",
        help=f"`{DEFAULT_MODEL}` (the default), `embedded-sew`, or any speech model that "
        "transformers loads: hub name or folder",
    )
    group.add_argument(
        "--preview-model",
        type=_given,
        metavar="NAME",
        help="another one for what is still being spoken, such as a smaller one",
    )
    group.add_argument(
        "--language", type=_given, metavar="NAME", help="what is spoken, of a multilingual model"
    )
    group.add_argument(
        "--task",
        choices=("transcribe", "translate"),
        help="write what is said (the default), or translate it into English",
    )
    group.add_argument(
        "--accelerator", choices=("auto", "cpu", "cuda", "mps"), help="where the model runs"
    )
    group.add_argument(
        "--preview-accelerator",
        choices=("auto", "cpu", "cuda", "mps"),
        help="where the model for previews runs",
    )
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads for the model")
    group.add_argument(
        "--adapter",
        action=argparse.BooleanOptionalAction,
        help="previews by weights that know where audio ends, of moonshine-tiny (the default)",
    )

    expected = _Parser(add_help=False)
    group = expected.add_argument_group("words to expect")
    group.add_argument(
        "--hotwords",
        type=_given,
        metavar="FILE",
        help="names and words, one word or phrase a line, as they are to be written",
    )
    group.add_argument(
        "--lm",
        type=_given,
        metavar="FILE",
        help="language model that helps to read: word n-grams (ARPA, .gz too); `none` for none, "
        "not even the model's own",
    )

    text = _Parser(add_help=False)
    text.add_argument_group("text").add_argument(
        "--raw",
        action=argparse.BooleanOptionalAction,
        help="of a CTC model: capitals, as it spells, or sentence case (the default)",
    )

    device = _Parser(add_help=False)
    device.add_argument_group("sound").add_argument(
        "--device", type=_given, metavar="NAME", help="microphone: number or part of its name"
    )

    voice = _tuning("when an utterance begins and ends", _VOICE)
    previews = _tuning("while somebody speaks", _PREVIEWS)

    listen = commands.add_parser(
        "listen",
        parents=[device, text, model, expected, voice, previews, common],
        help="microphone → live text",
        usage="%(prog)s [FLAG...]",
    )
    sound = _group(listen, "sound")
    source = sound.add_mutually_exclusive_group()
    source.add_argument(
        "--input",
        type=_given,
        metavar="FILE",
        help="a recording instead; `-`: raw 16-bit samples on stdin",
    )
    source.add_argument("--demo", action="store_true", help="play the bundled recording instead")
    sound.add_argument(
        "--or-demo",
        action="store_true",
        help="play the bundled recording where there is no microphone",
    )
    sound.add_argument(
        "--rate", type=_positive, metavar="HZ", help="of raw samples on stdin (default: 16000)"
    )
    sound.add_argument(
        "--channels", type=_positive, metavar="N", help="of raw samples on stdin (default: 1)"
    )
    sound.add_argument(
        "--pace",
        choices=("real", "fast"),
        default="real",
        help="of a recording: as it was spoken (real, the default), or as fast as it goes",
    )
    sound.add_argument("--ring-seconds", **_number("ring_seconds"))
    _group(listen, "text").add_argument(
        "--format",
        choices=("console", "text", "jsonl"),
        help="for people (the default), finished lines only, or one JSON object a line",
    )
    _group(listen, "text").add_argument(
        "--record", type=_given, metavar="FOLDER", help="keep audio and transcript"
    )

    transcribe = commands.add_parser(
        "transcribe",
        parents=[text, model, expected, voice, common],
        help="files → transcripts",
        usage="%(prog)s FILE... [FLAG...]",
    )
    transcribe.add_argument("files", type=Path, nargs="+", metavar="FILE")
    _group(transcribe, "text").add_argument(
        "--format",
        dest="formats",
        type=_formats,
        default=["txt"],
        metavar="FORMATS",
        help=f"one or more of {','.join(FORMATS)} (default: txt)",
    )
    _group(transcribe, "text").add_argument(
        "--output-dir", type=Path, metavar="FOLDER", help="write files instead of printing"
    )

    adapt = commands.add_parser(
        "adapt", parents=[model, common], help="a model that knows your voice and words"
    )
    adapt.add_argument(
        "folders",
        type=Path,
        nargs="+",
        metavar="FOLDER",
        help="sessions of `listen --record` whose transcript.txt you have corrected, or any "
        "recordings with text: NAME.wav + NAME.txt, a .tsv with file and transcript, LibriSpeech",
    )
    adapt.add_argument(
        "--output", type=Path, required=True, metavar="FOLDER", help="where the new model goes"
    )
    adapt.add_argument(
        "--epochs", type=_positive, metavar="N", help="how often each example is heard"
    )
    adapt.add_argument(
        "--train-features",
        action="store_true",
        help="train the convolutions as well: slower; for a sound unlike any other",
    )

    commands.add_parser("devices", parents=[common], help="list the microphones")

    commands.add_parser(
        "doctor",
        parents=[device, model, expected, previews, common],
        help="find out what is wrong, and what to do",
        usage="%(prog)s [FLAG...]",
    )

    evaluate = commands.add_parser(
        "eval",
        parents=[model, expected, voice, previews, common],
        help="how right, how soon, how stable, at what cost",
        usage="%(prog)s FOLDER|MANIFEST [FLAG...]",
    )
    evaluate.add_argument(
        "recordings",
        type=Path,
        metavar="FOLDER|MANIFEST",
        help="LibriSpeech's layout (*.trans.txt), a .tsv with file and transcript, or pairs "
        "(a.wav, a.txt)",
    )
    evaluate.add_argument(
        "--policies",
        type=_names,
        metavar="NAMES",
        help="which policies to compare, parted by commas (default: all on the same model; "
        "moonshine-voice, another program, where it is named)",
    )
    evaluate.add_argument("--limit", type=_positive, metavar="N", help="only the first N")
    evaluate.add_argument(
        "--join", action="store_true", help="play the clips of a chapter as one long recording"
    )
    evaluate.add_argument(
        "--pace",
        choices=("fast", "real"),
        default="fast",
        help="on a virtual clock that counts the time computing takes (the default), or the wall's",
    )
    evaluate.add_argument("--json", action="store_true", help="one JSON object")
    evaluate.add_argument(
        "--report", type=Path, metavar="FOLDER", help="write a page with plots (needs matplotlib)"
    )

    bench = commands.add_parser(
        "bench",
        parents=[model, expected, voice, previews, common],
        help="speed and memory on this machine",
        usage="%(prog)s [FLAG...]",
    )
    bench.add_argument(
        "--input", type=Path, metavar="FILE", help="speech to measure with (default: the demo)"
    )
    bench.add_argument(
        "--minutes",
        type=_minutes,
        default=1.0,
        metavar="M",
        help="of live input (default: 1); the rest takes a minute or two more",
    )
    bench.add_argument("--json", action="store_true", help="one JSON object")
    return parser


def _tuning(title: str, meanings: Mapping[str, str]) -> _Parser:
    """A parent of parsers with the flags of these settings, in a group of their own."""
    parser = _Parser(add_help=False)
    group = parser.add_argument_group(title)
    for name in meanings:
        group.add_argument(f"--{name.replace('_', '-')}", **_number(name))
    return parser


def _number(name: str) -> dict[str, Any]:
    """How argparse is to take the number that a setting is."""
    default = getattr(Settings(), name)
    unit = name.rpartition("_")[2].upper()
    return {
        "type": type(default),
        "metavar": {"MS": "MS", "S": "S", "SECONDS": "S"}.get(unit, "N"),
        "help": f"{_NUMBERS[name]} (default: {default})",
    }


def _group(parser: argparse.ArgumentParser, title: str) -> argparse._ArgumentGroup:
    """The group of this title that a parser has from its parents."""
    return next(group for group in parser._action_groups if group.title == title)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _given(text: str) -> str:
    """Not empty: `--input "$FILE"` with FILE unset must not record the room."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0.1 <= minutes <= 1_440:
        raise argparse.ArgumentTypeError(f"{text} is no number of minutes from 0.1 to 1440")
    return minutes


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number from 1 on")
    return int(text)
