"""The commands as users run them: real processes, real files, real exit codes."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import RECORDING, word_errors, words

from streamer import cli
from streamer.cli import DEMO

LONG_NAME = "m" * 300
TRUTH = RECORDING.with_suffix(".txt").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """No settings, an empty model cache, no network for the hub."""
    home = tmp_path_factory.mktemp("home")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("STREAMER_")}
    return {**clean, "HOME": str(home), "XDG_CONFIG_HOME": str(home), "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(home / "hub"), "STREAMER_MODEL": "embedded-sew"}  # fmt: skip


def streamer(
    env: dict[str, str], *arguments: str | Path, stdin: bytes | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "streamer", *map(str, arguments)],
        env=env,
        input=stdin,
        capture_output=True,
        timeout=120,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


@pytest.fixture(scope="module")
def transcribed(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`streamer transcribe` of the whole recording."""
    return streamer(env, "transcribe", RECORDING)


def one_line(error: str) -> bool:
    return error.startswith("streamer: ") and len(error.strip().splitlines()) == 1


def test_a_recording_becomes_its_words(transcribed: subprocess.CompletedProcess[str]) -> None:
    assert transcribed.returncode == 0, transcribed.stderr
    heard = transcribed.stdout
    assert word_errors(TRUTH, heard) <= 0.15 * len(words(TRUTH)), heard


def test_live_json_lines_keep_the_promises_of_the_interface(env: dict[str, str]) -> None:
    done = streamer(env, "listen", "--input", RECORDING, "--pace", "fast", "--format", "jsonl")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events[:1] + events[-1:]] == ["session", "end"]
    assert events[0]["source_rate"] == soundfile.info(RECORDING).samplerate
    assert events[0]["model"] == "embedded-sew"

    partials = [event for event in events if event["event"] == "partial"]
    finals = [event for event in events if event["event"] == "final"]
    assert len(partials) > 2 * len(finals) > 10
    assert [final["segment"] for final in finals] == sorted({f["segment"] for f in finals})
    for before, after in itertools.pairwise(partials):
        if before["segment"] == after["segment"]:
            assert after["stable"].startswith(before["stable"])
    for final in finals:
        assert final["text"] == " ".join(word["word"] for word in final["words"])
        assert words(final["raw"]) == words(final["text"])
        times = [t for word in final["words"] for t in (word["start"], word["end"])]
        assert times == sorted(times)
        assert final["start"] <= times[0]
        assert times[-1] <= final["end"] <= final["at"]
        assert all(0 <= word["confidence"] <= 1 for word in final["words"])
    end = events[-1]
    assert end["captured"] == pytest.approx(soundfile.info(RECORDING).duration, abs=1e-6)
    assert end["captured"] == pytest.approx(end["speech"] + end["silence"] + end["lost"], abs=2e-6)
    assert end["lost"] == 0


def test_fast_pace_equals_real_pace(env: dict[str, str], tmp_path: Path) -> None:
    audio, rate = soundfile.read(RECORDING)
    short = tmp_path / "short.wav"
    soundfile.write(short, audio[: 7 * rate], rate)

    def finals(pace: str) -> list[tuple[object, ...]]:
        done = streamer(env, "listen", "--input", short, "--pace", pace, "--format", "jsonl")
        events = [json.loads(line) for line in done.stdout.splitlines()]
        keys = ("segment", "start", "end", "text", "words")
        return [tuple(map(event.get, keys)) for event in events if event["event"] == "final"]

    assert finals("fast") == finals("real") != []


