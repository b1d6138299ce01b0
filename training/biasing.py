"""What `--lm` and `--hotwords` gain: ``python -m training.biasing RECORDINGS``.

Every clip is heard offline, once, and read in several ways: greedily; with the language model; with
a list of hotwords; with both. The list is of the words in the transcripts that the language model
does not know; others, each of as many words that it knows and that do not occur, show the harm:
figures are their means.
`--vary` shows what another constant of `beam.json` would do: choose them on other
recordings (`--names`) than those that figures are given of.
"""

import argparse
import random
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from streamer.config import NO_LM, Settings
from streamer.core.beam import BeamDecoder
from streamer.core.ctc import FrameWord
from streamer.core.hotwords import Hotwords
from streamer.core.ngram import NGram
from streamer.core.resample import Resampler
from streamer.corpora.recordings import find_recordings
from streamer.evaluation.metrics import error_rates, scored
from streamer.evaluation.padding import in_quiet_room
from streamer.recognition import resolve
from streamer.recognition.checkpoint_files import LANGUAGE_MODEL, read_beam_rules
from streamer.recognition.decoder_files import read_arpa, read_hotwords
from streamer.sources.files import read_audio
from training.command import load_ctc, run

WRONG_LISTS = 4
"""Of words that nobody says: one list alone moves the error rate by a point either way."""
LETTERS = 4
"""Hotwords have so many at least."""

Read = Callable[[NDArray[np.float32]], list[FrameWord]]


def main(argv: list[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m training.biasing", description=__doc__)
    add = parser.add_argument
    add("recordings", type=Path, help="as for `streamer eval`")
    add("--lm", type=Path, metavar="FILE", help="another language model than the model's own")
    add("--model", default="embedded-sew")
    add("--names", type=re.compile, default="", help="only clips whose names match this")
    add("--limit", type=int, help="only so many clips, evenly from all")
    add("--vary", action="append", default=[], metavar="NAME=N,N", help="as model_weight=0.5,0.8")
    options = parser.parse_args(argv)

    checkpoint = resolve(options.model)
    recognizer = load_ctc(Settings(lm=NO_LM), checkpoint)
    clips = [clip for recording in find_recordings(options.recordings) for clip in recording.clips]
    clips = [clip for clip in clips if re.search(options.names, clip.path.name)]
    if options.limit:
        clips = clips[:: max(1, len(clips) // options.limit)][: options.limit]
    lm = options.lm or checkpoint.folder / LANGUAGE_MODEL
    model = read_arpa(lm, recognizer.vocabulary)
    rules = read_beam_rules(checkpoint.folder)
    references = [scored(clip.text) for clip in clips]
    emissions = []
    for clip in clips:
        samples, rate = read_audio(clip.path)
        resampler = Resampler(rate)
        samples = np.concatenate((resampler.push(samples), resampler.flush()))
        emissions.append(recognizer.log_probs(in_quiet_room(samples, recognizer.grid)))

    said = {word for reference in references for word in reference.split()}
    rare = sorted(word for word in said if word not in model and len(word) >= LETTERS)
    others = [w for w in model.words() if w not in said and len(w) >= LETTERS]
    random.Random(1).shuffle(others)
    wrong_words = [others[number::WRONG_LISTS][: len(rare)] for number in range(WRONG_LISTS)]

    def expected(words: Sequence[str]) -> Hotwords:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write("\n".join(words))
            file.flush()
            return read_hotwords(Path(file.name), recognizer.vocabulary)

    right, wrong = expected(rare), [expected(words) for words in wrong_words]
    heard_s = sum(map(len, emissions)) * recognizer.grid.hop / 16_000

    def show(name: str, *reads: Read) -> None:
        rows = []
        for read in reads:
            began = time.process_time()
            texts = [" ".join(word.text for word in read(emission)) for emission in emissions]
            spent = time.process_time() - began
            rates = error_rates(references, texts)
            found, all_ = _found(references, texts, set(rare))
            rows.append((rates.wer, rates.cer, found, spent / heard_s * 10))
        wer, cer, found, spent = np.mean(rows, axis=0)
        print(f"| {name} | {wer:.3f} | {cer:.3f} | {found:g} of {all_} | {spent:.3f} |", flush=True)

    def reader(lm: NGram | None, hotwords: Hotwords | None, **constants: float) -> BeamDecoder:
        typed: dict[str, Any] = {n: type(getattr(rules, n))(v) for n, v in constants.items()}
        changed = replace(rules, **typed)
        return BeamDecoder(recognizer.vocabulary, lm, hotwords, rules=changed)

    words = sum(len(reference.split()) for reference in references)
    print(f"{recognizer.name}: {len(clips)} clips, {words} words; {len(rare)} hotwords\n")
    print("| read | WER | CER | hotwords found | CPU s for 10 s |\n| --- | --- | --- | --- | --- |")
    show("greedily", recognizer.decoder)
    show("hotwords", reader(None, right))
    show("hotwords that do not occur", *(reader(None, words) for words in wrong))
    show("lm", reader(model, None))
    show("lm, hotwords", reader(model, right))
    show("lm, hotwords that do not occur", *(reader(model, words) for words in wrong))
    for choice in options.vary:
        name, _, values = choice.partition("=")
        for value in map(float, values.split(",")):
            show(f"lm, hotwords, {name} {value:g}", reader(model, right, **{name: value}))
            if name == "hotword_bonus":
                show(f"hotwords, {name} {value:g}", reader(None, right, **{name: value}))
                for lm, of in ((None, ""), (model, "lm, ")):
                    harmed = (reader(lm, words, **{name: value}) for words in wrong)
                    show(f"{of}… that do not occur, {value:g}", *harmed)


def _found(references: Sequence[str], texts: Sequence[str], names: set[str]) -> tuple[int, int]:
    """Of the places where one of `names` is said, those at which it is written; and all."""
    found = said = 0
    for reference, text in zip(references, texts, strict=True):
        truth = reference.split()
        places = {place for place, word in enumerate(truth) if word in names}
        said += len(places)
        blocks = Levenshtein.opcodes(truth, text.split())
        for block in blocks:
            if block.tag == "equal":
                found += len(places.intersection(range(block.src_start, block.src_end)))
    return found, said


if __name__ == "__main__":
    run(main)
