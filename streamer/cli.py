"""The command line: arguments → settings → the public parts. Nothing imports this module.

Exit codes: 0 done, 1 the output cannot be written, 2 usage, 3 no audio device, 4 model not
available, 5 unreadable input, 130 interrupted (the pending words are finished and printed first).
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from streamer.arguments import parse
from streamer.config import NAMES, Settings, load_settings
from streamer.errors import (
    DeviceError,
    InputError,
    ModelError,
    OutputError,
    SettingsError,
    StreamerError,
    StreamerWarning,
)
from streamer.messages import SAMPLE_RATE, Window

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from streamer.recognition import Checkpoint
    from streamer.sinks import Sink
    from streamer.sinks.journal import Journal
    from streamer.sources import Source
    from streamer.sources.doctor import Check
    from streamer.transcripts import Transcript

# Whatever costs start-up time (numpy, torch, rich) is imported by the command that needs it.

DEMO = Path(__file__).parent / "demo" / "recording.flac"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - closed by whoever started us
    if sys.stdout is None:
        _say("streamer: standard output is closed; send it to a file or a terminal")
        return 1
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in _TOP_FLAGS):
        arguments.insert(0, "listen")
    options = parse(arguments, _COMMANDS)
    try:
        with _warnings_as_lines():
            return _run(options)
    except BrokenPipeError:
        _forget_output()
        return 0  # the reader has what it wanted
    except (StreamerError, OSError) as error:
        if options.debug:
            traceback.print_exc()
        if isinstance(error, OutputError):
            _forget_output()
        if isinstance(error, StreamerError):
            _say(f"streamer: {error}")
            return error.exit_code
        where = f"{error.filename}: " if error.filename else ""
        _say(f"streamer: {where}{error.strerror or error}; `--debug` shows what was being done")
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except ImportError as error:
        # A library written in C that was being loaded makes this of an interrupt.
        if isinstance(error.__cause__, KeyboardInterrupt):
            return 128 + signal.SIGINT
        raise


def _run(options: argparse.Namespace) -> int:
    """Run the chosen command to the last byte of its output."""
    from streamer.sinks import send

    try:
        code = _COMMANDS[options.command](options)
    except OSError:
        # A failed write stays in the stream's buffer and fails again: then the output is to blame.
        send(sys.stdout, "")
        raise
    send(sys.stdout, "")
    return code


def _forget_output() -> None:
    """The interpreter must not complain about the same once more on its way out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _listen(options: argparse.Namespace) -> int:
    from streamer.sources import muted_c_libraries

    settings = _settings(options)
    if options.input != "-" and (options.rate or options.channels):
        raise SettingsError("--rate and --channels are for raw samples: use them with --input -")
    with ExitStack() as stack:
        signals = stack.enter_context(_signals())
        checkpoint = _checkpoint(settings)
        if not (options.input or options.demo):
            stack.enter_context(muted_c_libraries())
        # The source is opened before the model is loaded: what is said meanwhile waits in the
        # ring buffer.
        try:
            source = stack.enter_context(_source(options, settings))
        except DeviceError as error:
            if not options.or_demo:
                raise
            _say(f"streamer: {error}")
            _say("Playing the bundled recording instead, through the same live path.")
            options.demo = True
            source = stack.enter_context(_source(options, settings))
        if settings.format == "text" and sys.stderr.isatty():
            _say(f"streamer: listening to {source.name}; text follows each sentence (Ctrl-C ends)")
        from streamer.live import run
        from streamer.recognition import load_recognizer

        with _working(f"loading {checkpoint.name}", settings):
            recognizer = load_recognizer(settings, checkpoint=checkpoint)
        signals.then(source.stop)
        sinks, journal = _sinks(settings, source, real_time=options.pace == "real")
        if journal:
            stack.callback(_tell_where, journal)
        run(
            source,
            recognizer,
            settings,
            sinks,
            real_time=options.pace == "real",
            journal=journal,
            stopping=lambda: bool(signals.received),
        )
    if journal and not journal.complete:
        return 1
    return 128 + signals.received if signals.received else 0


def _tell_where(journal: Journal) -> None:
    """Where a broken recording is was said when it broke."""
    if journal.folder and journal.complete:
        _say(f"streamer: recorded in {journal.folder}")


def _source(options: argparse.Namespace, settings: Settings) -> Source:
    from streamer.sources.files import AudioFile, PcmStream, paced

    if options.input == "-":
        if sys.stdin is None:
            raise InputError("standard input is closed; send raw 16-bit samples to it")
        return PcmStream(sys.stdin.buffer, options.rate or SAMPLE_RATE, options.channels or 1)
    if options.input or options.demo:
        file = AudioFile(options.input or DEMO)
        return paced(file) if options.pace == "real" else file
    from streamer.sources.devices import find_input
    from streamer.sources.microphone import Microphone

    return Microphone(find_input(settings.device), settings.ring_seconds)


