"""`streamer bench`: what listening costs on this machine.

Each figure is that of a fresh process, as a user would start it, by the system's account of it:

    start    CPU and wall seconds of `streamer listen --pace fast` over half a second of silence:
             from nothing to the model loaded and the input open, and out again. The least of three
    listen   `streamer listen` over minutes of speech at the pace of speech: the most memory it
             held, and its CPU seconds, less those of a start, for a second of speech
    files    `streamer transcribe` over five minutes of it: CPU seconds, less those of a start, for
             a second of speech, and wall seconds for a second of audio

A recording, by default the bundled one, is repeated for as long as is needed; what is speech is
told by the segments that came of it. Load beside costs time: compare runs on an idle machine.

For CTC models files have a yardstick and a bound. The yardstick is the chunked pipeline of
`transformers` on the same weights and audio, with one chunk to a batch and with several: its
real-time factor over ours says how many times longer it takes. The bound is the time that the
network's multiplications and additions would take at the speed of large matrix products on this
machine; the share of it is that time over the time that our utterances took.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from streamer.core.resample import Resampler
from streamer.errors import StreamerError
from streamer.evaluation.baselines import is_ctc
from streamer.messages import SAMPLE_RATE
from streamer.recognition import load_recognizer, resolve
from streamer.sources.files import read_audio

if TYPE_CHECKING:
    from streamer.config import Settings
    from streamer.messages import Samples
    from streamer.recognition import Checkpoint

RECORDING = Path(__file__).parent.parent / "demo" / "recording.flac"
FILE_MINUTES = 5.0
STARTS = 3
CHUNK_S, STRIDE_S = 10.0, 10.0 / 6
"""Of the pipeline: the length that its authors show for this family, and its own default stride."""
BATCHES = (1, 8)


def bench(
    settings: Settings, *, recording: Path = RECORDING, minutes: float, as_json: bool
) -> None:
    """Measure and print.

    Args:
        settings: the model and where it runs.
        recording: speech to measure with.
        minutes: how long the live loop is watched.
        as_json: one JSON object on stdout instead of a table.

    Raises:
        InputError: the recording cannot be read.
        ModelError: the model is not available.
        StreamerError: one of the processes failed.
    """
    checkpoint = resolve(settings.model, progress=sys.stderr.isatty())
    audio, rate = read_audio(recording)
    long = np.resize(audio, round(FILE_MINUTES * 60 * rate))
    live = np.resize(audio, round(minutes * 60 * rate))
    status = Console(stderr=True).status("starting") if sys.stderr.isatty() else None
    with tempfile.TemporaryDirectory() as folder:
        if status:
            status.start()
        try:
            # Before anything large is loaded here: a process begins with its parent's memory.
            figures = _processes(Path(folder), settings, live, long, rate, status)
            figures = {"model": checkpoint.name, "cores": os.cpu_count(), **figures}
            if status:
                status.update("comparing with transformers")
            figures |= _beside_transformers(checkpoint, settings, long, rate, figures["files"])
        finally:
            if status:
                status.stop()
    if as_json:
        print(json.dumps(figures))
    else:
        _print(figures)


@dataclass(frozen=True, slots=True)
class _Run:
    """What one process took."""

    cpu_s: float
    wall_s: float
    memory_mb: float
    """The most it held at a time."""
    output: str


def _processes(
    folder: Path, settings: Settings, live: Samples, long: Samples, rate: int, status: Any
) -> dict[str, Any]:
    """The figures of `streamer` itself."""

    def say(text: str) -> None:
        if status:
            status.update(text)

    silence, speech, file = (folder / name for name in ("silence.wav", "live.wav", "file.wav"))
    _write(silence, np.zeros(rate // 2, np.float32), rate)
    _write(speech, live, rate)
    _write(file, long, rate)
    listen = ("listen", "--format", "jsonl", "--input")
    starts = [_run([*listen, str(silence), "--pace", "fast"], settings) for _ in range(STARTS)]
    start = min(starts, key=lambda run: run.cpu_s)
    say(f"listening for {len(live) / rate / 60:g} min")
    heard = _run([*listen, str(speech)], settings)
    events = [json.loads(line) for line in heard.output.splitlines()]
    live_s = _speech_s([event for event in events if event["event"] == "final"])
    say("transcribing a file")
    read = _run(["transcribe", str(file), "--format", "json"], settings)
    file_s = _speech_s(json.loads(read.output)["segments"])
    return {
        "start": {"cpu_s": start.cpu_s, "wall_s": start.wall_s, "memory_mb": start.memory_mb},
        "listen": {
            "minutes": len(live) / rate / 60,
            "speech_s": live_s,
            "memory_mb": heard.memory_mb,
            "cost": (heard.cpu_s - start.cpu_s) / max(live_s, 1.0),
        },
        "files": {
            "minutes": len(long) / rate / 60,
            "speech_s": file_s,
            "memory_mb": read.memory_mb,
            "cost": (read.cpu_s - start.cpu_s) / max(file_s, 1.0),
            "real_time_factor": (read.wall_s - start.wall_s) / (len(long) / rate),
        },
    }


def _run(arguments: Sequence[str], settings: Settings) -> _Run:
    """Run `streamer` with these settings to its end."""
    environment = os.environ | {
        f"STREAMER_{name.upper()}": str(value)
        for name, value in asdict(settings).items()
        if value not in (None, "")
    }
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "streamer", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
        )
        try:
            _, ended, used = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        wall_s = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(ended)
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            [*_, said] = [f"exit code {process.returncode}", *errors.read().split("\n")[:-1]]
            raise StreamerError(f"`streamer {arguments[0]}` failed: {said}")
        # macOS counts bytes, others kilobytes.
        unit = 1.0 if sys.platform == "darwin" else 1024.0
        return _Run(
            used.ru_utime + used.ru_stime, wall_s, used.ru_maxrss * unit / 1e6, output.read()
        )


def _write(path: Path, samples: Samples, rate: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.clip(samples * 32768, -32768, 32767).astype("<i2").tobytes())


def _speech_s(segments: Sequence[dict[str, Any]]) -> float:
    return float(sum(part["end"] - part["start"] for part in segments if part["text"]))


def _beside_transformers(
    checkpoint: Checkpoint, settings: Settings, long: Samples, rate: int, files: dict[str, float]
) -> dict[str, Any]:
    """The bound and the yardstick of files; nothing for models that are not CTC on samples."""
    recognizer = load_recognizer(settings, checkpoint=checkpoint)
    if not is_ctc(recognizer) or not recognizer.hears_waveform:
        return {}
    from streamer.recognition.flops import (
        chunked_pipeline,
        gflop_per_second_of_audio,
        matrix_gflop_per_second,
    )

    asked = gflop_per_second_of_audio(checkpoint)
    possible = matrix_gflop_per_second(recognizer.accelerator, recognizer.threads)
    # Silence is not recognized, so it is none of the work.
    work = asked / possible * files["speech_s"] / (len(long) / rate)
    bound = {
        "gflop_per_s_of_audio": asked,
        "matrix_gflop_per_s": possible,
        "threads": recognizer.threads,
        "share_of_bound": work / files["real_time_factor"],
    }
    resampler = Resampler(rate)
    samples = np.concatenate((resampler.push(long), resampler.flush()))
    transcribe = chunked_pipeline(
        checkpoint,
        recognizer.accelerator,
        recognizer.threads,
        chunk_s=CHUNK_S,
        stride_s=STRIDE_S,
    )
    pipeline = {}
    for batch in BATCHES:
        transcribe(samples[: int(CHUNK_S * SAMPLE_RATE)], 1)  # once to warm up
        began = time.perf_counter()
        transcribe(samples, batch)
        factor = (time.perf_counter() - began) / (len(long) / rate)
        pipeline[f"real_time_factor_batch_{batch}"] = factor
        pipeline[f"times_ours_batch_{batch}"] = factor / files["real_time_factor"]
    return {"bound": bound, "pipeline": pipeline}


def _print(figures: dict[str, Any]) -> None:
    start, listen, files = (figures[part] for part in ("start", "listen", "files"))
    table = Table(
        title=f"{figures['model']}, {figures['cores']} cores",
        caption="each in a process of its own; cost in CPU seconds for a second of speech",
        box=box.SIMPLE_HEAD,
        show_header=False,
    )
    table.add_column("")
    table.add_column("", justify="right")
    for name, value in (
        ("from nothing to listening, CPU time", f"{start['cpu_s']:.2f} s"),
        ("the same by the clock", f"{start['wall_s']:.2f} s"),
        (f"memory at most, {listen['minutes']:g} min live", f"{listen['memory_mb']:.0f} MB"),
        ("cost live", f"{listen['cost']:.3f}"),
        ("cost of files", f"{files['cost']:.3f}"),
        ("files, seconds for a second of audio", f"{files['real_time_factor']:.3f}"),
        ("files, memory at most", f"{files['memory_mb']:.0f} MB"),
    ):
        table.add_row(name, value)
    if bound := figures.get("bound"):
        table.add_row("files, share of the bound", f"{bound['share_of_bound']:.0%}")
        for batch in BATCHES:
            times = figures["pipeline"][f"times_ours_batch_{batch}"]
            table.add_row(f"pipeline of transformers, batch of {batch}", f"{times:.1f} × our time")
    Console().print(table)
