"""Write a held-out set as `streamer eval` reads it: ``python -m training.write_set flite FOLDER``.

The folder gets a WAV file for each clip and ``clips.tsv``, which names them with their transcripts.
"""

import argparse
import csv
from pathlib import Path

import soundfile

from training.command import run
from training.scoring import HELD_OUT, held_out_sets
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
    options = parser.parse_args(argv)
    sets = held_out_sets(options.corpus, options.limit)
    if options.set not in sets:
        raise SystemExit(
            f"training: no held-out set {options.set!r} in {options.corpus}; "
            "training/README.md says how to make it"
        )
    options.folder.mkdir(parents=True, exist_ok=True)
    manifest = options.folder / "clips.tsv"
    with manifest.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(("file", "transcript"))
        for number, clip in enumerate(sets[options.set]):
            if options.unseen and number % 2 == 0:
                continue
            name = f"{options.set}-{number:04}.wav"
            soundfile.write(options.folder / name, clip.samples, SAMPLE_RATE)
            table.writerow((name, clip.text))
    print(manifest)


if __name__ == "__main__":
    run(main)
