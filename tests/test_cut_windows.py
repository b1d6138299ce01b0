"""Teaching the writer where audio ends: labels, windows, a killed run, the comparison."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import RECORDINGS

from streamer.errors import ModelError
from streamer.evaluation.delays import TimedWord
from streamer.recognition.moonshine import Moonshine
from streamer.recognition.moonshine_files import TOKENIZER, Tokenizer, installed_folder
from training.cut_windows import adapters, evaluate, label, tune
from training.cut_windows.adapters import BEGIN, END
from training.cut_windows.evaluate import Figures, Known, Said, Shown, windows_of
from training.cut_windows.label import Labels, Row
from training.cut_windows.windows import (
    TAIL,
    Clip,
    Draws,
    Word,
    punctuation_of,
    read_labels,
    split,
    target,
    window,
)

FULL_STOP = 29889


@pytest.fixture(scope="module")
def speech(tmp_path_factory) -> Path:
    """A folder of recordings with a train.tsv; one speaker is among those to look at."""
    folder = tmp_path_factory.mktemp("speech")
    (folder / "train" / "some").mkdir(parents=True)
    with (RECORDINGS / "clips.tsv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))[:4]
    lines = ["file\ttranscript\tseconds\tspeaker"]
    for index, row in enumerate(rows):
        source = RECORDINGS / row["file"]
        shutil.copy(source, folder / "train" / "some")
        seconds = soundfile.info(source).duration
        speaker = f"reader {index}" if index else other_speaker()
        lines.append(f"train/some/{source.name}\t{row['transcript']}\t{seconds}\t{speaker}")
    (folder / "train.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def other_speaker() -> str:
    """Somebody whom nothing is learned from."""
    clip = Clip(np.zeros(0, np.float32), (), ())
    names = (f"name {number}" for number in range(1000))
    return next(name for name in names if split([replace(clip, speaker=f"some/{name}")])[1])


@pytest.fixture(scope="module")
def labels(speech, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    label.main([str(speech), "--labels", str(folder), "--processes", "1"])
    return folder


@pytest.fixture(scope="module")
def clips(labels) -> list[Clip]:
    return read_labels(labels)


@pytest.fixture(scope="module")
def punctuation() -> frozenset[int]:
    return punctuation_of(Tokenizer(installed_folder() / TOKENIZER))


def sentence(seconds: float = 4.0) -> Clip:
    """Three words of one, two and one tokens and a full stop; a pause before the last."""
    words = Word(1, 0.5, 1.0), Word(2, 1.1, 1.6), Word(2, 2.4, 3.0)
    samples = np.arange(round(seconds * 16_000), dtype=np.float32)
    return Clip(samples, (400, 500, 501, 600, FULL_STOP), words, "somebody")


# --- labels -------------------------------------------------------------------------------------


def test_a_label_is_what_the_writer_writes_with_the_times_of_its_words(clips):
    assert len(clips) >= 3
    for clip in clips:
        assert sum(word.tokens for word in clip.words) == len(clip.tokens)
        ends = [word.end for word in clip.words]
        assert ends == sorted(ends)
        assert 0 <= ends[0] < ends[-1] <= clip.seconds + 0.2
        assert 0.01 < np.abs(clip.sound()).max() <= 1


def test_labelling_again_labels_nothing_anew(speech, labels):
    before = (labels / "labels.jsonl").read_bytes(), (labels / "audio.pcm").read_bytes()
    label.main([str(speech), "--labels", str(labels), "--processes", "1"])
    assert before == ((labels / "labels.jsonl").read_bytes(), (labels / "audio.pcm").read_bytes())


def test_a_clip_that_was_half_written_is_labelled_again(tmp_path):
    pcm = np.arange(1000, dtype=np.int16)
    known = {"text": "Yes.", "tokens": [1], "words": [[1, 0.0, 0.1]]}
    labels = Labels(tmp_path)
    labels.add(Row("a", "s", "yes"), known, pcm)
    labels.add(Row("b", "s", "no"), None, pcm)
    whole = (tmp_path / "labels.jsonl").read_bytes()
    for name, rest in (("labels.jsonl", b'{"file": "c", "sam'), ("audio.pcm", b"1234567")):
        with (tmp_path / name).open("ab") as stream:
            stream.write(rest)
    again = Labels(tmp_path)
    assert (again.seen, again.kept, again.samples) == ({"a", "b"}, 1, 1000)
    assert (tmp_path / "labels.jsonl").read_bytes() == whole
    assert (tmp_path / "audio.pcm").stat().st_size == 2000


# --- windows ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cut_s", "tokens"),
    [
        (0.4, ()),
        (1.05, ()),  # the first word has only just ended
        (1.15, (400,)),
        (1.65, (400,)),
        (1.75, (400, 500, 501)),
        (3.05, (400, 500, 501)),
        (3.2, (400, 500, 501, 600)),  # no full stop before it is known that nothing follows
        (3.6, (400, 500, 501, 600, FULL_STOP)),
        (4.0, (400, 500, 501, 600, FULL_STOP)),
    ],
)
def test_the_target_is_the_words_that_ended_before_the_cut(cut_s, tokens, punctuation):
    assert target(sentence(), cut_s, punctuation) == (*tokens, END)


def test_what_lies_before_the_window_is_not_written(punctuation):
    assert target(sentence(), 1.75, punctuation, first=1) == (500, 501, END)
    assert target(sentence(), 4.0, punctuation, first=2) == (600, FULL_STOP, END)


def test_a_whole_clip_is_all_of_its_words_although_the_last_has_just_ended(punctuation):
    one = window(sentence(3.02), 3.02, punctuation)
    assert one.tokens == (400, 500, 501, 600, FULL_STOP, END)
    assert len(one.samples) == round(3.02 * 16_000) + TAIL
    assert not one.samples[-TAIL:].any()


def test_windows_are_drawn_by_the_seed_alone(clips, punctuation):
    first, again = (Draws(clips, punctuation, (0, 7)) for _ in range(2))
    other = Draws(clips, punctuation, (0, 8))
    drawn = [first() for _ in range(40)]
    assert all(
        np.array_equal(one.samples, same.samples) and one.tokens == same.tokens
        for one, same in zip(drawn, (again() for _ in range(40)), strict=True)
    )
    assert [one.tokens for one in drawn] != [other().tokens for _ in range(40)]
    assert all(np.isfinite(one.samples).all() and one.tokens[-1] == END for one in drawn)


def test_a_window_that_begins_at_a_pause_has_the_words_behind_it(punctuation):
    draws = Draws([sentence()], punctuation, (1,), whole=0, tailed=0, inside=1, far=0, silent=0)
    drawn = [draws() for _ in range(60)]
    assert {one.tokens[0] for one in drawn if one.inside} == {500, 600, END}
    # The sound is its own sample's number, behind some faint noise.
    starts = {round(float(one.samples[one.samples > 2][0]), -2) for one in drawn}
    assert starts == {16_800, 32_000}


def test_noise_has_no_words(punctuation):
    draws = Draws([sentence()], punctuation, (2,), silent=1)
    assert all(draws().tokens == (END,) for _ in range(5))


def test_windows_of_a_batch_are_equally_long(clips, punctuation):
    batches = Draws(clips, punctuation, (3,)).batches(60, seconds=20)
    assert sum(map(len, batches)) == 60
    for batch in batches:
        (length,) = {len(one.samples) for one in batch}
        assert len(batch) * length <= 20 * 16_000 or len(batch) == 1


# --- the model and its changes ------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    return adapters.base_model(installed_folder())


def test_the_published_weights_write_the_same_in_torch(model, clips):
    right = total = 0
    for clip in clips[:2]:
        with torch.no_grad():
            hidden = model.model.encoder(torch.from_numpy(clip.sound())[None]).last_hidden_state
            given = torch.tensor([[BEGIN, *clip.tokens]])
            states = model.model.decoder(input_ids=given, encoder_hidden_states=hidden)
            best = model.proj_out(states.last_hidden_state)[0].argmax(-1)
        right += int((best == torch.tensor([*clip.tokens, END])).sum())
        total += len(best)
    assert right > 0.95 * total


def test_an_adapter_is_read_as_it_was_written(tmp_path):
    linear = torch.nn.Linear(6, 5, bias=False)
    changes = {"some.layer": adapters.LowRank(linear, 2)}
    torch.nn.init.normal_(changes["some.layer"].b)
    adapters.save(changes, tmp_path / "one.safetensors", steps=3)
    assert adapters.rank_of(tmp_path / "one.safetensors") == 2
    again = {"some.layer": adapters.LowRank(linear, 2)}
    adapters.load(again, tmp_path / "one.safetensors")
    x = torch.randn(3, 6)
    assert torch.allclose(changes["some.layer"](x), again["some.layer"](x), atol=1e-2)
    assert not torch.allclose(linear(x), again["some.layer"](x), atol=1e-2)
    with adapters.published(again):
        assert torch.equal(linear(x), again["some.layer"](x))
    with pytest.raises(ModelError, match=r"some\.layer"):
        adapters.load({}, tmp_path / "one.safetensors")


# --- tuning -------------------------------------------------------------------------------------


def rows_of(run: Path) -> list[dict]:
    log = run / "log.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []


def test_a_run_that_was_killed_goes_on_to_an_adapter_that_the_writer_takes(
    labels, clips, tmp_path, monkeypatch
):
    run, learn = tmp_path / "run", tune.Run._learn

    def killed_at_the_fourth_step(self, *arguments):
        if self._step == 3:
            raise MemoryError
        return learn(self, *arguments)

    threads = torch.get_num_threads()
    options = ["--save-every", "0", "--look-clips", "1", "--batch-seconds", "8", "--rate", "0.004"]
    options += ["--labels", str(labels), "--processes", "1", "--minutes", "9"]
    with monkeypatch.context() as patch:
        patch.setattr(tune.Run, "_learn", killed_at_the_fourth_step)
        with pytest.raises(MemoryError):
            tune.main(["--run", str(run), *options])
    killed = rows_of(run)[-1]
    assert killed["step"] == 3

    minutes = (killed["spent_s"] + 1) / 60
    tune.main(["--run", str(run), "--resume", "--minutes", str(minutes)])
    torch.set_num_threads(threads)
    rows = rows_of(run)
    steps = [row["step"] for row in rows]
    assert steps == sorted(steps)
    assert 3 < steps[-1] < 100
    assert all(np.isfinite(row["loss"]) for row in rows if "loss" in row)
    assert sum(rows[-1]["cut"].values()) == pytest.approx(1, abs=0.01)

    taught = Moonshine(installed_folder(), adapter=run / "adapter.safetensors")
    sound = clips[0].sound()[: 2 * 16_000]
    assert taught.write(sound, cut=True).probabilities != taught.write(sound).probabilities
    with pytest.raises(SystemExit, match="--resume"):
        tune.main(["--run", str(run)])


def test_there_must_be_something_to_resume(tmp_path):
    with pytest.raises(SystemExit, match="nothing to resume"):
        tune.main(["--run", str(tmp_path), "--resume"])


# --- comparing ----------------------------------------------------------------------------------

SAID = Said(
    10.0,
    "One two three.",
    [TimedWord("ONE", 0.5, 1.0), TimedWord("TWO", 1.2, 1.5), TimedWord("THREE", 2.0, 8.0)],
)


def test_words_are_counted_against_what_had_been_said():
    figures = Figures()
    shown = [
        Shown(1.3, 0, [("ONE", 0.9), ("TOO", 0.6), ("MANY", 0.9)], False),  # one not begun
        Shown(1.7, 0, [("ONE", 0.9)], False),  # one too few
        Shown(2.1, 1, [("TWO", 0.7), ("THREE", 0.4)], True),  # begins behind the first word
    ]
    figures.take(SAID, shown, "one two")
    row = figures.row()
    assert (figures.unsaid, figures.missing, figures.loops) == (1, 1, 1)
    assert row["UPWR"] == pytest.approx(2 / 3)  # TOO and MANY; THREE is too doubtful to show
    assert figures.delays == pytest.approx([0.3, 0.6, 2.0])
    assert row["WER"] == pytest.approx(1 / 3)
    assert row["shorter"] == 100


def test_windows_grow_or_slide_to_between_two_words():
    growing = list(windows_of(SAID, slide=False))
    assert growing[0] == (0, 0, 15_360)
    assert {start for _, start, _ in growing} == {0}
    sliding = list(windows_of(SAID, slide=True))
    assert [end for *_, end in sliding] == [end for *_, end in growing]
    slid = [(first, start) for first, start, end in sliding if end > 6 * 16_000]
    assert set(slid) == {(2, 28_000)}  # between the second word and the third


def test_only_what_was_half_written_is_computed_again(tmp_path):
    path = tmp_path / "known.jsonl"
    assert Known(path).get("a", str.upper, "one") == "ONE"
    with path.open("a") as stream:
        stream.write('["b", "TW')
    assert Known(path).get("b", str.upper, "two") == "TWO"
    assert Known(path).get("a", str.upper, "other") == "ONE"
    assert Known(path).get("b", str.upper, "other") == "TWO"


def test_adapters_are_compared_in_a_table(speech, tmp_path, capsys):
    options = ["--set", "train.tsv:some:1", "--noise", "10", "--results", str(tmp_path)]
    evaluate.main([str(speech), *options])
    *_, _, none, shipped = capsys.readouterr().out.splitlines()
    assert none.startswith("| none |")
    assert shipped.startswith("| shipped |")
    assert len(list(tmp_path.glob("*.jsonl"))) == 3
