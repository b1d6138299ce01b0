"""A word n-gram model from text: ``python -m training.ngram TEXT... --output words.arpa.gz``.

Interpolated modified Kneser-Ney (Chen and Goodman, 1998), written as an ARPA file with backoff,
for `streamer --lm`; gzipped where the name ends so. TEXT is a file with one sentence a line, a
``.tsv`` with a column ``transcript``, or `bible` or `wordnet`, which Debian has.
"""

import argparse
import csv
import gzip
import io
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from training.command import run
from training.text import bible, held_out, lines, normalize, wordnet_definitions, wordnet_examples

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
NEVER = -99.0
"""How ARPA files write the logarithm of nothing."""
FEW_WORDS = 8_000
"""A model that knows fewer does more harm than good; measured, see docs/ctc.md."""

Grams = Counter[tuple[str, ...]]


def sentences(source: str, left_out: str = "") -> Iterator[str]:
    """The sentences of a source that is named as on the command line, in A to Z and apostrophe.

    What training keeps apart to be measured on is kept apart here too, from `bible` and `wordnet`;
    rows of a table with `left_out` in one of their fields are left out as well.
    """
    own = False
    texts: Iterable[str]
    if source == "bible":
        texts, own = bible(), True
    elif source == "wordnet":
        texts, own = (*wordnet_examples(), *wordnet_definitions()), True
    elif source.endswith(".tsv"):
        with Path(source).open(encoding="utf-8", newline="") as table:
            rows = csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE)
            texts = [
                row["transcript"]
                for row in rows
                if not left_out or not any(left_out in (field or "") for field in row.values())
            ]
    else:
        texts = lines(Path(source))
    for text in texts:
        if (sentence := normalize(text)) and not (own and held_out(sentence)):
            yield sentence


class Model:
    """An interpolated modified Kneser-Ney model.

    Args:
        texts: sentences, words parted by spaces.
        order: words of the longest n-grams.
        prune: for each order from 1 on, n-grams seen so often or less are left out; the last
            number counts for all orders above, and no single word is left out.
    """

    def __init__(self, texts: Iterable[str], order: int, prune: tuple[int, ...] = (0,)) -> None:
        counts = self._counts(texts, order)
        self.words = sorted({gram[0] for gram in counts[0]} | {UNKNOWN})
        self.logs: list[dict[tuple[str, ...], float]] = []
        """For each order, natural logarithms of probabilities."""
        self.backoffs: dict[tuple[str, ...], float] = {}
        for size, raw in enumerate(counts, start=1):
            adjusted = self._adjusted(raw, counts[size]) if size < order else raw
            probabilities = self._interpolated(adjusted)
            least = prune[min(size, len(prune)) - 1] if size > 1 else -1
            # A context of a longer n-gram is at least as frequent, so it stays too.
            self.logs.append({g: math.log(p) for g, p in probabilities.items() if raw[g] > least})
            self._balance(size)

    @staticmethod
    def _counts(texts: Iterable[str], order: int) -> list[Grams]:
        counts: list[Grams] = [Counter() for _ in range(order)]
        for text in texts:
            words = (START, *text.split(), END)
            for size in range(1, order + 1):
                counts[size - 1].update(zip(*(words[i:] for i in range(size)), strict=False))
        del counts[0][START,]
        return counts

    @staticmethod
    def _adjusted(raw: Grams, longer: Grams) -> Grams:
        """Before how many different words each n-gram occurs; at a beginning, how often."""
        before: Grams = Counter(gram[1:] for gram in longer)
        return Counter({g: raw[g] if g[0] == START else before[g] for g in raw})

    def _interpolated(self, counts: Grams) -> dict[tuple[str, ...], float]:
        """Discounted counts, and what that leaves shared out as the shorter n-grams are."""
        discounts = _discounts(counts)
        totals: Counter[tuple[str, ...]] = Counter()
        left: defaultdict[tuple[str, ...], float] = defaultdict(float)
        for gram, count in counts.items():
            totals[gram[:-1]] += count
            left[gram[:-1]] += discounts[min(count, 3)]
        found = {}
        for gram, count in counts.items():
            context = gram[:-1]
            lower = math.exp(self.log(gram[1:])) if context else 1 / len(self.words)
            share = left[context] * lower
            found[gram] = (count - discounts[min(count, 3)] + share) / totals[context]
        if not self.logs:
            found[UNKNOWN,] = left[()] / len(self.words) / totals[()]
        return found

    def _balance(self, size: int) -> None:
        """Set the backoffs of the contexts of n-grams of a size so that all sums up to one."""
        if size == 1:
            return
        kept: defaultdict[tuple[str, ...], float] = defaultdict(float)
        lower: defaultdict[tuple[str, ...], float] = defaultdict(float)
        for gram, log in self.logs[-1].items():
            kept[gram[:-1]] += math.exp(log)
            lower[gram[:-1]] += math.exp(self.log(gram[1:]))
        for context, sure in kept.items():
            self.backoffs[context] = math.log(max(1e-9, 1 - sure) / max(1e-9, 1 - lower[context]))

    def log(self, gram: tuple[str, ...]) -> float:
        """The natural logarithm of the probability of the last word after the others."""
        total = 0.0
        while (log := self.logs[len(gram) - 1].get(gram)) is None:
            total += self.backoffs.get(gram[:-1], 0.0)
            gram = gram[1:]
        return total + log

    def write(self, file: TextIO) -> None:
        """As an ARPA file."""
        tables: list[dict[tuple[str, ...], float]] = [dict(table) for table in self.logs]
        tables[0][START,] = NEVER * math.log(10)
        file.write("\\data\\\n")
        for size, table in enumerate(tables, start=1):
            file.write(f"ngram {size}={len(table)}\n")
        for size, table in enumerate(tables, start=1):
            file.write(f"\n\\{size}-grams:\n")
            for gram in sorted(table):
                line = f"{table[gram] / math.log(10):.3f}\t{' '.join(gram)}"
                if gram in self.backoffs:
                    line += f"\t{self.backoffs[gram] / math.log(10):.3f}"
                file.write(line + "\n")
        file.write("\n\\end\\\n")


