"""What `--hotwords` gains with the default model: ``python -m training.writer_biasing RECORDINGS``.

Every clip is written whole: without hotwords; with the names that are said in all of them; with
names that nobody says, of `--others`, which show the harm. Names are words of transcripts that
the embedded language model finds rare and WordNet has not. Choose `--bonus` on other speakers
(`--half`) than those that figures are given of.
"""

import argparse
import random
import re
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from streamer.config import DEFAULT_MODEL, EMBEDDED_MODEL, Settings
from streamer.core.ngram import NGram
from streamer.core.resample import Resampler
from streamer.corpora.layouts import Clip
from streamer.corpora.recordings import find_recordings
from streamer.evaluation.metrics import error_rates, scored
from streamer.recognition import resolve
from streamer.recognition.checkpoint_files import LANGUAGE_MODEL
from streamer.recognition.decoder_files import read_arpa
from streamer.recognition.moonshine import Moonshine
from streamer.recognition.writer_hotwords import BONUS, Phrases
from streamer.sources.files import read_audio
from training.command import load_ctc, run

WORDNET = Path("/usr/share/wordnet")
"""Of the Debian package `wordnet-base`."""
RARE = -12.5
"""Nats that a name has at most as a word by itself."""
LETTERS = 4
"""Names have so many at least."""


def main(argv: list[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m training.writer_biasing", description=__doc__)
    add = parser.add_argument
    add("recordings", type=Path, help="as for `streamer eval`")
    add("--others", type=Path, help="recordings whose names nobody says in those")
    add("--names", type=re.compile, default="", help="only clips whose names match this")
    add("--half", choices=("0", "1"), help="only clips of this half of the speakers")
    add("--limit", type=int, help="only so many clips, evenly from all")
    add("--unsaid", type=int, default=200, help="so many names of `--others` (default 200)")
    add("--any", action="store_true", help="also clips in which no name is said")
    add("--bonus", type=float, action="append", help=f"nats for a token (default {BONUS})")
    options = parser.parse_args(argv)

    checkpoint = resolve(EMBEDDED_MODEL)
    vocabulary = load_ctc(Settings(model=EMBEDDED_MODEL)).vocabulary
    model = read_arpa(checkpoint.folder / LANGUAGE_MODEL, vocabulary)
    known = _wordnet()
    clips = [clip for clip in _clips(options.recordings) if options.names.search(str(clip.path))]
    if options.half:
        clips = [clip for clip in clips if _half(clip) == int(options.half)]
    texts = [scored(clip.text) for clip in clips]
    spoken = _names(texts, model, known)
    if not options.any:
        clips = [
            clip for clip, text in zip(clips, texts, strict=True) if spoken & set(text.split())
        ]
    if options.limit:
        clips = clips[:: max(1, len(clips) // options.limit)][: options.limit]
    references = [scored(clip.text) for clip in clips]
    said = set(" ".join(references).split())
    names = sorted(spoken & said)
    elsewhere = _names([scored(clip.text) for clip in _clips(options.others)], model, known)
    unsaid = sorted(elsewhere - said)
    random.Random(1).shuffle(unsaid)

    writer = Moonshine(resolve(DEFAULT_MODEL).folder)
    sounds = [_at_16_khz(clip.path) for clip in clips]
    seconds = sum(map(len, sounds)) / 16_000
    words = len(" ".join(references).split())
    print(f"{len(clips)} clips, {words} words, {seconds / 60:.1f} minutes; {len(names)} names\n")
    print("| hotwords | WER | of other words | names found | unsaid, of 10,000 words | CPU-s/s |")
    print("| --- | --- | --- | --- | --- | --- |")

    def show(title: str, hotwords: Sequence[str], bonus: float = BONUS) -> None:
        listed = [word.capitalize() for word in hotwords]
        writer.phrases = Phrases(listed, writer._tokenizer, bonus=bonus) if listed else None
        began = time.process_time()
        texts = [scored(writer.write(samples).text) for samples in sounds]
        spent = (time.process_time() - began) / seconds
        found, of_all, others = _counted(references, texts, set(names))
        unsaid = sum(
            len([word for word in text.split() if word in set(hotwords) - set(truth.split())])
            for truth, text in zip(references, texts, strict=True)
        )
        print(
            f"| {title} | {error_rates(references, texts).wer:.4f} | {others:.4f} "
            f"| {found} of {of_all} | {unsaid / words * 10_000:.1f} | {spent:.3f} |",
            flush=True,
        )

    show("none", [])
    for bonus in options.bonus or [BONUS]:
        show(f"said, {bonus:g}", names, bonus)
        if unsaid:
            show(f"unsaid, {bonus:g}", unsaid[: options.unsaid], bonus)


def _clips(recordings: Path | None) -> list[Clip]:
    if recordings is None:
        return []
    return [clip for recording in find_recordings(recordings) for clip in recording.clips]


def _half(clip: Clip) -> int:
    speaker = clip.path.stem.split("-")[0]
    return zlib.crc32(speaker.encode()) % 2


def _wordnet() -> set[str]:
    return {
        line.split(" ", 1)[0].upper()
        for file in WORDNET.glob("index.*")
        for line in file.read_text(errors="replace").splitlines()
    }


def _names(texts: Sequence[str], model: NGram, known: set[str]) -> set[str]:
    words = {word for text in texts for word in text.split()}
    return {
        word
        for word in words
        if len(word) >= LETTERS
        and "'" not in word
        and model.score("", word)[0] < RARE
        and not any(
            form in known
            for form in (
                word,
                *(word[:-count] for count in (1, 2, 3)),
                *(word[:-count] + end for count, end in ((2, "E"), (3, "E"), (3, "Y"))),
            )
        )
    }


def _at_16_khz(path: Path) -> NDArray[np.float32]:
    samples, rate = read_audio(path)
    resampler = Resampler(rate)
    return np.concatenate((resampler.push(samples), resampler.flush()))


def _counted(
    references: Sequence[str], texts: Sequence[str], names: set[str]
) -> tuple[int, int, float]:
    """Places of names where they are written, all of these, and the error rate of other words."""
    found = said = errors = others = 0
    for reference, text in zip(references, texts, strict=True):
        truth = reference.split()
        places = {place for place, word in enumerate(truth) if word in names}
        said += len(places)
        others += len(truth) - len(places)
        for block in Levenshtein.opcodes(truth, text.split()):
            met = places.intersection(range(block.src_start, block.src_end))
            if block.tag == "equal":
                found += len(met)
                continue
            wide = max(block.src_end - block.src_start, block.dest_end - block.dest_start)
            errors += wide - len(met)
    return found, said, errors / max(others, 1)


if __name__ == "__main__":
    run(main)
