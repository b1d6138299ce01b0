"""What `streamer eval` prints and writes: a table, a JSON object, a page with plots."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from streamer.corpora.recordings import find_recordings
from streamer.errors import SettingsError
from streamer.evaluation.evaluate import NAMES, OURS, Evaluation, evaluate, policies_for
from streamer.evaluation.moonshine_voice import RIVALS
from streamer.recognition import load_recognizer, resolve

if TYPE_CHECKING:
    from streamer.config import Settings


def eval_command(
    settings: Settings,
    place: Path,
    *,
    policies: Sequence[str] | None,
    limit: int | None,
    join: bool,
    real_pace: bool,
    as_json: bool,
    report: Path | None,
    say: Callable[[str], None],
) -> None:
    """Evaluate the recordings of a folder or manifest, print the figures, and write the page.

    Raises:
        InputError: no recordings, or audio that cannot be read.
        ModelError: the model is not available.
        SettingsError: a policy that is unknown or does not work with the model, a report that
            cannot be written, or a package that is needed for it and not here.
    """
    known = (*NAMES, *RIVALS)
    if unknown := [name for name in policies or () if name not in known]:
        raise SettingsError(f"no policy {unknown[0]!r}; choose from {', '.join(known)}")
    if report:
        _prepare(report)
    recordings = find_recordings(place, join=join)[:limit]
    checkpoint = resolve(settings.model, progress=sys.stderr.isatty())
    recognizer = load_recognizer(settings, checkpoint=checkpoint)
    chosen = tuple(dict.fromkeys(policies or policies_for(recognizer)))
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed} of {task.total}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
        redirect_stdout=sys.stdout.isatty(),
    ) as bar:
        task = bar.add_task("offline", total=len(recordings) * (1 + len(chosen)))

        def show(name: str, _: float) -> None:
            bar.update(task, advance=1, description=name)

        evaluation = evaluate(
            recordings, recognizer, settings, chosen, real_pace=real_pace, progress=show
        )
    summary = evaluation.summary()
    if as_json:
        print(json.dumps(summary))
    else:
        _print(summary)
    if report:
        _write(report, evaluation, summary)
        say(f"Report: {report / 'index.md'}")


def _print(summary: dict[str, Any]) -> None:
    console = Console(highlight=False, markup=False)
    console.print(
        f"{summary['model']}: {_counted(summary['files'])}, {summary['seconds']:.0f} s\n"
        f"{_offline(summary)}{_as_files(summary)}\n"
    )
    for names in _parted(summary["policies"], console.width):
        console.print(_table({name: summary["policies"][name] for name in names}), "")
    console.print(_LEGEND)


def _table(policies: Mapping[str, dict[str, Any]]) -> Table:
    """A row for each figure and a column for each policy, as wide as its figures."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True, width=_HEADINGS)
    for name, figures in policies.items():
        table.add_column(name.replace("-", " "), justify="right", width=_width(name, figures))
    for heading, show in _FIGURES:
        table.add_row(heading, *map(show, policies.values()))
    return table


def _parted(policies: Mapping[str, dict[str, Any]], width: int) -> list[list[str]]:
    """The policies whose columns stand beside each other; ours stands first in each part."""
    parts: list[list[str]] = [[]]
    free = room = width - _HEADINGS
    for name, figures in policies.items():
        needed = _width(name, figures) + _BETWEEN
        if needed > free and parts[-1] not in ([], [OURS]):
            parts.append([OURS] if OURS in parts[0] else [])
            free = room - sum(_width(other, policies[other]) + _BETWEEN for other in parts[-1])
        parts[-1].append(name)
        free -= needed
    return parts


def _width(name: str, figures: dict[str, Any]) -> int:
    """Of a policy's column: its name may be broken at hyphens, its figures nowhere."""
    return max(map(len, [*name.split("-"), *(show(figures) for _, show in _FIGURES)]))


def _delay(name: str) -> Callable[[dict[str, Any]], str]:
    def show(figures: dict[str, Any]) -> str:
        delay = figures[name]
        if delay["p50"] is None:
            return "–"
        return f"{delay['p50']:.2f}/{delay['p95']:.2f}"

    return show


def _milliseconds(name: str) -> Callable[[dict[str, Any]], str]:
    def show(figures: dict[str, Any]) -> str:
        error = figures[name]
        if error["p50"] is None:
            return "–"
        return f"{1000 * error['p50']:.0f}/{1000 * error['p95']:.0f}"

    return show


def _calibration(figures: dict[str, Any]) -> str:
    error = figures.get("calibration_error")
    return "–" if error is None else f"{error:.3f}"


def _share(name: str) -> Callable[[dict[str, Any]], str]:
    def show(figures: dict[str, Any]) -> str:
        share = figures[name]
        return "–" if share is None else f"{share:.1%}"

    return show


_FIGURES: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("WER offline", lambda f: f"{f['offline_wer']:.1%}"),
    ("WER live", lambda f: f"{f['wer']:.1%}"),
    ("Δ offline", lambda f: f"{100 * f['delta']:+.1f}"),
    ("disagreement", lambda f: f"{f['disagreement']:.1%}"),
    ("word delay", _delay("word_delay")),
    ("settle delay", _delay("settle_delay")),
    ("final delay", _delay("final_delay")),
    ("first word", _delay("first_word_delay")),
    ("start error, ms", _milliseconds("word_start_error")),
    ("end error, ms", _milliseconds("word_end_error")),
    ("UPWR", lambda f: f"{f['upwr']:.2f}"),
    ("retracted", _share("retracted")),
    ("stable early", _share("stable_early")),
    ("cost", lambda f: f"{f['cost']:.3f}"),
    ("calibration", _calibration),
)
_LEGEND = """\
delays in seconds, errors of word times in milliseconds: median/95 %
–: the policy tells nothing of it; cost: CPU seconds for a second of speech
a word is stable early that a partial had as stable (finals of over 4 s)"""
_HEADINGS = max(len(heading) for heading, _ in _FIGURES)
_BETWEEN = 2
"""Columns of a terminal between two of the table: its padding and its divider."""


