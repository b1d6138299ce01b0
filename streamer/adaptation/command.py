"""`streamer adapt`: folders of recordings with text → a model's folder, if it got better."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from streamer.adaptation.adapt import Outcome, adapt, seconds
from streamer.adaptation.others import other_voices
from streamer.adaptation.spelling import spell
from streamer.config import Settings
from streamer.corpora.examples import Example, find_examples, split_held_out
from streamer.errors import InputError, SettingsError
from streamer.recognition import load_finetuning, resolve

LEAST_SECONDS = 60.0
LEAST_EXAMPLES = 10


def adapt_model(
    settings: Settings,
    folders: Sequence[Path],
    output: Path,
    *,
    epochs: int | None,
    train_features: bool,
    say: Callable[[str], None],
) -> Outcome:
    """Fine-tune `settings.model` on examples and write it to `output` if it got better.

    What happens is told on stdout, in lines for people; what was left out is told through `say`.

    Raises:
        InputError: too few examples, or a folder that cannot be read.
        ModelError: the model is not available, damaged, or of another kind.
        SettingsError: the output folder is in use or cannot be made, or there is no such
            accelerator.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise SettingsError(f"{output}: is there already; name a new folder for the new model")
    found = find_examples(folders)
    for note in found.notes:
        say(f"streamer: {note}")
    checkpoint = resolve(settings.model, progress=sys.stderr.isatty(), letters=False)
    model = load_finetuning(checkpoint, settings, train_features=train_features)
    usable = [e for e in found.examples if spell(e.text, model.vocabulary)]
    if lost := len(found.examples) - len(usable):
        say(
            f"streamer: {lost} of {len(found.examples)} examples are left out: digits or symbols "
            "that the model cannot write; spell them as they were spoken"
        )
    if len(usable) < LEAST_EXAMPLES or seconds(usable) < LEAST_SECONDS:
        raise InputError(
            f"only {len(usable)} examples, {seconds(usable):.0f} s in all; adaptation needs "
            f"{LEAST_EXAMPLES} and a minute or more, and ten minutes are a good start"
        )
    examples, held_out = split_held_out(usable)
    _tell(
        f"{len(examples)} examples ({seconds(examples) / 60:.1f} min) to learn from; "
        f"{len(held_out)} more ({seconds(held_out) / 60:.1f} min) decide whether it got better."
    )
    if model.new_head:
        _tell(f"{checkpoint.name} has learned no letters yet: it gets a new head of random ones.")
    others = other_voices()
    outcome = _with_progress(
        model.accelerator,
        lambda told: adapt(model, examples, held_out, others, epochs=epochs, progress=told),
    )
    before, after = outcome.before, outcome.after
    if not outcome.better:
        reason = (
            "fewer after, but other voices would be heard much worse"
            if outcome.held_back
            else "no fewer after"
        )
        _tell(
            f"Held-out words wrong: {before.wer:.1%} before, {reason}. Nothing was written: "
            f"go on with {checkpoint.name}."
        )
        return outcome
    try:
        model.save(output)
        (output / "README.md").write_text(_card(checkpoint.name, examples, held_out, outcome))
    except OSError as error:
        raise SettingsError(f"{output}: cannot be written ({error.strerror or error})") from error
    _tell(
        f"Held-out words wrong: {before.wer:.1%} before, {after.wer:.1%} after; letters "
        f"{before.cer:.1%} before, {after.cer:.1%} after."
    )
    _tell(_others(outcome))
    _tell(f"Use it: streamer --model {output}")
    return outcome


def _with_progress(
    device: str, run: Callable[[Callable[[float, float], object]], Outcome]
) -> Outcome:
    """Run with a bar that says how long it will take; in a pipe, one line says so."""
    columns = (
        TextColumn(f"learning on {device}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %, loss {task.fields[loss]:.2f}"),
        TimeElapsedColumn(),
        TextColumn("elapsed,"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    terminal = sys.stderr.isatty()
    began, estimated = time.monotonic(), False
    with Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        disable=not terminal,
        redirect_stdout=sys.stdout.isatty(),
    ) as bar:
        task = bar.add_task("", total=1.0, loss=0.0)

        def show(done: float, loss: float) -> None:
            nonlocal estimated
            if not (terminal or estimated) and done >= 0.05:
                left = (time.monotonic() - began) * (1 - done) / done
                _tell(f"Learning on {device}: about {_duration(left)}.")
                estimated = True
            bar.update(task, completed=done, loss=loss)

        return run(show)


def _others(outcome: Outcome) -> str:
    before, after = outcome.others_before, outcome.others_after
    if before is None or after is None:
        return "Other voices: not measured; the model cannot spell what the bundled reader says."
    line = f"Words of other voices wrong: {before.wer:.1%} before, {after.wer:.1%} after"
    return f"{line}; for their sake no more was learned." if outcome.held_back else f"{line}."


def _duration(left: float) -> str:
    return f"{left / 60:.0f} minutes" if left >= 90 else f"{max(1, left):.0f} seconds"


def _card(
    base: str, examples: Sequence[Example], held_out: Sequence[Example], outcome: Outcome
) -> str:
    before, after = outcome.before, outcome.after
    return f"""# {base}, adapted

Made by `streamer adapt` from `{base}` on {len(examples)} examples of recorded speech with text
({seconds(examples) / 60:.1f} minutes). Greedy, each example whole, on {len(held_out)} others
({seconds(held_out) / 60:.1f} minutes, {before.words} words) that it did not learn from but that
chose how far to go ({outcome.share:.0%} of the way from the old weights to the new):

| | word error rate | letter error rate |
| --- | --- | --- |
| before | {before.wer:.3f} | {before.cer:.3f} |
| after | {after.wer:.3f} | {after.cer:.3f} |

{_others(outcome)} These are the reader of
the bundled recording at three speeds; real people may fare worse. The licence of `{base}` holds.
"""


def _tell(line: str) -> None:
    print(line, flush=True)
