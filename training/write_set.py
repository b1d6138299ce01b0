"""Write a held-out set as `streamer eval` reads it: ``python -m training.write_set flite FOLDER``.

The folder gets a WAV file for each clip and ``clips.tsv``, which names them with their transcripts.
With ``--fresh`` no corpus is needed: other held-out sentences are said for it.
"""

import argparse
import csv
from pathlib import Path

import soundfile

from training.command import run
from training.prepare import HELD_OUT_SENTENCES, held_out_clips
from training.scoring import HELD_OUT, RECORDED, held_out_sets
from training.synthesis import SAMPLE_RATE


def main(argv: list[str] | None = None) -> None:
    """Write the files and say where the manifest is."""
    parser = argparse.ArgumentParser(prog="python -m training.write_set", description=__doc__)
    add = parser.add_argument
    add("set", choices=HELD_OUT)
    add("folder", type=Path)
    add("--corpus", type=Path, default=Path("training/data/corpus"))
    add("--limit", type=int, help="only so many clips")
    add("--unseen", action="store_true", help="every second clip: curves are fitted on the others")
    add("--fresh", type=int, metavar="N", help="N sentences that are in no set, said now")
    options = parser.parse_args(argv)
    if options.fresh:
        if options.set in RECORDED:
            raise SystemExit(
                f"training: {options.set} is recorded; only voices say fresh sentences"
            )
        name = f"fresh-{options.set}"
        clips = list(held_out_clips(options.set, name, HELD_OUT_SENTENCES, options.fresh))
    else:
        sets = held_out_sets(options.corpus, options.limit)
        if options.set not in sets:
            raise SystemExit(
                f"training: no held-out set {options.set!r} in {options.corpus}; "
                "training/README.md says how to make it"
            )
        clips = sets[options.set]
    options.folder.mkdir(parents=True, exist_ok=True)
    manifest = options.folder / "clips.tsv"
    with manifest.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(("file", "transcript"))
        for number, clip in enumerate(clips):
            if options.unseen and number % 2 == 0:
                continue
            name = f"{options.set}-{number:04}.wav"
            soundfile.write(options.folder / name, clip.samples, SAMPLE_RATE)
            table.writerow((name, clip.text))
    print(manifest)


if __name__ == "__main__":
    run(main)
