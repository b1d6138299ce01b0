"""What a recognizer is measured against: its arithmetic, the machine's, and transformers' own way.

Needed by `streamer bench` alone; it lies here because it needs torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from streamer.messages import SAMPLE_RATE
from streamer.recognition.checkpoint_files import frame_grid
from streamer.recognition.models import cpu_threads, freeze, load_model, quiet

if TYPE_CHECKING:
    from streamer.messages import Samples
    from streamer.recognition.checkpoints import Checkpoint

WINDOW_S = 10
_PRODUCTS = 200


def gflop_per_second_of_audio(checkpoint: Checkpoint) -> float:
    """Billions of multiplications and additions, in windows of `WINDOW_S`.

    Counted operation by operation in torch, whatever the `Recognizer` runs in.

    Raises:
        ModelError: as `Recognizer`.
    """
    model = load_model(checkpoint)
    freeze(model)
    model.set_attn_implementation("eager")  # the counter does not know the CPU's fused kernel
    samples = frame_grid(model.config.to_dict()).fit(WINDOW_S * SAMPLE_RATE)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, samples))
    return float(counter.get_total_flops()) / 1e9 / (samples / SAMPLE_RATE)


def matrix_gflop_per_second(accelerator: str, threads: int) -> float:
    """How fast torch multiplies large matrices, in the precision a `Recognizer` takes there.

    The fastest of many, on so many threads of a CPU.
    """
    # On a CPU large enough for full speed, and over before another program gets its turn.
    size, kind = (512, torch.float32) if accelerator == "cpu" else (4_096, torch.float16)
    a, b = torch.rand(2, size, size, device=accelerator, dtype=kind)

    def once() -> float:
        began = time.perf_counter()
        # A number read back is there: an accelerator's work is waited for.
        (a @ b)[0, 0].item()
        return time.perf_counter() - began

    with cpu_threads(threads):
        once()
        return 2 * size**3 / 1e9 / min(once() for _ in range(_PRODUCTS))


def chunked_pipeline(
    checkpoint: Checkpoint, accelerator: str, threads: int, *, chunk_s: float, stride_s: float
) -> Callable[[Samples, int], str]:
    """The pipeline of `transformers` for long audio, on the same weights.

    Returns:
        A function: samples of shape (n,) at `SAMPLE_RATE`, chunks to a batch → text.
    """
    with quiet():
        pipeline = transformers.pipeline(
            "automatic-speech-recognition",
            model=str(checkpoint.folder),
            device=accelerator,
            dtype=torch.float32 if accelerator == "cpu" else torch.float16,
            chunk_length_s=chunk_s,
            stride_length_s=stride_s,
        )

    def transcribe(samples: Samples, batch: int) -> str:
        sound = {"raw": samples, "sampling_rate": SAMPLE_RATE}
        with quiet(), cpu_threads(threads):
            text: str = pipeline(sound, batch_size=batch)["text"]
        return text

    return transcribe
