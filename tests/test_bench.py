"""`streamer bench` on the real parts, for a few seconds."""

import json

import pytest

from streamer.config import Settings
from streamer.evaluation import bench


@pytest.fixture(scope="module")
def figures(recognizer):
    """What `--json` prints."""
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        patch.setattr(bench, "FILE_MINUTES", 1)
        patch.setattr(bench, "WINDOWS_S", (1, 2))
        patch.setattr("builtins.print", printed.append)
        bench.bench(Settings(model="embedded-sew"), minutes=0.1, random_model=False, as_json=True)
    [line] = printed
    return json.loads(line)


def test_everything_is_measured(figures):
    assert figures["model"] == "embedded-sew"
    assert set(figures["windows"]) == {"1 s", "2 s"}
    for part in ("startup", "bound", "file", "pipeline", "live"):
        assert all(isinstance(value, int | float) for value in figures[part].values()), part
    assert figures["live"]["seconds"] == pytest.approx(6, abs=0.1)


def test_files_are_compared_with_the_pipeline_of_the_same_run(figures):
    ours = figures["file"]["real_time_factor"]
    assert ours > 0
    for batch in bench.BATCHES:
        theirs = figures["pipeline"][f"real_time_factor_batch_{batch}"]
        assert theirs > 0
        assert figures["pipeline"][f"times_ours_batch_{batch}"] == pytest.approx(theirs / ours)


def test_the_share_of_the_bound_is_of_the_audio_that_was_recognized(figures):
    bound, file = figures["bound"], figures["file"]
    least = bound["gflop_per_s_of_audio"] / bound["matrix_gflop_per_s"]
    assert bound["real_time_factor"] == pytest.approx(least)
    assert 0 < file["utterances_s"] <= file["seconds"] + 1
    took = file["real_time_factor"] * file["seconds"]
    assert file["share_of_bound"] == pytest.approx(least * file["utterances_s"] / took)
    assert 0 < file["share_of_bound"] < 2


def test_the_table_names_every_figure(figures, capsys):
    bench._print(figures)
    told = capsys.readouterr().out
    for name in ("gflop per s of audio", "share of bound", "times ours batch 8", "lag p95 s"):
        assert name in told