def test_samples_on_standard_input(
    env: dict[str, str], transcribed: subprocess.CompletedProcess[str]
) -> None:
    audio, rate = soundfile.read(RECORDING, dtype="int16")
    stereo = np.repeat(audio[:, None], 2, axis=1)
    done = streamer(
        env, "listen", "--input", "-", "--rate", str(rate), "--channels", "2",
        "--format", "text", stdin=stereo.tobytes(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == transcribed.stdout


def test_half_a_sample_on_standard_input_loses_no_word(
    env: dict[str, str], transcribed: subprocess.CompletedProcess[str]
) -> None:
    audio, _ = soundfile.read(RECORDING, dtype="int16")
    done = streamer(env, "listen", "--input", "-", "--format", "text", stdin=audio.tobytes() + b"x")
    assert done.returncode == 5
    assert one_line(done.stderr)
    assert done.stdout == transcribed.stdout


def test_raw_text_is_the_models_own(env: dict[str, str]) -> None:
    done = streamer(env, "transcribe", "--raw", RECORDING)
    assert done.stdout == done.stdout.upper()


def test_formats_are_written_side_by_side(env: dict[str, str], tmp_path: Path) -> None:
    done = streamer(
        env, "transcribe", RECORDING, "--format", "txt,srt,vtt,json", "--output-dir", tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert (tmp_path / "synthesized.srt").read_text().startswith("1\n00:00:")
    assert (tmp_path / "synthesized.vtt").read_text().startswith("WEBVTT\n\n00:00:")
    document = json.loads((tmp_path / "synthesized.json").read_text())
    plain = (tmp_path / "synthesized.txt").read_text()
    assert document["text"].split() == plain.split()
    assert word_errors(TRUTH, plain) <= 0.15 * len(words(TRUTH))


def test_one_bad_file_does_not_stop_the_others(env: dict[str, str], tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"RIFF nothing of the kind")
    out = tmp_path / "out"
    done = streamer(env, "transcribe", bad, RECORDING, tmp_path / "none.wav", "--output-dir", out)
    assert done.returncode == 5
    assert [path.name for path in out.iterdir()] == ["synthesized.txt"]
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 2
    assert "bad.wav" in lines[0]
    assert "none.wav" in lines[1]


def test_files_of_one_name_do_not_overwrite_each_other(env: dict[str, str], tmp_path: Path) -> None:
    audio, rate = soundfile.read(RECORDING)
    takes = [tmp_path / "a.wav", tmp_path / "one" / "a.wav", tmp_path / "a.flac"]
    (tmp_path / "one").mkdir()
    for number, path in enumerate(takes, 1):
        soundfile.write(path, audio[: 4 * number * rate], rate)
    done = streamer(env, "transcribe", *takes, "--output-dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    texts = {path.name: len(path.read_text().split()) for path in (tmp_path / "out").iterdir()}
    assert sorted(texts) == ["a.flac.txt", "a.wav-1.txt", "a.wav-2.txt"]
    assert [line.split()[3] for line in done.stderr.splitlines()] == ["a.wav-1,", "a.wav-2,"]
    assert len(set(texts.values())) == 3


def test_no_speech_is_said(env: dict[str, str], tmp_path: Path) -> None:
    soundfile.write(tmp_path / "quiet.wav", np.zeros(32_000), 16_000)
    done = streamer(env, "transcribe", tmp_path / "quiet.wav")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.strip().endswith("quiet.wav: no speech in it")


@pytest.mark.parametrize(
    "command",
    [["listen", "--demo", "--pace", "fast", "--format", "text"], ["transcribe", RECORDING]],
)
def test_a_full_disk_is_one_line(env: dict[str, str], command: list[str | Path]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "streamer", *command],
            env=env,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    assert done.returncode == 1
    assert one_line(done.stderr), done.stderr


def test_a_full_disk_does_not_end_the_recording(env: dict[str, str], tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        subprocess.run(
            [sys.executable, "-m", "streamer", "listen", "--demo", "--pace", "fast",
             "--format", "text", "--record", tmp_path],
            env=env, stdout=full, stderr=subprocess.DEVNULL, timeout=120,
        )  # fmt: skip
    (folder,) = tmp_path.iterdir()
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events[-2:]] == ["final", "end"]


@pytest.mark.parametrize(("closed", "code"), [("<&-", 5), (">&-", 1)])
def test_a_closed_stream_is_one_line(env: dict[str, str], closed: str, code: int) -> None:
    done = subprocess.run(
        f"exec {sys.executable} -m streamer listen --input - {closed}",
        shell=True,
        env=env,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    assert done.returncode == code
    assert one_line(done.stderr), done.stderr


def test_a_file_on_standard_input_is_no_raw_audio(env: dict[str, str], tmp_path: Path) -> None:
    audio, rate = soundfile.read(RECORDING)
    soundfile.write(tmp_path / "a.wav", audio, rate)
    done = streamer(
        env, "listen", "--input", "-", "--format", "text", stdin=(tmp_path / "a.wav").read_bytes()
    )
    assert done.returncode == 5
    assert one_line(done.stderr)
    assert "--input" in done.stderr


def test_every_malformed_file_gets_exit_5_and_one_line(
    env: dict[str, str], malformed: list[Path]
) -> None:
    done = streamer(env, "transcribe", *malformed)
    assert done.returncode == 5
    lines = done.stderr.splitlines()
    assert len(lines) == len(malformed)
    for file, line in zip(malformed, lines, strict=True):
        assert one_line(line), line
        assert file.name in line


def test_not_a_number_is_refused_and_what_was_said_before_is_kept(
    env: dict[str, str], tmp_path: Path
) -> None:
    audio, rate = soundfile.read(RECORDING, dtype="float32")
    audio[6 * rate] = np.nan
    file = tmp_path / "nan.wav"
    soundfile.write(file, audio, rate, subtype="FLOAT")
    done = streamer(env, "listen", "--input", file, "--pace", "fast", "--format", "text")
    assert done.returncode == 5
    assert one_line(done.stderr)
    assert words(done.stdout)[:3] == words(TRUTH)[:3]


def test_a_record_folder_holds_what_was_heard(env: dict[str, str], tmp_path: Path) -> None:
    done = streamer(
        env, "listen", "--demo", "--pace", "fast", "--format", "text", "--record", tmp_path
    )
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.iterdir()
    assert (folder / "transcript.txt").read_text() == done.stdout
    assert done.stderr == f"streamer: recorded in {folder}\n"
    kept, _ = soundfile.read(folder / "audio.wav")
    told, _ = soundfile.read(DEMO)
    assert np.allclose(kept, told, atol=1e-4)


def test_text_goes_to_the_file_while_a_terminal_shows_the_progress(
    env: dict[str, str], tmp_path: Path
) -> None:
    ours, theirs = os.openpty()
    with (tmp_path / "out.txt").open("w") as out, subprocess.Popen(
        [sys.executable, "-m", "streamer", "transcribe", RECORDING],
        env={**env, "TERM": "xterm"}, stdout=out, stderr=theirs,
    ) as process:  # fmt: skip
        os.close(theirs)
        with contextlib.suppress(OSError):  # how a terminal's end is told on Linux
            while os.read(ours, 65_536):
                pass
    os.close(ours)
    assert process.returncode == 0
    assert words((tmp_path / "out.txt").read_text())[:3] == words(TRUTH)[:3]


def test_a_terminal_is_told_that_text_will_come(env: dict[str, str]) -> None:
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "streamer", "--demo", "--pace", "fast", "--format", "text"],
        env=env, stdout=subprocess.PIPE, stderr=theirs, text=True,
    ) as process:  # fmt: skip
        os.close(theirs)
        assert process.stdout
        shown = process.stdout.read()
    told = os.read(ours, 65_536).decode().splitlines()
    os.close(ours)
    assert told == [
        "streamer: listening to recording.flac; text follows each sentence (Ctrl-C ends)"
    ]
    assert len(words(shown)) > 30


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["listen", "--model", "nobody/nothing", "--demo"], 4, "nobody/nothing"),
        (["listen", "--model", "/nowhere/at/all", "--demo"], 4, "/nowhere/at/all"),
        (["listen", "--input", "missing.wav"], 5, "missing.wav"),
        (["listen", "--threads", "-1", "--demo"], 2, "threads"),
        (["listen", "--config", "missing.toml", "--demo"], 2, "missing.toml"),
        (["transcribe", "a.wav", "b.wav", "--format", "srt"], 2, "--output-dir"),
        (["listen", "--demo", "--model", LONG_NAME], 4, "File name too long"),
    ],
)
def test_an_error_is_one_line_and_its_code(
    env: dict[str, str], arguments: list[str], code: int, says: str
) -> None:
    done = streamer(env, *arguments)
    assert done.returncode == code, done.stderr
    assert one_line(done.stderr), done.stderr
    assert says in done.stderr
    assert "output" not in done.stderr.replace("--output-dir", "")
    assert done.stdout == ""


