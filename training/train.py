"""Train the embedded model: ``python -m training.train --speech DIR``, then ``--resume``.

Fills the corpus folder where that has not been done (`training.prepare`), then trains from random
weights: first the convolutions alone, to foresee the log-mel spectrum, then the whole network on
letters, with phones on an inner layer. Ctrl-C or SIGTERM saves and ends; ``--resume`` goes on from
there, or from the last save after a crash. The folder of the run holds

    settings.json   what the run was begun with
    state.pt        everything that training goes on from
    log.jsonl       losses and error rates, one object a line, by hours heard
    checkpoint/     the network of the last evaluation, for `streamer --model`
"""

import argparse
import json
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")  # a dozen lengths, many kernels

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from streamer.recognition.accelerators import multiplies_bfloat16
from streamer.recognition.checkpoint_files import SEW_TINY_TOKENS
from training import prepare
from training.batches import UNKNOWN, Batch, Batches
from training.command import run, told_to_stop
from training.corpus import SAMPLE_RATE, read_set
from training.export import export
from training.live_windows import LiveWindow
from training.muon import Muon
from training.network import LAYERS, Trainee
from training.processes import Team, run_together
from training.scoring import held_out_sets, score

MIX = {"recorded": 6.0, "flite": 3.0, "espeak": 2.0}
"""Weights of the sets: recorded speech is what the model is for."""
PHONE_SEQUENCE_WEIGHT, PHONE_FRAMES_WEIGHT = 0.3, 0.2
LIVE_WEIGHT = 1.0
WARM_UP_STEPS = 300
MEL_RATE = 2e-3
ADAM_SHARE = 0.5
"""Of the learning rate, for all that is not a matrix of the encoder: it has less to gain."""


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--run", type=Path, default=Path("training/data/run"), help="folder of the run")
    add("--resume", action="store_true", help="go on with the run in its folder")
    add("--hours", type=float, help="hours of sound to hear in all (default 250)")
    add("--speech", type=Path, help="recordings with a train.tsv")
    add("--text", type=Path, action="append", default=[], help="more sentences to synthesize")
    add("--corpus", type=Path, default=Path("training/data/corpus"), help="made where missing")
    add("--start-from", type=Path, help="a checkpoint instead of random weights")
    add("--layers", type=int, default=LAYERS, help="of the encoder, at least")
    add("--mel-hours", type=float, default=6.0, help="of these, for the convolutions alone")
    add("--rate", type=float, default=8e-4, help="highest learning rate")
    add("--batch-seconds", type=float, help="sound in a step (default: 32, on a GPU 640)")
    add("--augmentation", type=float, default=0.6, metavar="0-1", help="strength")
    add("--live", type=float, default=0.5, metavar="0-1", help="steps that hear a window as well")
    add("--evaluate-every", type=float, default=600, metavar="SECONDS", help="and save")
    add("--evaluate-clips", type=int, default=40, help="of each held-out set, on the way")
    add("--seed", type=int, default=0)
    return parser


def main(argv: list[str] | None = None) -> None:
    """Train until all hours are heard or the process is told to stop."""
    options = arguments().parse_args(argv)
    saved = options.run / "settings.json"
    if options.resume:
        if not saved.is_file():
            raise SystemExit(f"training: nothing to resume in {options.run}: give --run FOLDER.")
        settings = json.loads(saved.read_text())
        if options.hours:  # the one thing that may change: the learning rate follows
            settings["hours"] = options.hours
    else:
        if saved.is_file():
            raise SystemExit(f"training: {options.run} holds a run: --resume, or another --run.")
        settings = {
            name: [str(path) for path in value]
            if isinstance(value, list)
            else str(value)
            if isinstance(value, Path)
            else value
            for name, value in vars(options).items()
            if name not in ("run", "resume")
        }
        settings["hours"] = options.hours or 250.0
        if not any(Path(settings["corpus"]).glob("*.jsonl")):
            prepare.main(
                ["--corpus", settings["corpus"]]
                + (["--speech", settings["speech"]] if settings["speech"] else [])
                + [part for path in settings["text"] for part in ("--text", path)]
            )
    options.run.mkdir(parents=True, exist_ok=True)
    saved.write_text(json.dumps(settings, indent=1) + "\n")
    processes = 1 if torch.cuda.is_available() else len(os.sched_getaffinity(0))
    run_together(processes, _train, options.run, settings)


def _train(team: Team, folder: Path, settings: dict[str, Any]) -> None:
    with told_to_stop() as stopping:
        Run(folder, settings, team).train(stopping)


