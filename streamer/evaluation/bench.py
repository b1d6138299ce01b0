"""`streamer bench`: what recognition costs on this machine, measured on the real parts.

A recording, by default the bundled one, is repeated for as long as is needed. Live figures
come from the live loop at real pace; a preview that was dropped because the machine was behind
does not count as one.

Files have a yardstick and a bound. The yardstick is the chunked pipeline of `transformers` on the
same weights, audio and threads, with one chunk to a batch and with several: its real-time factor
over ours says how many times longer it takes. The bound is the time that the network's
multiplications and additions would take at the speed of large matrix products on this machine;
the share of it is that time over the time that our utterances took.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from streamer.config import Settings
from streamer.core.resample import Resampler
from streamer.live import Transcriber
from streamer.messages import SAMPLE_RATE, Block
from streamer.recognition import load_recognizer, resolve
from streamer.recognition.flops import (
    chunked_pipeline,
    gflop_per_second_of_audio,
    matrix_gflop_per_second,
)
from streamer.recognition.random_model import write_random_sew_tiny
from streamer.recognition.recognizer import Recognizer
from streamer.sources import Closing
from streamer.sources.clock import StreamClock
from streamer.sources.files import paced, read_audio

if TYPE_CHECKING:
    from streamer.messages import Samples
    from streamer.recognition import Checkpoint

RECORDING = Path(__file__).parent.parent / "demo" / "recording.flac"
FILE_MINUTES = 5
WINDOWS_S = (1, 2, 5, 10, 30)
REPEATS = 5
CHUNK_S, STRIDE_S = 10.0, 10.0 / 6
"""Of the pipeline: the length that its authors show for this family, and its own default stride."""
BATCHES = (1, 8)


def bench(
    settings: Settings,
    *,
    recording: Path = RECORDING,
    minutes: float,
    random_model: bool,
    as_json: bool,
) -> None:
    """Measure and print.

    Args:
        settings: the model and where it runs.
        recording: speech to measure with.
        minutes: how long the live loop is watched.
        random_model: measure a full-size SEW-tiny with random weights instead of the model.
        as_json: one JSON object on stdout instead of a table.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        Progress(
            console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
        ) as progress,
    ):
        if random_model:
            write_random_sew_tiny(Path(folder))
            settings = replace(settings, model=folder)
        figures: dict[str, Any] = {"startup": _startup()}
        checkpoint = resolve(settings.model, progress=sys.stderr.isatty())
        if checkpoint.notice:
            print(f"streamer: {checkpoint.notice}", file=sys.stderr)
        recognizer = load_recognizer(settings, checkpoint=checkpoint)
        figures["model"] = "SEW-tiny, random weights" if random_model else recognizer.name
        figures["accelerator"] = recognizer.accelerator
        figures["cores"] = os.cpu_count()
        figures["recording"] = recording.name
        audio, rate = read_audio(recording)
        figures["windows"] = _windows(recognizer, audio, rate)
        figures["bound"] = _bound(checkpoint, recognizer)
        long = np.resize(audio, FILE_MINUTES * 60 * rate)
        figures["file"] = file = _file(recognizer, settings, long, rate)
        # Silence is not recognized, so it is none of the work.
        work = figures["bound"]["real_time_factor"] * file["utterances_s"] / file["seconds"]
        file["share_of_bound"] = work / file["real_time_factor"]
        figures["pipeline"] = _pipeline(checkpoint, recognizer, long, rate)
        for batch in BATCHES:
            factor = figures["pipeline"][f"real_time_factor_batch_{batch}"]
            figures["pipeline"][f"times_ours_batch_{batch}"] = factor / file["real_time_factor"]
        task = progress.add_task(f"{minutes:g} min of live input", total=minutes * 60)
        figures["live"] = _live(
            recognizer,
            settings,
            _Repeated(audio, rate, minutes * 60),
            lambda seconds: progress.update(task, completed=seconds),
        )
    if as_json:
        print(json.dumps(figures))
    else:
        _print(figures)


def _startup() -> dict[str, float]:
    """Seconds from process start to exit, fastest of three: what the machine can do."""
    commands = {
        "import": ["-c", "import streamer"],
        "help": ["-m", "streamer", "--help"],
        "devices": ["-m", "streamer", "devices"],
        "bare_python": ["-c", "pass"],
    }

    def once(arguments: list[str]) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
        return time.perf_counter() - began

    return {name: min(once(command) for _ in range(3)) for name, command in commands.items()}


def _windows(recognizer: Recognizer, audio: Samples, rate: int) -> dict[str, dict[str, float]]:
    """Wall and CPU seconds for one window of each length, medians."""
    figures = {}
    for seconds in WINDOWS_S:
        samples = np.resize(audio, recognizer.grid.fit(seconds * rate))
        walls, cpus = [], []
        for _ in range(REPEATS):
            wall, cpu = time.perf_counter(), time.process_time()
            recognizer.log_probs(samples)
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
        figures[f"{seconds} s"] = {
            "wall_s": float(np.median(walls)),
            "cpu_s": float(np.median(cpus)),
        }
    return figures