def _prepare(folder: Path) -> None:
    """Find out before an hour of measuring whether the page can be written."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            "--report needs matplotlib, which is not here: pip install matplotlib"
        ) from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "eval.json").touch()
    except OSError as error:
        raise SettingsError(f"{folder}: cannot be written ({error.strerror})") from error


def _write(folder: Path, evaluation: Evaluation, summary: dict[str, Any]) -> None:
    (folder / "eval.json").write_text(json.dumps(summary, indent=1) + "\n")
    _plot_delays(folder / "delays.svg", evaluation)
    _plot_trade(folder / "tradeoff.svg", summary)
    policies = summary["policies"].values()
    rows = [
        f"| {heading} | " + " | ".join(map(show, policies)) + " |" for heading, show in _FIGURES
    ]
    page = [
        f"# {summary['model']} on {_counted(summary['files'])}, {summary['seconds']:.0f} s",
        "",
        *(f"{line}.  " for line in f"{_offline(summary)}{_as_files(summary)}".splitlines()),
        "",
        "| | " + " | ".join(summary["policies"]) + " |",
        "| --- |" + " ---: |" * len(policies),
        *rows,
        "",
        f"{_LEGEND[0].upper()}{'; '.join(_LEGEND[1:].splitlines())}. "
        "Definitions: `docs/quality.md`.",
        "",
        "![Distribution of delays](delays.svg)",
        "",
        "![WER and stability against delay](tradeoff.svg)",
        "",
    ]
    (folder / "index.md").write_text("\n".join(page))


def _counted(recordings: int) -> str:
    return f"{recordings} recording{'s' if recordings != 1 else ''}"


def _offline(summary: dict[str, Any]) -> str:
    """The rates of whole clips, as a sentence without its full stop."""
    offline = summary["offline"]
    text = f"Offline: WER {offline['wer']:.1%}, CER {offline['cer']:.1%}"
    if lm := offline.get("lm"):
        text += f" greedily, {lm['wer']:.1%} and {lm['cer']:.1%} with the language model"
    return text


def _as_files(summary: dict[str, Any]) -> str:
    """The figures of our policy without previews, as a line of its own."""
    files = summary.get("as_files")
    if files is None:
        return ""
    differing = len(files["differing"])
    text = (
        f"the text differs from the live one in {_counted(differing)}"
        if differing
        else ("the text is the live one")
    )
    return f"\nAs files: WER {files['wer']:.1%}, cost {files['cost']:.3f}; {text}"


def _plot_delays(path: Path, evaluation: Evaluation) -> None:
    """The share of words shown and settled, and of segments final, within so many seconds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.2), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for axes, name, title in zip(
        panels,
        ("word", "settle", "final"),
        ("words shown", "words settled", "segments final"),
        strict=True,
    ):
        for (policy, figures), style in zip(evaluation.policies.items(), _styles(), strict=False):
            # What calls nothing stable stands in the legend all the same.
            told = name != "settle" or figures.settles
            delays = sorted(getattr(figures.delays, name)) if told else []
            share = [(number + 1) / len(delays) for number in range(len(delays))]
            axes.plot(delays, share, label=policy, color=style["color"])
        speech = "the segment's speech" if name == "final" else "the word"
        axes.set(title=title, xlabel=f"seconds after the end of {speech}", xlim=(-0.5, 4))
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.grid(alpha=0.3)
    _save(figure, panels[0], path)


def _plot_trade(path: Path, summary: dict[str, Any]) -> None:
    """What a policy pays for being soon: words that change, words that are wrong, and time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.2), layout="constrained")
    panels = wrong, unstable, costly = figure.subplots(1, 3)
    for (policy, figures), style in zip(summary["policies"].items(), _styles(), strict=False):
        delay, final = figures["word_delay"]["p50"], figures["final_delay"]["p50"]
        for axes, x, y in (
            (wrong, delay, figures["wer"]),
            (unstable, delay, figures["upwr"]),
            (costly, final, figures["cost"]),
        ):
            shown = None not in (x, y)
            axes.scatter([x] * shown, [y] * shown, s=60, alpha=0.8, label=policy, **style)
    wrong.set(title="wrong words against delay", ylabel="WER live")
    unstable.set(title="instability against delay", ylabel="UPWR")
    costly.set(title="cost against delay of finals", ylabel="CPU seconds for a second of speech")
    wrong.yaxis.set_major_formatter("{x:.1%}")
    for axes in panels:
        axes.set_xlabel(f"median {'final' if axes is costly else 'word'} delay, seconds")
        axes.set_xlim(0, axes.get_xlim()[1] * 1.1)
        axes.set_ylim(0, axes.get_ylim()[1] * 1.1)
        axes.grid(alpha=0.3)
    _save(figure, wrong, path)


def _styles() -> Iterator[dict[str, str]]:
    """A colour and a marker for each policy, the same in all plots."""
    return ({"color": f"C{number % 10}", "marker": "o^vsDXP*"[number % 8]} for number in count())


def _save(figure: Any, axes: Any, path: Path) -> None:
    """With one legend for all panels, below them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=7)
    figure.savefig(path)
