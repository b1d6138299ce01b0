"""What models of transformers cost on this machine: ``python -m training.model_costs NAME...``.

Time and memory do not depend on what a model has learned, so random weights of full size will do.
Each model is measured in a process of its own, on a CPU in single precision with one thread for
each 50 million weights, on a GPU (``--accelerator cuda``) in half precision:

* a preview: 4 s of audio, a draft that is right and six new tokens (a CTC model: 2.6 s);
* a final: 10 s of audio, 45 tokens from nothing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers

from streamer.messages import SAMPLE_RATE
from streamer.recognition.accelerators import default_threads

if TYPE_CHECKING:
    from collections.abc import Callable

_PREVIEW_TOKENS, _FINAL_TOKENS = 7, 45
_REPEATS = 3


def _whisper(size: int, layers: int, heads: int, *, decoder: int = 0, mel: int = 80) -> Any:
    config = transformers.WhisperConfig(
        d_model=size,
        encoder_layers=layers,
        decoder_layers=decoder or layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * size,
        decoder_ffn_dim=4 * size,
        num_mel_bins=mel,
        vocab_size=51_866,
    )
    return (
        transformers.WhisperForConditionalGeneration(config),
        transformers.WhisperFeatureExtractor(feature_size=mel),
    )


def _moonshine(size: int, layers: int) -> Any:
    config = transformers.MoonshineConfig(
        hidden_size=size,
        intermediate_size=4 * size,
        encoder_num_hidden_layers=layers,
        decoder_num_hidden_layers=layers,
    )
    return (
        transformers.MoonshineForConditionalGeneration(config),
        transformers.Wav2Vec2FeatureExtractor(do_normalize=False),
    )


def _parakeet(kind: str) -> Any:
    encoder = {"num_mel_bins": 128 if kind != "CTC" else 80, "num_hidden_layers": 24}
    config = getattr(transformers, f"Parakeet{kind}Config")(encoder_config=encoder)
    return (
        getattr(transformers, f"ParakeetFor{kind}")(config),
        transformers.ParakeetFeatureExtractor(feature_size=encoder["num_mel_bins"]),
    )


def _wav2vec2() -> Any:
    model = transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config(vocab_size=32))
    return model, transformers.Wav2Vec2FeatureExtractor()


def _wav2vec2_bert() -> Any:
    model = transformers.Wav2Vec2BertForCTC(transformers.Wav2Vec2BertConfig(vocab_size=64))
    return model, transformers.SeamlessM4TFeatureExtractor()


MODELS: dict[str, Callable[[], Any]] = {
    "moonshine-tiny": lambda: _moonshine(288, 6),
    "moonshine-base": lambda: _moonshine(416, 8),
    "whisper-tiny": lambda: _whisper(384, 4, 6),
    "whisper-base": lambda: _whisper(512, 6, 8),
    "whisper-small": lambda: _whisper(768, 12, 12),
    "whisper-large-v3-turbo": lambda: _whisper(1280, 32, 20, decoder=4, mel=128),
    "wav2vec2-base": _wav2vec2,
    "wav2vec2-bert": _wav2vec2_bert,
    "parakeet-ctc-0.6b": lambda: _parakeet("CTC"),
    "parakeet-tdt-0.6b": lambda: _parakeet("TDT"),
}


def measure(name: str, accelerator: str) -> tuple[str, float, int, float, float, float]:
    """Name, millions of weights, threads, seconds of a preview and of a final, megabytes.

    The last are of the process, or of the GPU where the model runs on one.
    """
    torch.manual_seed(0)
    model, extractor = MODELS[name]()
    model.eval().requires_grad_(False).to(
        accelerator, torch.float32 if accelerator == "cpu" else torch.float16
    )
    weights = sum(parameter.numel() for parameter in model.parameters())
    threads = default_threads(weights, torch.get_num_threads())
    torch.set_num_threads(threads)
    transducer = hasattr(model.config, "blank_token_id")
    ctc = type(model).__name__.endswith("ForCTC")

    def run(seconds: float, tokens: int) -> float:
        noise = np.random.default_rng(0).standard_normal(int(seconds * SAMPLE_RATE)) * 0.01
        best = float("inf")
        for _ in range(_REPEATS):
            begun = time.perf_counter()
            given = extractor(noise.astype(np.float32), sampling_rate=16_000, return_tensors="pt")
            given = {
                key: value.to(accelerator, model.dtype if value.is_floating_point() else None)
                for key, value in given.items()
            }
            with torch.inference_mode():
                if ctc:
                    model(**given)
                else:
                    # A transducer goes through all frames, 80 ms each, whatever a preview said.
                    steps = tokens + (int(seconds / 0.08) if transducer else 0)
                    model.generate(
                        **given,
                        max_new_tokens=steps,
                        min_new_tokens=None if transducer else tokens,
                        decoder_start_token_id=1,
                        do_sample=False,
                        num_beams=1,
                    )
            if accelerator == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - begun)
        return best

    preview, final = run(2.6 if ctc else 4.0, _PREVIEW_TOKENS), run(10.0, _FINAL_TOKENS)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if accelerator == "cuda":
        peak = torch.cuda.max_memory_reserved() / 1e6
    return name, weights / 1e6, threads, preview, final, peak


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description="what models cost on this machine")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MODELS))
    parser.add_argument("--accelerator", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    names = options.names or [*MODELS]
    if unknown := [name for name in names if name not in MODELS]:
        parser.error(f"{unknown[0]}: choose from {', '.join(MODELS)}")
    print("| size of | weights | threads | preview | final | peak memory |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in names:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            said, weights, threads, preview, final, peak = pool.apply(
                measure, (name, options.accelerator)
            )
        print(
            f"| {said} | {weights:.0f} M | {threads} | {preview:.3f} s | {final:.3f} s "
            f"| {peak / 1000:.1f} GB |",
            flush=True,
        )


if __name__ == "__main__":
    main()