def _bound(checkpoint: Checkpoint, recognizer: Recognizer) -> dict[str, float]:
    """What the network asks for, and what the machine can do at most."""
    asked = gflop_per_second_of_audio(checkpoint)
    possible = matrix_gflop_per_second(recognizer.accelerator, recognizer.threads)
    return {
        "gflop_per_s_of_audio": asked,
        "matrix_gflop_per_s": possible,
        "threads": recognizer.threads,
        "real_time_factor": asked / possible,
    }


def _pipeline(
    checkpoint: Checkpoint, recognizer: Recognizer, long: Samples, rate: int
) -> dict[str, float]:
    """The same minutes through the pipeline of `transformers`."""
    resampler = Resampler(rate)
    samples = np.concatenate((resampler.push(long), resampler.flush()))
    transcribe = chunked_pipeline(
        checkpoint,
        recognizer.accelerator,
        recognizer.threads,
        chunk_s=CHUNK_S,
        stride_s=STRIDE_S,
    )
    figures = {"chunk_s": CHUNK_S, "stride_s": STRIDE_S}
    for batch in BATCHES:
        transcribe(samples[: int(CHUNK_S * SAMPLE_RATE)], 1)  # once to warm up
        wall, cpu = time.perf_counter(), time.process_time()
        transcribe(samples, batch)
        seconds = len(samples) / SAMPLE_RATE
        figures[f"real_time_factor_batch_{batch}"] = (time.perf_counter() - wall) / seconds
        figures[f"cpu_s_per_s_batch_{batch}"] = (time.process_time() - cpu) / seconds
    return figures


def _file(recognizer: Recognizer, settings: Settings, long: Samples, rate: int) -> dict[str, float]:
    """The offline path over several minutes."""
    wall, cpu = time.perf_counter(), time.process_time()
    transcriber = Transcriber(recognizer, rate, settings, previews=False)
    transcriber.feed(long)
    transcriber.finish()
    seconds = transcriber.heard_s
    return {
        "seconds": seconds,
        "utterances_s": transcriber.counts.segments_s,
        "real_time_factor": (time.perf_counter() - wall) / seconds,
        "cpu_s_per_s": (time.process_time() - cpu) / seconds,
    }


class _Repeated(Closing):
    """The recording over and over, as a source."""

    name = "recording"

    def __init__(self, audio: Samples, rate: int, seconds: float) -> None:
        self._audio = audio
        self.rate = rate
        self._end = int(seconds * rate)

    def stop(self) -> None:
        self._end = 0

    def close(self) -> None:
        """There is nothing to release."""

    def __iter__(self) -> Iterator[Block]:
        step = self.rate // 20
        for start in range(0, self._end, step):
            where = start % (len(self._audio) - step)
            yield Block(start, self._audio[where : where + step])


def _live(
    recognizer: Recognizer, settings: Settings, source: _Repeated, tell: Callable[[float], object]
) -> dict[str, float]:
    """The live loop at real pace."""
    clock = StreamClock()
    transcriber = Transcriber(recognizer, source.rate, settings, now=clock.now)
    lags: list[float] = []
    memory = _memory()
    cpu = time.process_time()
    with paced(source) as live:
        for block in live:
            heard = block.end / live.rate
            clock.arrived(max(heard, live.captured_s))
            lags.append(clock.now() - heard)
            transcriber.feed(block)
            tell(heard)
        transcriber.finish()
    cpu = time.process_time() - cpu
    counts = transcriber.counts
    speech = max(counts.segments_s, 1e-9)
    half = len(lags) // 2
    return {
        "seconds": transcriber.heard_s,
        "speech_s": counts.segments_s,
        "cpu_s_per_s_of_speech": cpu / speech,
        "previews_per_s_of_speech": counts.previews / speech,
        "previews_dropped": counts.dropped,
        "lag_p50_s": float(np.percentile(lags, 50)),
        "lag_p95_s": float(np.percentile(lags, 95)),
        "lag_max_s": max(lags),
        "lag_mean_first_half_s": float(np.mean(lags[:half])),
        "lag_mean_second_half_s": float(np.mean(lags[half:])),
        "memory_start_mb": memory,
        "memory_end_mb": _memory(),
    }


def _memory() -> float:
    """Resident megabytes; where the system does not tell, the most there ever were."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _print(figures: dict[str, Any]) -> None:
    table = Table(title=f"{figures['model']} on {figures['accelerator']}, {figures['cores']} cores")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, seconds in figures["startup"].items():
        table.add_row(f"start-up: {name.replace('_', ' ')}", f"{seconds:.2f} s")
    for name, window in figures["windows"].items():
        table.add_row(
            f"window of {name}: wall, CPU", f"{window['wall_s']:.3f} s, {window['cpu_s']:.3f} s"
        )
    for part in ("bound", "file", "pipeline", "live"):
        for name, value in figures[part].items():
            table.add_row(f"{part}: {name.replace('_', ' ')}", f"{value:.3f}")
    Console().print(table)