def test_only_a_failed_write_is_called_one(monkeypatch, capsys) -> None:
    def unreadable(options: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "/some/where")

    monkeypatch.setitem(cli._COMMANDS, "devices", unreadable)
    assert cli.main(["devices"]) == 1
    line = capsys.readouterr().err
    assert line.startswith("streamer: /some/where: Input/output error; ")


def test_an_unknown_setting_names_its_neighbour(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "streamer").mkdir()
    (tmp_path / "streamer" / "config.toml").write_text("hangover_sm = 500\n")
    done = streamer({**env, "XDG_CONFIG_HOME": str(tmp_path)}, "listen", "--demo")
    assert done.returncode == 2
    assert one_line(done.stderr)
    assert "hangover_ms" in done.stderr


def test_doctor_names_a_bad_setting_and_goes_on(env: dict[str, str]) -> None:
    done = streamer({**env, "STREAMER_HANGOVER_SM": "500"}, "doctor")
    assert done.returncode == 2
    problem, *rest = done.stdout.splitlines()
    assert problem.startswith("PROBLEM  settings: STREAMER_HANGOVER_SM=500")
    assert any("model files" in line for line in rest)


def test_the_file_of_settings_says_how_to_write_and_where_to_record(
    env: dict[str, str], tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text('format = "text"\nrecord = "talks"\nhangover_ms = 400\n')
    done = streamer(env, "--demo", "--pace", "fast", "--config", config)
    assert done.returncode == 0
    (folder,) = (tmp_path / "talks").iterdir()
    assert done.stdout == (folder / "transcript.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["--model", "embedded-sew", "listen"], "put `listen` first"),
        (["listen", "--nope"], "see `streamer listen --help`"),
        (["--nope"], "see `streamer listen --help`"),
    ],
)
def test_what_is_out_of_place_is_told_with_what_to_do(
    env: dict[str, str], arguments: list[str], advice: str
) -> None:
    done = streamer(env, *arguments)
    assert done.returncode == 2
    assert one_line(done.stderr)
    assert done.stderr.endswith(f"{advice}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nonsense"],
        ["transcribe"],
        ["listen", "extra"],
        ["lisen"],
        ["--rate", "x"],
        ["--input", ""],
        ["--device", ""],
        ["--demo", "--rate", "8000"],
        ["bench", "--minutes", "-1"],
    ],
)
def test_usage_errors_are_one_line_and_exit_with_2(
    env: dict[str, str], arguments: list[str]
) -> None:
    done = streamer(env, *arguments)
    assert done.returncode == 2
    assert one_line(done.stderr), done.stderr