def _sinks(
    settings: Settings, source: Source, *, real_time: bool
) -> tuple[list[Sink], Journal | None]:
    sink: Sink
    warn: Callable[[str], None] = _warn
    if settings.format == "console":
        from streamer.sinks.console import Console

        sink = console = Console()
        # A line that went to the terminal directly would land in the live region.
        warn = source.notice = console.notice
    else:
        from streamer.sinks.lines import JsonLines, PlainText
        from streamer.sinks.queued import Queued

        sink = (JsonLines if settings.format == "jsonl" else PlainText)(sys.stdout)
        # A recording can wait for whoever reads its words; a microphone cannot.
        sink = Queued(sink) if real_time else sink
    if not settings.record:
        return [sink], None
    from streamer.sinks.journal import Journal

    journal = Journal(settings.record, source.rate, warn=warn)
    # The journal first: what was said is safe before it is shown.
    return [journal, sink], journal


def _transcribe(options: argparse.Namespace) -> int:
    settings = _settings(options)
    several = len(options.formats) > 1 or len(options.files) > 1
    if several and not options.output_dir and options.formats != ["txt"]:
        raise SettingsError(
            "several formats, or several files in another than txt, need --output-dir FOLDER"
        )
    if options.output_dir:
        try:
            options.output_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(
                f"{options.output_dir}: cannot be made ({error.strerror})"
            ) from error
    checkpoint = _checkpoint(settings)
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from streamer.recognition import load_recognizer
    from streamer.sources.files import AudioFile
    from streamer.transcripts import transcribe

    recognizer = None
    code = 0
    names = _output_names(options.files)
    for path, name in names.items():
        if options.output_dir and name not in (path.stem, path.name):
            _say(f"streamer: {path}: becomes {name}, others are called {path.name} too")
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
        redirect_stdout=sys.stdout.isatty(),
    )
    with _signals() as signals, bar:
        for path in options.files:
            task = bar.add_task(path.name, total=None)
            try:
                with AudioFile(path) as file:
                    bar.update(task, total=file.frames / file.rate)
                    recognizer = recognizer or load_recognizer(settings, checkpoint=checkpoint)
                    signals.then(file.stop)
                    transcript = transcribe(
                        file,
                        recognizer=recognizer,
                        settings=settings,
                        progress=partial(_advance, bar, task),
                    )
            except InputError as error:
                # One bad file among many does not stop the others.
                bar.console.print(f"streamer: {error}", markup=False, soft_wrap=True)
                code = error.exit_code
                continue
            finally:
                bar.remove_task(task)
            if not transcript.segments:
                line = f"streamer: {path}: no speech in it"
                bar.console.print(line, markup=False, soft_wrap=True)
            if signals.received:
                line = f"streamer: {path}: stopped after {transcript.duration:.1f} s"
                bar.console.print(line, markup=False, soft_wrap=True)
            _deliver(transcript, path, names[path], options)
            if signals.received:
                return 128 + signals.received
    return code


def _advance(bar: Progress, task: TaskID, seconds: float) -> None:
    bar.update(task, completed=seconds)


def _deliver(transcript: Transcript, path: Path, name: str, options: argparse.Namespace) -> None:
    from streamer.sinks import send
    from streamer.sinks.exporters import to_json, to_srt, to_txt, to_vtt, write_atomically

    segments = transcript.segments
    for form in options.formats:
        if form == "json":
            text = to_json(segments, model=transcript.model, duration=transcript.duration)
        else:
            text = {"txt": to_txt, "srt": to_srt, "vtt": to_vtt}[form](segments)
        if options.output_dir:
            write_atomically(options.output_dir / f"{name}.{form}", text)
        else:
            heading = f"==> {path} <==\n" if len(options.files) > 1 else ""
            send(sys.stdout, heading + text)


def _output_names(files: Sequence[Path]) -> dict[Path, str]:
    """`talk.wav` becomes `talk.txt`, unless another file would too.

    Then it becomes `talk.wav.txt`; and files of one name in several folders are numbered.
    """
    stems = [path.stem for path in files]
    names = [path.name if stems.count(path.stem) > 1 else path.stem for path in files]
    return {
        path: name if names.count(name) == 1 else f"{name}-{names[:index].count(name) + 1}"
        for index, (path, name) in enumerate(zip(files, names, strict=True))
    }


