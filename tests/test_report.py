"""`streamer eval` as a user runs it."""

import json
from xml.etree import ElementTree

import pytest
import soundfile
from conftest import RECORDING

from streamer import cli
from streamer.evaluation import report
from streamer.evaluation.evaluate import NAMES

PART_S = 5


@pytest.fixture
def run(capsys):
    """`streamer eval` with the embedded model: exit code, stdout and stderr."""

    def run(*arguments):
        code = cli.main(["eval", "--model", "embedded-sew", *map(str, arguments)])
        told, errors = capsys.readouterr()
        return code, told, errors

    return run


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Two recordings: the first seconds of one, and the next ones."""
    folder = tmp_path_factory.mktemp("eval")
    samples, rate = soundfile.read(RECORDING)
    words = RECORDING.with_suffix(".txt").read_text().split()
    lines = ["file\ttranscript"]
    for number in range(2):
        part = samples[number * PART_S * rate : (number + 1) * PART_S * rate]
        soundfile.write(folder / f"part-{number}.flac", part, rate)
        lines.append(f"part-{number}.flac\t{' '.join(words[number * 9 : number * 9 + 9])}")
    (folder / "some.tsv").write_text("\n".join(lines) + "\n")
    return folder / "some.tsv"


def test_a_table_compares_all_policies(manifest, run):
    code, told, errors = run(manifest)
    assert code == 0, errors
    assert f"2 recordings, {2 * PART_S} s" in told
    assert "As files: WER " in told
    for name in ("WER live", "word delay", "UPWR", "retracted", "stable early", "cost"):
        [row] = [line for line in told.splitlines() if line.strip().startswith(name)]
        assert len(row.split()[len(name.split()) :]) == len(NAMES)
    assert max(map(len, told.splitlines())) <= 80


def test_json_is_one_object(manifest, run):
    code, told, _ = run(manifest, "--json", "--policies", "streamer,growing-buffer")
    assert code == 0
    summary = json.loads(told)
    assert list(summary["policies"]) == ["streamer", "growing-buffer"]
    assert summary["files"] == 2
    assert summary["policies"]["streamer"]["word_delay"]["p95"] > 0


def test_limit_and_join_choose_what_is_heard(manifest, run):
    options = ("--json", "--policies", "streamer")
    _, told, _ = run(manifest, *options, "--limit", 1)
    assert json.loads(told)["seconds"] == PART_S
    _, told, _ = run(manifest, *options, "--join")
    assert (json.loads(told)["files"], json.loads(told)["seconds"]) == (1, 2 * PART_S)


def test_a_report_is_a_page_with_two_plots(manifest, run, tmp_path):
    folder = tmp_path / "new" / "report"
    code, _, errors = run(manifest, "--policies", "streamer", "--report", folder)
    assert code == 0, errors
    page = (folder / "index.md").read_text()
    assert "| | streamer |" in page
    for name in ("WER live", "start error, ms", "cost"):
        [row] = [line for line in page.splitlines() if line.startswith(f"| {name} |")]
        assert row.count("|") == 3
    for plot in ("delays.svg", "tradeoff.svg"):
        assert f"({plot})" in page
        assert ElementTree.parse(folder / plot).getroot().tag.endswith("svg")
    assert json.loads((folder / "eval.json").read_text())["files"] == 2


def test_a_policy_of_frames_and_a_writer_are_a_matter_of_usage(run, manifest):
    code, told, errors = run(manifest, "--model", "moonshine-tiny", "--policies", "middle-token")
    assert (code, told) == (2, "")
    [line] = errors.splitlines()
    assert "middle-token joins the frames of a CTC model, and moonshine-tiny is none" in line
    assert "growing-buffer" in line


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["missing.tsv"], 5, "no such folder or manifest"),
        (["."], 5, "no recordings with text"),
        (["{manifest}", "--policies", "best"], 2, "no policy 'best'; choose from streamer"),
        (["{manifest}", "--report", "{manifest}"], 2, "cannot be written"),
    ],
)
def test_what_cannot_be_evaluated_is_said_in_one_line(
    manifest, run, tmp_path, arguments, code, said
):
    (tmp_path / "empty").mkdir()
    given = [text.format(manifest=manifest) for text in arguments]
    given = [str(tmp_path / "empty") if text == "." else text for text in given]
    exit_code, told, errors = run(*given)
    assert (exit_code, told) == (code, "")
    [line] = errors.splitlines()
    assert said in line


def figures(seed):
    """Of a policy, as a summary has them; all different."""
    delay = {"p50": seed + 0.25, "p95": seed + 10.25}
    rates = dict.fromkeys(("offline_wer", "wer", "delta", "disagreement", "upwr", "cost"), seed)
    unknown = {"p50": None, "p95": None}
    return (
        dict.fromkeys(("word_delay", "final_delay", "first_word_delay"), delay)
        | dict.fromkeys(("settle_delay", "word_start_error", "word_end_error"), unknown)
        | rates
        | {"retracted": None, "stable_early": None}
    )


@pytest.mark.parametrize(("columns", "parts"), [(80, 2), (120, 1), (45, 6)])
def test_a_table_that_is_too_wide_is_parted_and_no_figure_is_cut(
    capsys, monkeypatch, columns, parts
):
    monkeypatch.setenv("COLUMNS", str(columns))
    names = (*NAMES, "moonshine-voice", "moonshine-voice-lean")
    policies = {name: figures(number) for number, name in enumerate(names)}
    offline = {"wer": 0.1, "cer": 0.1}
    report._print(
        {"model": "a model", "files": 2, "seconds": 9, "offline": offline, "policies": policies}
    )
    told = capsys.readouterr().out
    assert "…" not in told
    assert max(map(len, told.splitlines())) <= columns
    rows = [line.split() for line in told.splitlines() if line.startswith("word delay")]
    assert len(rows) == parts
    # Ours stands first in each part, and every other once.
    assert {row[2] for row in rows} == {"0.25/10.25"}
    others = [cell for row in rows for cell in row[3:]]
    assert others == [f"{number}.25/{number + 10}.25" for number in range(1, len(names))]


def test_what_a_policy_does_not_tell_is_a_dash(capsys):
    offline = {"wer": 0.1, "cer": 0.1}
    policies = {"growing-buffer": figures(1)}
    report._print(
        {"model": "a model", "files": 1, "seconds": 9, "offline": offline, "policies": policies}
    )
    rows = capsys.readouterr().out.splitlines()
    for name in ("settle delay", "start error, ms", "end error, ms", "retracted", "stable early"):
        [row] = [row for row in rows if row.startswith(name)]
        assert row.split()[-1] == "–"