class Run:
    """A training run and the folder that it can be resumed from.

    In each of the processes that share it; the first alone evaluates, logs and saves.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], team: Team) -> None:
        self._folder, self._settings, self._team = folder, settings, team
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._half = self._device == "cuda" or multiplies_bfloat16()
        torch.manual_seed(settings["seed"])
        torch.set_flush_denormal(True)
        start = settings["start_from"]
        self._trainee = Trainee(Path(start) if start else None, settings["layers"])
        self._trainee.to(self._device)
        self._weights = list(self._trainee.parameters())
        matrices = self._trainee.matrices()
        known = set(matrices)
        self._optimizers = [
            Muon(matrices, settings["rate"], team),
            torch.optim.AdamW(
                [weight for weight in self._weights if weight not in known],
                settings["rate"],
                betas=(0.9, 0.98),
                weight_decay=0.01,
                fused=True,
            ),
        ]
        self._step, self._heard, self._spent = 0, 0.0, 0.0
        self._mel_hours = 0.0 if start else float(settings["mel_hours"])
        self._losses: dict[str, float] = {}
        self._chance = random.Random()
        if (folder / "state.pt").is_file():
            self._restore()
        corpus = Path(settings["corpus"])
        sets = {kind: read_set(corpus, kind) for kind in MIX}
        for kind, clips in sets.items() if team.rank == 0 else ():
            hours = sum(len(clip.samples) for clip in clips) / SAMPLE_RATE / 3600
            print(f"{kind}: {len(clips)} clips, {hours:.1f} h")
        if not any(sets.values()):
            raise SystemExit(f"training: no speech in {corpus}: run training.prepare first.")
        self._held_out = held_out_sets(corpus, settings["evaluate_clips"])
        seconds = settings["batch_seconds"] or (640.0 if self._device == "cuda" else 32.0)
        # A resumed run draws new clips, as the endless stream would have.
        batches = Batches(
            sets,
            MIX,
            seconds=seconds / team.count,
            seed=(settings["seed"] + self._step) * team.count + team.rank,
            augmentation=settings["augmentation"],
        )
        # On the CPU each process makes its own: no core is left for others.
        workers = max(1, (os.cpu_count() or 2) - 2) if self._device == "cuda" else 0
        self._batches = iter(DataLoader(batches, batch_size=None, num_workers=workers))

    def train(self, stopping: threading.Event) -> None:
        """Hear batches until the hours are full or `stopping` is set; then evaluate or save."""
        hours = float(self._settings["hours"])
        began = shown = evaluated = time.monotonic()
        before = self._spent
        self._trainee.train()
        stop = False
        while self._heard < hours and not stop:
            batch = next(self._batches)
            stop = self._learn(batch, self._rate(hours), stopping)
            self._step += 1
            now = time.monotonic()
            self._spent = before + now - began
            if self._team.rank > 0 or stop:
                continue
            if now - shown > 10:
                shown = now
                self._report(hours)
            if now - evaluated > self._settings["evaluate_every"]:
                self._evaluate(self._held_out)
                self._save()
                evaluated = time.monotonic()
        if self._team.rank > 0:
            return
        if not stop:
            self._evaluate(held_out_sets(Path(self._settings["corpus"])))
        self._save()

    def _rate(self, hours: float) -> float:
        """A short rise, then a straight fall to nothing at the last hour."""
        rate = float(self._settings["rate"]) * min(1.0, (self._step + 1) / WARM_UP_STEPS)
        return rate * max(0.002, 1 - self._heard / hours)

    def _learn(self, batch: Batch, rate: float, stopping: threading.Event) -> bool:
        """One step with the other processes; whether any of them was told to stop."""
        mel = self._heard < self._mel_hours
        for optimizer, share in zip(self._optimizers, (1.0, ADAM_SHARE), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = MEL_RATE * min(1.0, (self._step + 1) / 50) if mel else rate * share
        samples = batch.samples.to(self._device)
        kind = torch.bfloat16 if self._half else torch.float32
        with torch.autocast(self._device, kind, enabled=self._half):
            if mel:
                losses = {"mel": self._trainee.mel_error(samples)}
                loss = losses["mel"]
            else:
                outputs = self._trainee(samples)
                losses = phone_and_letter_losses(outputs, batch)
                loss = losses["letters"] + PHONE_SEQUENCE_WEIGHT * losses["phones"]
                if self._chance.random() < self._settings["live"]:
                    window = LiveWindow.draw(self._chance, samples.shape[1])
                    heard = self._trainee.model(window.cut(samples)).logits
                    losses["live"] = window.difference(outputs[0], heard)
                    loss = loss + LIVE_WEIGHT * losses["live"]
                if "phone_frames" in losses:
                    loss = loss + PHONE_FRAMES_WEIGHT * losses["phone_frames"]
        for weight in self._weights:
            weight.grad = torch.zeros_like(weight)
        torch.autograd.backward(loss / self._team.count)
        told = torch.tensor([float(stopping.is_set()), float(samples.numel())])
        gradients = [weight.grad for weight in self._weights if weight.grad is not None]
        self._team.add_up([told, *gradients])
        torch.nn.utils.clip_grad_norm_(self._weights, 1.0)
        for optimizer in self._optimizers[mel:]:
            optimizer.step()
        self._heard += told[1].item() / SAMPLE_RATE / 3600
        for name, value in losses.items():
            name = f"{name}/{batch.kind}" if name == "letters" else name
            old = self._losses.get(name, value.item())
            self._losses[name] = 0.98 * old + 0.02 * value.item()
        return told[0].item() > 0

    def _report(self, hours: float) -> None:
        speed = self._heard * 3600 / max(self._spent, 1e-9)
        left = (hours - self._heard) * 3600 / speed / 60
        losses = {name: round(value, 3) for name, value in sorted(self._losses.items())}
        shown = ", ".join(f"{name} {value:.2f}" for name, value in losses.items())
        print(
            f"{self._heard:.2f} of {hours:g} h heard, {speed:.0f} s a second, "
            f"{left:.0f} min left; {shown}",
            flush=True,
        )
        self._log({"step": self._step, "rate": self._rate(hours), "loss": losses})

    def _evaluate(self, sets: dict[str, Any]) -> None:
        self._trainee.eval()
        threads = torch.get_num_threads()
        torch.set_num_threads(threads * self._team.count)  # the others wait
        rates = score(self._transcribe, sets)
        torch.set_num_threads(threads)
        self._trainee.train()
        export(self._trainee.model, self._folder / "checkpoint")
        rounded = {
            name: {"wer": round(rate.wer, 4), "cer": round(rate.cer, 4)}
            for name, rate in rates.items()
        }
        for name, rate in rates.items():
            print(f"    {name}: WER {rate.wer:.3f}, CER {rate.cer:.3f}", flush=True)
        self._log({"step": self._step, "held_out": rounded})

    def _transcribe(self, samples: NDArray[np.float32]) -> str:
        sound = torch.from_numpy((samples - samples.mean()) / (samples.std() + 1e-7))
        with torch.inference_mode():
            path = self._trainee.model(sound[None].to(self._device)).logits[0].argmax(-1)
        kept = [n for n, before in zip(path, [None, *path[:-1]], strict=True) if n != before]
        letters = ["" if n < 4 else SEW_TINY_TOKENS[n] for n in kept]
        return " ".join("".join(letters).replace("|", " ").split())

    def _log(self, row: dict[str, Any]) -> None:
        row = {"heard_h": round(self._heard, 3), "spent_s": round(self._spent), **row}
        with open(self._folder / "log.jsonl", "a") as log:
            log.write(json.dumps(row) + "\n")

    def _save(self) -> None:
        state = {
            "trainee": self._trainee.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "step": self._step,
            "heard": self._heard,
            "spent": self._spent,
        }
        unfinished = self._folder / "state.pt.part"
        torch.save(state, unfinished)
        unfinished.replace(self._folder / "state.pt")

    def _restore(self) -> None:
        state = torch.load(self._folder / "state.pt", map_location=self._device, weights_only=True)
        self._trainee.load_state_dict(state["trainee"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self._step, self._heard = state["step"], state["heard"]
        self._spent = state["spent"]


def phone_and_letter_losses(
    outputs: tuple[Tensor, Tensor, Tensor], batch: Batch
) -> dict[str, Tensor]:
    """CTC on letters and phones; cross entropy on frames whose phone is known."""
    letters, phones, frames = outputs
    inner = (batch.frames // 2).clamp(1, phones.shape[1])
    losses = {
        "letters": functional.ctc_loss(
            letters.transpose(0, 1),
            batch.letters.to(letters.device),
            batch.frames.clamp(max=letters.shape[1]),
            batch.letter_counts,
            zero_infinity=True,
        ),
        "phones": functional.ctc_loss(
            phones.log_softmax(-1).transpose(0, 1),
            batch.phones.to(phones.device),
            inner,
            batch.phone_counts,
            zero_infinity=True,
        ),
    }
    if (batch.phone_frames != UNKNOWN).any():
        shared = min(frames.shape[1], batch.phone_frames.shape[1])
        losses["phone_frames"] = functional.cross_entropy(
            frames[:, :shared].flatten(0, 1),
            batch.phone_frames[:, :shared].flatten().to(frames.device),
            ignore_index=UNKNOWN,
        )
    return losses


if __name__ == "__main__":
    run(main)
