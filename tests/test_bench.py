"""`streamer bench` on the real parts, for a few seconds."""

import json

import pytest

from streamer.config import Settings
from streamer.errors import StreamerError
from streamer.evaluation import bench


def measured(model):
    """What `--json` prints, of a tenth of a minute."""
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        patch.setattr(bench, "FILE_MINUTES", 0.1)
        patch.setattr(bench, "STARTS", 1)
        patch.setattr("builtins.print", printed.append)
        bench.bench(Settings(model=model), minutes=0.1, as_json=True)
    [line] = printed
    return json.loads(line)


@pytest.fixture(scope="module")
def figures():
    """Of a CTC model."""
    return measured("embedded-sew")


def test_processes_are_measured_as_users_start_them(figures):
    assert figures["model"] == "embedded-sew"
    assert figures["start"]["cpu_s"] > 0.1
    for part in ("listen", "files"):
        assert figures[part]["minutes"] == pytest.approx(0.1)
        assert 2 < figures[part]["speech_s"] < 6.5
        assert 50 < figures[part]["memory_mb"] < 5_000
    assert figures["listen"]["cost"] > 0


def test_files_of_a_ctc_model_are_compared_with_the_pipeline_and_the_bound(figures):
    ours = figures["files"]["real_time_factor"]
    for batch in bench.BATCHES:
        theirs = figures["pipeline"][f"real_time_factor_batch_{batch}"]
        assert theirs > 0
        assert figures["pipeline"][f"times_ours_batch_{batch}"] == pytest.approx(theirs / ours)
    bound = figures["bound"]
    least = bound["gflop_per_s_of_audio"] / bound["matrix_gflop_per_s"]
    share = least * figures["files"]["speech_s"] / (ours * 60 * figures["files"]["minutes"])
    assert bound["share_of_bound"] == pytest.approx(share)


def test_the_table_names_every_figure(figures, capsys):
    bench._print(figures)
    told = capsys.readouterr().out
    for name in ("to listening, CPU time", "memory at most", "cost live", "cost of files"):
        assert name in told
    assert "share of the bound" in told
    bench._print({name: figures[name] for name in ("model", "cores", "start", "listen", "files")})
    assert "pipeline" not in capsys.readouterr().out


def test_a_writer_is_measured_without_what_it_has_not():
    found = measured("moonshine-tiny")
    assert set(found) == {"model", "cores", "start", "listen", "files"}
    assert found["files"]["speech_s"] > 2


def test_a_process_that_fails_says_so_in_one_line():
    with pytest.raises(StreamerError, match=r"`streamer listen` failed: .*missing") as caught:
        bench._run(["listen", "--input", "missing.wav"], Settings(model="embedded-sew"))
    assert "\n" not in str(caught.value)