def test_the_default_model_needs_no_network_and_hears_a_real_reader(env: dict[str, str]) -> None:
    without = {name: value for name, value in env.items() if name != "STREAMER_MODEL"}
    done = streamer(without, "transcribe", DEMO)
    assert (done.returncode, done.stderr) == (0, "")
    truth = DEMO.with_suffix(".txt").read_text(encoding="utf-8")
    assert word_errors(truth, done.stdout) <= 0.1 * len(words(truth))
    assert "." in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_finishes_the_pending_words(env: dict[str, str], number: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "streamer", "listen", "--input", RECORDING, "--format", "jsonl"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    lines = []
    for line in process.stdout:
        lines.append(json.loads(line))
        if lines[-1]["event"] == "partial" and len(lines[-1]["stable"].split()) >= 2:
            break
    process.send_signal(number)
    rest, errors = process.communicate(timeout=60)
    lines += [json.loads(line) for line in rest.splitlines()]
    assert process.returncode == 128 + number
    assert errors == ""
    assert [line["event"] for line in lines[-2:]] == ["final", "end"]
    assert words(lines[-2]["text"])[:2] == words(TRUTH)[:2]
    left = soundfile.info(RECORDING).duration - lines[-1]["captured"]
    assert left > 1, "an interrupt must not wait for the recording's end"


def test_an_interrupt_keeps_what_was_transcribed(env: dict[str, str], tmp_path: Path) -> None:
    program = """
import os, signal, sys
from streamer import cli

def interrupt(bar, task, seconds, advance=cli._advance):
    advance(bar, task, seconds)
    if 10 <= seconds < 10.1:
        os.kill(os.getpid(), signal.SIGINT)

cli._advance = interrupt
sys.exit(cli.main(sys.argv[1:]))
"""
    command = [sys.executable, "-c", program, "transcribe", str(RECORDING), str(DEMO)]
    done = subprocess.run(
        [*command, "--output-dir", str(tmp_path)],
        env=env, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 128 + signal.SIGINT
    assert one_line(done.stderr)
    assert "stopped after 10." in done.stderr
    (written,) = tmp_path.iterdir()
    assert words(written.read_text())[:4] == words(TRUTH)[:4]


def test_a_reader_that_leaves_is_no_error(env: dict[str, str]) -> None:
    command = f"{sys.executable} -m streamer transcribe {RECORDING} {RECORDING}"
    done = subprocess.run(
        f"{command} | head -n 1; echo ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "0"
