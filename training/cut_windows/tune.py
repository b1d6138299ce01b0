"""Teach the decoder to stop where the audio is cut: ``python -m training.cut_windows.tune``.

Low-rank changes of its linear layers learn from the labels when to stop, and their words mostly
from the published weights on the same window, so that they forget nothing. Ctrl-C or SIGTERM saves
and ends; ``--resume`` goes on from there, or from the last save after a crash. The folder of the
run holds

    settings.json         what the run was begun with
    state.pt              everything that tuning goes on from
    log.jsonl             losses and shares of windows of other speakers, one object a line
    adapter.safetensors   for `training.cut_windows.evaluate` and the package
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from streamer.messages import SAMPLE_RATE
from streamer.recognition.moonshine_files import TOKENIZER, Tokenizer, installed_folder
from training.command import run, told_to_stop
from training.cut_windows.adapters import (
    BEGIN,
    END,
    RANK,
    adapt,
    base_model,
    load,
    published,
    rank_of,
    save,
)
from training.cut_windows.windows import (
    SHORTEST_S,
    Clip,
    Draws,
    Window,
    punctuation_of,
    read_labels,
    split,
    window,
)
from training.processes import Team, run_together

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Sequence

WARM_UP_STEPS = 60
LABEL_SHARE = 0.15
"""Of the label in what words are drawn to; the rest is the published weights' own distribution."""
_POOL = 240
"""Windows that are drawn and sorted by length at a time, and two for each second of a batch."""
_NEVER = -1e9
_IGNORED = -100


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.cut_windows.tune",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--run", type=Path, default=Path("training/data/cut_windows/run"), help="its folder")
    add("--resume", action="store_true", help="go on with the run in its folder")
    add("--labels", type=Path, default=Path("training/data/cut_windows/labels"), help="folder")
    add("--init", type=Path, help="an adapter to start from")
    add("--minutes", type=float, help="of steps in all (default 20); the rate falls to 0 by then")
    add("--rate", type=float, default=6e-4, help="highest learning rate")
    add("--rank", type=int, default=RANK, help="of the changes, without --init")
    add("--encoder-layers", type=int, default=0, metavar="N", help="learn the encoder's last N too")
    add("--far", type=float, default=0.35, metavar="0-1", help="windows in noise and other rooms")
    add("--inside", type=float, default=0.2, metavar="0-1", help="windows that begin at a pause")
    add("--batch-seconds", type=float, help="of windows in a step (default 80; on a GPU 800)")
    add("--look-every", type=float, default=240, metavar="SECONDS", help="at other speakers")
    add("--look-clips", type=int, default=64)
    add("--save-every", type=float, default=60, metavar="SECONDS")
    add("--processes", type=int, help="that share each step on a CPU; that draw windows for a GPU")
    add("--seed", type=int, default=0)
    return parser


def main(argv: list[str] | None = None) -> None:
    """Tune until the minutes are over or the process is told to stop."""
    options = arguments().parse_args(argv)
    saved = options.run / "settings.json"
    if options.resume:
        if not saved.is_file():
            raise SystemExit(f"training: nothing to resume in {options.run}: give --run FOLDER.")
        settings = json.loads(saved.read_text())
        if options.minutes:  # the one thing that may change: the learning rate follows
            settings["minutes"] = options.minutes
    else:
        if saved.is_file():
            raise SystemExit(f"training: {options.run} holds a run: --resume, or another --run.")
        settings = vars(options) | {"minutes": options.minutes or 20.0}
        settings = {n: str(v) if isinstance(v, Path) else v for n, v in settings.items()}
    options.run.mkdir(parents=True, exist_ok=True)
    saved.write_text(json.dumps(settings, indent=1) + "\n")
    processes = settings["processes"] or len(os.sched_getaffinity(0))
    run_together(1 if torch.cuda.is_available() else processes, _tune, options.run, settings)


def _tune(team: Team, folder: Path, settings: dict[str, Any]) -> None:
    torch.set_num_threads(1)  # in a lone process too: of two threads each waits for the other
    with told_to_stop() as stopping:
        Run(folder, settings, team).tune(stopping)


class Batch(NamedTuple):
    """Windows of one length, with the tokens that are given and those that are wanted."""

    samples: Tensor
    """Shape (windows, n)."""
    given: Tensor
    """Shape (windows, tokens), as `wanted`."""
    wanted: Tensor
    inside: Tensor
    """Of each window, whether it begins inside a sentence."""

    @classmethod
    def of(cls, windows: Sequence[Window]) -> Batch:
        """Windows of one length."""
        samples = torch.from_numpy(np.stack([one.samples for one in windows]))
        return cls(samples, *_padded(windows), torch.tensor([one.inside for one in windows]))

    def to(self, device: str) -> Batch:
        """The same there."""
        return Batch(*(tensor.to(device) for tensor in self))


