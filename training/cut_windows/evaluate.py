"""Adapters side by side on growing windows: ``python -m training.cut_windows.evaluate SPEECH``.

Clips that nothing was tuned on are heard as previews are: every 0.32 s, with 0.3 s of zeros behind.
What was said is what the published weights write of the whole clip, as the live path's finals do,
with the times of forced alignment. A machine that takes no time is assumed. What was computed is
kept in a folder and not computed again.

    unsaid    words of a window beyond those that had begun at its end
    missing   words that had ended 0.1 s before its end, less those of the window
    loops     windows whose text went round in a loop, of a hundred
    UPWR      words shown, up to the first with a probability under one half (`--show`), that the
              final does not have at that place, per final word
    delay     seconds from a word's end to the first window that shows it: median, 95th percentile
    WER       of whole clips with zeros behind, against the transcript
    shorter   whole clips of which fewer words are written than in the final, of a hundred
    noise     words a minute of made noise and music, in windows of 3 s
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import asdict, dataclass, field
from itertools import chain, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from streamer.evaluation.delays import TimedWord, timed_words
from streamer.evaluation.metrics import error_rates, scored
from streamer.messages import SAMPLE_RATE
from streamer.recognition.checkpoint_files import EMBEDDED_FOLDER
from streamer.recognition.moonshine import Moonshine
from streamer.recognition.moonshine_files import CUT_ADAPTER, installed_folder
from training.command import run
from training.cut_windows.label import LONGEST_S, Labeller, read_16k, read_table
from training.cut_windows.windows import MARGIN_S, TAIL
from training.noise import pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from streamer.messages import Samples
    from streamer.recognition.moonshine import Writing

SETS = ("eval.tsv:libri_test_other:40", "train.tsv:ljspeech_part1:20")
_STEP, _FIRST = 32 * SAMPLE_RATE // 100, 96 * SAMPLE_RATE // 100
_SLIDE_AFTER_S, _SLIDE_KEEP_S = 6.0, 2.5
_NOISE_WINDOW = 3 * SAMPLE_RATE


@dataclass(frozen=True)
class Said:
    """A clip, and what is taken for said in it."""

    seconds: float
    transcript: str
    words: list[TimedWord]
    """Of the final text, as scored."""


@dataclass(frozen=True)
class Shown:
    """What was written of a window."""

    end_s: float
    first: int
    """The place of its first word in the final text: above 0 where the window had slid."""
    words: list[tuple[str, float]]
    """As scored, with probabilities."""
    loop: bool


@dataclass
class Figures:
    """Sums over windows, words and clips; see the module's text."""

    show: float = 0.5
    """The least probability of a word that is shown."""
    windows: int = 0
    unsaid: int = 0
    missing: int = 0
    loops: int = 0
    words: int = 0
    unstable: int = 0
    delays: list[float] = field(default_factory=list)
    clips: int = 0
    shorter: int = 0
    transcripts: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def take(self, said: Said, shown: Sequence[Shown], whole: str) -> None:
        """Add a clip."""
        final = [word.text for word in said.words]
        seen = [said.seconds] * len(final)
        unstable = set()
        for window in reversed(shown):
            end_s, here = window.end_s, window.first + len(window.words)
            self.windows += 1
            self.loops += window.loop
            self.unsaid += max(0, here - sum(word.start < end_s for word in said.words))
            self.missing += max(0, sum(word.end <= end_s - MARGIN_S for word in said.words) - here)
            sure = takewhile(lambda word: word[1] >= self.show, window.words)
            for place, (word, _) in enumerate(sure, window.first):
                if final[place : place + 1] == [word]:
                    seen[place] = end_s
                else:
                    unstable.add((place, word))
        self.words += len(final)
        self.unstable += len(unstable)
        self.delays += [at - word.end for at, word in zip(seen, said.words, strict=True)]
        self.clips += 1
        self.shorter += len(scored(whole).split()) < len(final)
        self.transcripts.append(scored(said.transcript))
        self.texts.append(scored(whole))

    def row(self) -> dict[str, float]:
        """What is printed."""
        p50, p95 = np.percentile(self.delays, (50, 95))
        return {
            "unsaid": self.unsaid / self.windows,
            "missing": self.missing / self.windows,
            "loops": 100 * self.loops / self.windows,
            "UPWR": self.unstable / self.words,
            "delay p50": float(p50),
            "p95": float(p95),
            "WER": error_rates(self.transcripts, self.texts).wer,
            "shorter": 100 * self.shorter / self.clips,
        }