def _devices(options: argparse.Namespace) -> int:
    from streamer.sources.devices import list_inputs, supported_rates

    inputs = list_inputs()
    if not inputs:
        raise DeviceError("no microphone was found; connect one, or try `streamer listen --demo`")
    rows = [("", "no.", "name", "through", "channels", "rates (kHz)", "")]
    for device in inputs:
        rates = [
            f"{'*' if rate == device.default_rate else ''}{rate / 1000:g}"
            for rate in supported_rates(device)
        ]
        rows.append(
            (
                ">" if device.is_default else "",
                str(device.index),
                device.name,
                device.host_api,
                str(device.channels),
                " ".join(rates),
                "hears what the machine plays" if device.is_loopback else "",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    print("> the system's default    * the device's own rate", file=sys.stderr)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from streamer.sources.doctor import check_audio, check_system

    marks = {"ok": "ok     ", "warning": "look   ", "problem": "PROBLEM"}
    code = 0
    try:
        settings = _settings(options)
    except SettingsError as error:
        # What else is wrong can be found with the defaults.
        print(f"{marks['problem']}  settings: {error}", flush=True)
        settings, code = Settings(), error.exit_code
    for exit_code, checks in (
        (1, check_system()),
        (DeviceError.exit_code, check_audio(settings.device)),
        (ModelError.exit_code, _check_model(settings)),
    ):
        for check in checks:
            print(f"{marks[check.verdict]}  {check.name}: {check.message}", flush=True)
            if check.verdict == "problem":
                code = code or exit_code
    return code


def _check_model(settings: Settings) -> Iterator[Check]:
    """Whether the model loads, and how much of this machine it takes."""
    import time

    import numpy as np

    from streamer.recognition import load_recognizer, resolve
    from streamer.recognition.moonshine_files import holds_moonshine, verify
    from streamer.sources.doctor import Check

    try:
        checkpoint = resolve(settings.model, progress=sys.stderr.isatty())
        if holds_moonshine(checkpoint.folder):
            verify(checkpoint.folder)
            yield Check("model files", "ok", f"whole, in {checkpoint.folder}")
        recognizer = load_recognizer(settings, checkpoint=checkpoint)
    except ModelError as error:
        yield Check("model", "problem", str(error))
        return
    found = f"{recognizer.name} on {recognizer.accelerator}"
    yield Check("model", "ok", found)
    seconds = 4
    silence = np.zeros(seconds * SAMPLE_RATE, np.float32)
    window = Window(0, 0, silence, 0, len(silence), "preview", False, False, len(silence))
    began = time.perf_counter()
    recognizer.recognize([window])
    share = (time.perf_counter() - began) / (settings.preview_ms / 1000)
    message = f"live text takes {share:.0%} of the time there is for it"
    if share > 1:
        slower = "previews will be dropped, no final text; a smaller model or a GPU helps"
        yield Check("speed", "warning", f"{message}: {slower}")
    else:
        yield Check("speed", "ok", message)


def _adapt(options: argparse.Namespace) -> int:
    from streamer.adaptation.command import adapt_model

    settings = _settings(options)
    adapt_model(
        settings,
        options.folders,
        options.output,
        epochs=options.epochs,
        train_features=options.train_features,
        say=_say,
    )
    return 0


def _eval(options: argparse.Namespace) -> int:
    from streamer.evaluation.report import eval_command

    settings = _settings(options)
    eval_command(
        settings,
        options.recordings,
        policies=options.policies,
        limit=options.limit,
        join=options.join,
        real_pace=options.pace == "real",
        as_json=options.json,
        report=options.report,
        say=_say,
    )
    return 0


def _bench(options: argparse.Namespace) -> int:
    from streamer.evaluation.bench import bench

    settings = _settings(options)
    bench(
        settings,
        recording=options.input or DEMO,
        minutes=options.minutes,
        as_json=options.json,
    )
    return 0


def _settings(options: argparse.Namespace) -> Settings:
    given: dict[str, Any] = {name: getattr(options, name, None) for name in NAMES}
    return load_settings(file=options.config, **given)


def _checkpoint(settings: Settings) -> Checkpoint:
    from streamer.recognition import resolve

    return resolve(settings.model, progress=sys.stderr.isatty())


@contextmanager
def _working(what: str, settings: Settings) -> Iterator[None]:
    """A sign of life for people who look at a terminal."""
    if settings.format != "console" or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Our own warnings are for users; those of libraries go where they always go."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, StreamerWarning):
                _warn(str(message))
            else:
                others(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        warnings.simplefilter("always", StreamerWarning)
        yield


def _warn(line: str) -> None:
    _say(f"streamer: {line}")


def _say(line: str) -> None:
    print(" ".join(line.split()), file=sys.stderr, flush=True)


class _Signals:
    """The first signal asks the source to stop; a second one interrupts at once."""

    def __init__(self) -> None:
        self.received = 0
        self._stop: Callable[[], None] | None = None

    def then(self, stop: Callable[[], None]) -> None:
        """From now on a signal calls `stop`; one before that interrupts."""
        self._stop = stop
        if self.received:
            stop()

    def __call__(self, number: int, _: object) -> None:
        if self._stop is None or self.received:
            raise KeyboardInterrupt
        self.received = number
        self._stop()


@contextmanager
def _signals() -> Iterator[_Signals]:
    handler = _Signals()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP"):
        numbers.append(signal.SIGHUP)  # the terminal was closed
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield handler
    finally:
        for number, old in before.items():
            signal.signal(number, old)


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "listen": _listen,
    "transcribe": _transcribe,
    "devices": _devices,
    "doctor": _doctor,
    "adapt": _adapt,
    "eval": _eval,
    "bench": _bench,
}
_TOP_FLAGS = ("-h", "--help", "--version")