def _discounts(counts: Grams) -> tuple[float, float, float, float]:
    """What is taken from counts of 0, 1, 2 and from 3 on."""
    seen = Counter(count for count in counts.values() if count <= 4)
    if not all(seen[count] for count in (1, 2, 3, 4)):  # too little text to tell
        return (0.0, 0.5, 0.75, 0.75)
    share = seen[1] / (seen[1] + 2 * seen[2])
    one, two, three = (n - (n + 1) * share * seen[n + 1] / seen[n] for n in (1, 2, 3))
    return (0.0, *(max(0.1, discount) for discount in (one, two, three)))  # type: ignore[return-value]


def main(argv: list[str] | None = None) -> None:
    """Estimate and write."""
    parser = argparse.ArgumentParser(prog="python -m training.ngram", description=__doc__)
    add = parser.add_argument
    add("text", nargs="+", metavar="TEXT", help="a file, `bible` or `wordnet`")
    add("--order", type=int, default=3, help="words of the longest n-grams")
    add("--prune", default="0,0,1", metavar="N,N,N", help="leave out n-grams seen so often or less")
    add("--leave-out", default="", metavar="TEXT", help="rows of a .tsv that hold this text")
    add("--output", type=Path, required=True, metavar="FILE", help="where the ARPA file goes")
    options = parser.parse_args(argv)
    texts: list[str] = []
    for source in options.text:
        before = len(texts)
        texts += sentences(source, options.leave_out)
        if len(texts) == before:
            package = {"bible": "bible-kjv", "wordnet": "wordnet-base"}.get(source)
            advice = f"install Debian's {package}" if package else "give another text"
            raise SystemExit(f"training.ngram: no sentences in {source}; {advice}")
    model = Model(texts, options.order, tuple(map(int, options.prune.split(","))))
    if options.output.suffix == ".gz":
        # Neither name nor time in it, so that the same text gives the same file.
        with (
            options.output.open("wb") as raw,
            gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed,
            io.TextIOWrapper(packed, encoding="utf-8") as file,
        ):
            model.write(file)
    else:
        with options.output.open("w", encoding="utf-8") as file:
            model.write(file)
    sizes = ", ".join(f"{len(table)} {size}-grams" for size, table in enumerate(model.logs, 1))
    print(f"{options.output}: {sizes}")
    if len(model.words) < FEW_WORDS:
        print(
            f"It knows {len(model.words)} words, too few for ordinary speech: other words will be "
            "misheard. Give more text, as `wordnet`; or take the words as --hotwords."
        )


if __name__ == "__main__":
    run(main)