class Known:
    """What was computed, by name, kept in a file of which an interruption leaves the beginning."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().split("\n") if path.is_file() else []
        self._values = dict(map(json.loads, lines[:-1]))
        path.write_text("".join(line + "\n" for line in lines[:-1]))  # not half a line
        self._path = path

    def get(self, name: str, compute: Callable[..., Any], *arguments: Any) -> Any:
        """The value of a name, of JSON, computed the first time."""
        if name not in self._values:
            line = json.dumps((name, compute(*arguments)))
            with self._path.open("a") as stream:
                stream.write(line + "\n")
            self._values[name] = json.loads(line)[1]
        return self._values[name]


def clips_of(speech: Path, chosen: str) -> Iterator[tuple[str, str]]:
    """Files and transcripts of a set, `TABLE:FOLDER:COUNT`, spread over its table."""
    table, folder, count = chosen.split(":")
    rows = [
        (row["file"], row["transcript"])
        for row in read_table(speech / table)
        if row["file"].split("/")[1] == folder and float(row["seconds"]) <= LONGEST_S
    ]
    most = min(int(count), len(rows))
    return (rows[index * len(rows) // most] for index in range(most))


def windows_of(said: Said, *, slide: bool) -> Iterator[tuple[int, int, int]]:
    """First word, start and end of each window, the last two in samples.

    Windows that slide begin between two words once they would be longer than previews are.
    """
    starts = [(0, 0.0)]
    starts += [
        (place, (before.end + after.start) / 2)
        for place, (before, after) in enumerate(zip(said.words, said.words[1:], strict=False), 1)
    ]
    first, start_s = starts[0]
    for end in range(_FIRST, round(said.seconds * SAMPLE_RATE), _STEP):
        end_s = end / SAMPLE_RATE
        if slide and end_s - start_s > _SLIDE_AFTER_S:
            first, start_s = min(starts, key=lambda one: abs(one[1] - end_s + _SLIDE_KEEP_S))
        yield first, round(start_s * SAMPLE_RATE), end


def listen(writer: Moonshine, samples: Samples, said: Said, slide: bool) -> dict[str, Any]:
    """What is shown of a clip's windows, and written of the whole clip."""
    shown, before, draft = [], 0, tuple[int, ...]()
    for first, start, end in windows_of(said, slide=slide):
        writing = _write(writer, samples[start:end], draft if first == before else ())
        before, draft = first, writing.tokens
        words = [
            (part, word.probability) for word in writing.words for part in scored(word.text).split()
        ]
        shown.append(asdict(Shown(end / SAMPLE_RATE, first, words, writing.ended == "loop")))
    return {"shown": shown, "whole": _write(writer, samples).text}


def words_on_noise(writer: Moonshine, seconds: float) -> float:
    """Words a minute."""
    sounds = chain(pieces("noise", seconds / 2), pieces("music", seconds / 2))
    heard = [
        len(_write(writer, sound[start : start + _NOISE_WINDOW]).words)
        for sound in sounds
        for start in range(0, len(sound) - _NOISE_WINDOW + 1, _NOISE_WINDOW)
    ]
    return sum(heard) / (len(heard) * _NOISE_WINDOW / SAMPLE_RATE / 60)


def _write(writer: Moonshine, samples: Samples, draft: Sequence[int] = ()) -> Writing:
    tailed = np.concatenate((samples, np.zeros(TAIL, np.float32)))
    return writer.write(tailed, draft, cut=True)


def _said(labeller: Labeller, samples: Samples) -> dict[str, Any]:
    words = labeller.write(samples).words
    times = labeller.times([word.text for word in words], samples)
    timed = chain.from_iterable(
        timed_words(word.text, start, end) for word, (start, end) in zip(words, times, strict=True)
    )
    return {"seconds": len(samples) / SAMPLE_RATE, "words": [asdict(word) for word in timed]}


def main(argv: list[str] | None = None) -> None:
    """Print a table for each set, a line for each adapter."""
    parser = argparse.ArgumentParser(
        prog="python -m training.cut_windows.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("speech", type=Path, help="folder of the tables")
    add("--adapter", action="append", help="a file, `none` or `shipped` (default: these two)")
    add("--set", action="append", metavar="TABLE:FOLDER:COUNT", help=f"default: {' '.join(SETS)}")
    add("--slide", action="store_true", help="windows begin anew once they are longer than 6 s")
    add("--show", type=float, default=0.5, metavar="0-1", help="least probability of a shown word")
    add("--noise", type=float, default=120.0, metavar="SECONDS", help="of made sounds")
    add("--results", type=Path, default=Path("training/data/cut_windows/evaluation"))
    options = parser.parse_args(argv)
    labeller = Labeller()
    finals = Known(options.results / "finals.jsonl")
    writers = {}
    for name in options.adapter or ["none", "shipped"]:
        path = EMBEDDED_FOLDER / CUT_ADAPTER if name == "shipped" else Path(name)
        adapter = None if name == "none" else path
        digest = hashlib.sha256(adapter.read_bytes()).hexdigest()[:12] if adapter else name
        known = Known(options.results / f"{digest}{'-sliding' if options.slide else ''}.jsonl")
        writers[name] = Moonshine(installed_folder(), adapter=adapter), known
    noise = {
        name: known.get(f"{options.noise:g} s of noise", words_on_noise, writer, options.noise)
        for name, (writer, known) in writers.items()
    }
    for chosen in options.set or SETS:
        figures = {name: Figures(options.show) for name in writers}
        for file, transcript in clips_of(options.speech, chosen):
            samples = read_16k(options.speech / file)
            row = finals.get(file, _said, labeller, samples)
            words = [TimedWord(**word) for word in row["words"]]
            said = Said(row["seconds"], transcript, words)
            for name, (writer, known) in writers.items():
                heard = known.get(file, listen, writer, samples, said, options.slide)
                figures[name].take(said, [Shown(**one) for one in heard["shown"]], heard["whole"])
        _print(chosen, {name: one.row() | {"noise": noise[name]} for name, one in figures.items()})


def _print(chosen: str, rows: dict[str, dict[str, float]]) -> None:
    columns = list(next(iter(rows.values())))
    print(f"\n| {chosen} | {' | '.join(columns)} |\n|{' --- |' * (len(columns) + 1)}")
    for name, row in rows.items():
        print(f"| {name} | {' | '.join(f'{row[column]:.3g}' for column in columns)} |", flush=True)


if __name__ == "__main__":
    run(main)