class Batches(IterableDataset[Batch]):
    """Endless batches; each worker of a loader draws others."""

    def __init__(
        self, clips: Sequence[Clip], punctuation: frozenset[int], settings: dict[str, Any],
        seconds: float, seed: tuple[int, ...],
    ) -> None:  # fmt: skip
        self._clips, self._punctuation, self._settings = clips, punctuation, settings
        self._seconds, self._seed = seconds, seed

    def __iter__(self) -> Iterator[Batch]:
        worker = torch.utils.data.get_worker_info()
        draws = Draws(
            self._clips,
            self._punctuation,
            (*self._seed, worker.id if worker else 0),
            inside=self._settings["inside"],
            far=self._settings["far"],
        )
        while True:
            for batch in draws.batches(round(_POOL + 2 * self._seconds), self._seconds):
                yield Batch.of(batch)


class Run:
    """A run and the folder that it can be resumed from.

    In each of the processes that share it; the first alone looks, logs and saves.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], team: Team) -> None:
        self._folder, self._settings, self._team = folder, settings, team
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.set_float32_matmul_precision("high")
        torch.manual_seed(settings["seed"])
        torch.set_flush_denormal(True)
        base = installed_folder()
        self._model = base_model(base)
        init = settings["init"] and Path(settings["init"])
        rank = rank_of(init) if init else settings["rank"]
        self._changes = adapt(self._model, rank, settings["encoder_layers"])
        if init:
            load(self._changes, init)
        self._model.to(self._device)
        self._weights = [weight for c in self._changes.values() for weight in (c.a, c.b)]
        self._optimizer = torch.optim.AdamW(
            self._weights, settings["rate"], betas=(0.9, 0.98), weight_decay=0.01
        )
        self._step, self._heard, self._spent = 0, 0.0, 0.0
        if (folder / "state.pt").is_file():
            self._restore()
        self._punctuation = punctuation_of(Tokenizer(base / TOKENIZER))
        clips, others = split(read_labels(Path(settings["labels"])))
        if not clips:
            raise SystemExit(f"training: no clips in {settings['labels']}: label some first.")
        random.Random(3).shuffle(others)
        self._others = others[: settings["look_clips"]]
        seconds = settings["batch_seconds"] or (800.0 if self._device == "cuda" else 80.0)
        # A resumed run draws new windows, as the endless stream would have.
        seed = settings["seed"], self._step, team.rank
        batches = Batches(clips, self._punctuation, settings, seconds / team.count, seed)
        # On a CPU each process draws its own: no core is left for others.
        workers = settings["processes"] or max(1, len(os.sched_getaffinity(0)) - 2)
        self._batches = iter(
            DataLoader(
                batches, batch_size=None, num_workers=workers if self._device == "cuda" else 0
            )
        )

    def tune(self, stopping: threading.Event) -> None:
        """Learn from batches until the time is over or `stopping` is set; then look and save."""
        looked = saved = began = time.monotonic()
        self._look()
        before, stop, losses = self._spent, False, list[float]()
        while not stop and self._spent < 60 * self._settings["minutes"]:
            now = time.monotonic()
            stop, loss = self._learn(next(self._batches), before + now - began, stopping)
            losses.append(loss)
            if self._team.rank > 0:
                continue
            now = time.monotonic()
            if now - saved > self._settings["save_every"]:
                self._log({"loss": round(float(np.mean(losses)), 4)})
                self._save()
                saved, losses = now, []
            if now - looked > self._settings["look_every"]:
                self._look()
                looked = time.monotonic()
        if self._team.rank == 0:
            self._save()
            if not stop:
                self._look()

    def _learn(self, batch: Batch, spent: float, stopping: threading.Event) -> tuple[bool, float]:
        """One step with the other processes: whether any was told to stop, and the loss."""
        loss, tokens = self._loss(batch.to(self._device))
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        heard = batch.samples.numel() / SAMPLE_RATE / 3600
        spent *= self._team.rank == 0  # one clock for all, or some would wait for ever
        told = torch.tensor([stopping.is_set(), spent, tokens, loss.item(), heard])
        gradients = [weight.grad for weight in self._weights if weight.grad is not None]
        self._team.add_up([told, *gradients])
        stop, self._spent, total, summed, heard = told.tolist()
        for gradient in gradients:
            gradient /= total
        torch.nn.utils.clip_grad_norm_(self._weights, 1.0)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate()
        self._optimizer.step()
        self._step += 1
        self._heard += heard
        return stop > 0, summed / total

    def _rate(self) -> float:
        """A short rise, then half a cosine down to nothing."""
        done = min(1.0, self._spent / (60 * self._settings["minutes"]))
        rise = min(1.0, (self._step + 1) / WARM_UP_STEPS)
        return float(self._settings["rate"]) * rise * (0.5 + 0.5 * math.cos(math.pi * done))

    def _loss(self, batch: Batch) -> tuple[Tensor, int]:
        """The loss of windows of one length, summed over their tokens, and how many these are.

        That of the decision to stop is by the labels; that of words, given that it goes on, is by
        the published weights and a little by the labels.
        """
        samples, given, wanted, inside = batch
        known = wanted != _IGNORED
        goal = wanted[known]
        word = goal != END
        with published(self._changes):
            hidden = self._encode(samples)
            before = self._logits(hidden, given, known)[word]
            before[:, END] = _NEVER
            shares = torch.full(wanted.shape, LABEL_SHARE, device=wanted.device)
            shares[inside, 0] = 0.0
            share = shares[known][word][:, None]
            drawn_to = (1 - share) * before.softmax(-1)
            drawn_to.scatter_add_(1, goal[word][:, None], share)
        if self._settings["encoder_layers"]:
            hidden = self._encode(samples)
        logits = self._logits(hidden, given, known)
        end = logits.log_softmax(-1)[:, END]
        words = logits[word].clone()
        words[:, END] = _NEVER
        goes_on = torch.log1p(-end[word].exp().clamp(max=1 - 1e-6))
        said = functional.kl_div(words.log_softmax(-1), drawn_to, reduction="sum")
        return said - end[~word].sum() - goes_on.sum(), len(goal)

    def _encode(self, samples: Tensor) -> Tensor:
        hidden: Tensor = self._model.model.encoder(samples).last_hidden_state
        return hidden

    def _logits(self, hidden: Tensor, given: Tensor, at: Tensor) -> Tensor:
        """After the tokens that `at` marks, shape (tokens, vocabulary)."""
        states = self._model.model.decoder(
            input_ids=given, encoder_hidden_states=hidden, use_cache=False
        ).last_hidden_state
        logits: Tensor = self._model.proj_out(states[at])
        return logits

    @torch.no_grad()
    def _look(self) -> None:
        """Log how windows of other speakers are written: three cuts of each clip, and all of it.

        Given the tokens before it, each token is right or not; the first that is not tells whether
        the text would end early, late, or with other words.
        """
        if self._team.rank > 0 or not self._others:
            return
        chance = random.Random(7)
        counts = {kind: dict.fromkeys(("exact", "early", "late", "other"), 0) for kind in _KINDS}
        for clip in self._others:
            cuts = [chance.uniform(SHORTEST_S, clip.seconds) for _ in range(3)]
            for cut_s in [*cuts, clip.seconds]:
                one = window(clip, cut_s, self._punctuation)
                samples, given, wanted, _ = Batch.of([one]).to(self._device)
                best = self._logits(self._encode(samples), given, wanted != _IGNORED).argmax(-1)
                kind = _KINDS[cut_s == clip.seconds]
                counts[kind][_outcome(best.tolist(), one.tokens)] += 1
        self._log({
            kind: {name: round(n / sum(each.values()), 3) for name, n in each.items()}
            for kind, each in counts.items()
        })  # fmt: skip

    def _log(self, row: dict[str, Any]) -> None:
        heard, spent = round(self._heard, 2), round(self._spent)
        line = json.dumps({"step": self._step, "heard_h": heard, "spent_s": spent, **row})
        print(line, flush=True)
        with open(self._folder / "log.jsonl", "a") as log:
            log.write(line + "\n")

    def _save(self) -> None:
        notes = {"steps": self._step, "hours": round(self._heard, 1)}
        save(self._changes, self._folder / "adapter.safetensors", **notes)
        state = {
            "weights": [weight.detach() for weight in self._weights],
            "optimizer": self._optimizer.state_dict(),
            "step": self._step,
            "heard": self._heard,
            "spent": self._spent,
        }
        unfinished = self._folder / "state.pt.part"
        torch.save(state, unfinished)
        unfinished.replace(self._folder / "state.pt")

    def _restore(self) -> None:
        state = torch.load(self._folder / "state.pt", map_location=self._device, weights_only=True)
        with torch.no_grad():
            for weight, saved in zip(self._weights, state["weights"], strict=True):
                weight.copy_(saved)
        self._optimizer.load_state_dict(state["optimizer"])
        self._step, self._heard = state["step"], state["heard"]
        self._spent = state["spent"]


_KINDS = "cut", "whole"


def _padded(batch: Sequence[Window]) -> tuple[Tensor, Tensor]:
    """Tokens that the decoder is given and tokens that it is to give, shape (windows, tokens)."""
    longest = max(len(one.tokens) for one in batch)
    given = torch.full((len(batch), longest), END)
    wanted = torch.full((len(batch), longest), _IGNORED)
    for row, one in enumerate(batch):
        given[row, : len(one.tokens)] = torch.tensor((BEGIN, *one.tokens[:-1]))
        wanted[row, : len(one.tokens)] = torch.tensor(one.tokens)
    return given, wanted


def _outcome(best: Sequence[int], wanted: Sequence[int]) -> str:
    """What the first token that differs makes of a text."""
    for token, right in zip(best, wanted, strict=True):
        if token != right:
            return "early" if token == END else "late" if right == END else "other"
    return "exact"


if __name__ == "__main__":
    run(main)
