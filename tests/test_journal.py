from __future__ import annotations

import io
import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from streamer.cli import DEMO
from streamer.config import Settings
from streamer.errors import SettingsError
from streamer.live import run
from streamer.messages import Block, Event, Final, Gap, Partial, SessionEnded, SessionStarted
from streamer.recognition.ctc_recognizer import CtcRecognizer
from streamer.sinks import Sink, journal
from streamer.sinks.journal import Journal
from streamer.sinks.lines import PlainText
from streamer.sources.files import AudioFile, read_audio
from streamer.transcripts import transcribe

RATE = 8_000
REPOSITORY = Path(__file__).parents[1]


def tone(start: int, count: int) -> Block:
    time = np.arange(start, start + count) / RATE
    return Block(start, (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32))


def read(path: Path) -> np.ndarray:
    samples, rate = soundfile.read(path, dtype="int16")
    assert rate == RATE
    return np.asarray(samples)


def test_audio_events_and_text_are_kept(tmp_path: Path) -> None:
    with Journal(tmp_path / "deep" / "er", RATE) as kept:
        sink: Sink = kept
        sink.show(SessionStarted("m", "d", RATE, "0"))
        for start in range(0, 3 * RATE, 100):
            kept.audio(tone(start, 100))
        sink.show(Partial(0, 0, 1, "On", "e", 1))
        sink.show(Final(0, 0, 1, "One.", "ONE", (), 1))
        sink.show(Final(1, 1, 2, "", "", (), 2))
        sink.show(SessionEnded(3 * RATE, RATE, 2 * RATE, 0, RATE, 0))
    assert (tmp_path / "deep" / "er") == kept.folder.parent
    assert sorted(path.name for path in kept.folder.iterdir()) == [
        "audio.wav",
        "events.jsonl",
        "transcript.txt",
    ]
    assert (kept.folder / "transcript.txt").read_text() == "One.\n"
    lines = (kept.folder / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["session", "final", "final", "end"]
    expected = np.rint(tone(0, 3 * RATE).samples * 32768)
    np.testing.assert_array_equal(read(kept.folder / "audio.wav"), expected)


def test_samples_of_a_16_bit_source_come_out_as_they_went_in(tmp_path: Path) -> None:
    values = np.array([-32768, -32767, -1, 0, 1, 12345, 32767], dtype=np.int16)
    captured = values.astype(np.float32) / np.float32(32768)
    with Journal(tmp_path, RATE) as kept:
        kept.audio(Block(0, captured))
        kept.audio(Block(7, np.array([-2.0, 2.0], dtype=np.float32)))
    assert read(kept.folder / "audio.wav").tolist() == [*values.tolist(), -32768, 32767]


def test_lost_audio_is_silence_so_that_times_stay_true(tmp_path: Path) -> None:
    with Journal(tmp_path, RATE) as kept:
        kept.audio(tone(0, RATE))
        kept.audio(Gap(RATE, 4 * RATE + 5, RATE, "overflow"))
        kept.audio(tone(4 * RATE + 5, RATE))
        # A block whose gap was never told of, and one that overlaps it.
        kept.audio(tone(6 * RATE, RATE // 2))
        kept.audio(tone(6 * RATE + 7, RATE - 7))
    samples = read(kept.folder / "audio.wav")
    assert len(samples) == 7 * RATE
    whole = np.rint(tone(0, 7 * RATE).samples * 32768)
    whole[RATE : 4 * RATE + 5] = 0
    whole[5 * RATE + 5 : 6 * RATE] = 0
    np.testing.assert_array_equal(samples, whole)


def test_a_session_never_overwrites_another(tmp_path: Path) -> None:
    folders = []
    for text in ("one", "two", "three"):
        with Journal(tmp_path, RATE) as kept:
            kept.show(Final(0, 0, 1, text, text, (), 1))
        folders.append(kept.folder)
    assert [(folder / "transcript.txt").read_text() for folder in folders] == [
        "one\n",
        "two\n",
        "three\n",
    ]


def test_an_empty_session_is_a_valid_file(tmp_path: Path) -> None:
    with Journal(tmp_path, RATE) as kept:
        pass
    assert len(read(kept.folder / "audio.wav")) == 0


def test_a_full_file_is_followed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "MAX_AUDIO_BYTES", 2 * 5_000)
    with Journal(tmp_path, RATE) as kept:
        for start in range(0, 12_000, 100):
            kept.audio(tone(start, 100))
    names = ["audio.wav", "audio-2.wav", "audio-3.wav"]
    parts = [read(kept.folder / name) for name in names]
    assert [len(part) for part in parts] == [5_000, 5_000, 2_000]
    expected = np.rint(tone(0, 12_000).samples * 32768)
    np.testing.assert_array_equal(np.concatenate(parts), expected)


@pytest.mark.parametrize("obstacle", ["file", "below-a-file", "no-such-system-folder"])
def test_an_unusable_folder_is_refused_at_the_start(tmp_path: Path, obstacle: str) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    folder = {
        "file": blocked,
        "below-a-file": blocked / "sub",
        "no-such-system-folder": Path("/proc/recordings"),
    }[obstacle]
    with pytest.raises(SettingsError, match="cannot record there"), Journal(folder, RATE):
        pass


RECORDER = """
import sys
from pathlib import Path
import numpy as np
from streamer.messages import Block, Final
from streamer.sinks.journal import Journal
rate = 8000
with Journal(Path(sys.argv[1]), rate) as journal:
    for number in range(1000):
        journal.audio(Block(number * 80, np.full(80, 0.25, np.float32)))
    journal.show(Final(0, 0, 1, "Kept", "KEPT", (), 1))
    print(journal.folder, flush=True)
    sys.stdin.read()
"""


def test_a_killed_process_leaves_files_that_open(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RECORDER, str(tmp_path)]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    samples = read(folder / "audio.wav")
    assert 9 * RATE <= len(samples) <= 10 * RATE
    assert (samples == 8192).all()
    assert (folder / "transcript.txt").read_text() == "Kept\n"
    assert len((folder / "events.jsonl").read_text().splitlines()) == 1


def test_audio_that_no_header_counts_yet_does_no_harm(tmp_path: Path) -> None:
    # What a kill between the two writes leaves.
    with Journal(tmp_path, RATE) as kept:
        kept.audio(tone(0, RATE))
    path = kept.folder / "audio.wav"
    with path.open("ab") as file:
        file.write(np.full(3001, 0.1, np.float32).tobytes())
    assert len(read(path)) == RATE


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from streamer.messages import Block, Final
from streamer.sinks.journal import Journal
rate = 8000
with Journal(Path(sys.argv[1]), rate) as journal:
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    for number in range(100):
        journal.audio(Block(number * 800, np.full(800, 0.25, np.float32)))
    journal.show(Final(0, 0, 1, "Said", "SAID", (), 1))
    print(journal.folder)
print("went on")
"""


def test_a_write_that_fails_ends_the_recording_and_not_the_session(tmp_path: Path) -> None:
    # The limit on the size of files fails as a full disk does: in write(2), half-way.
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FULL_DISK, str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    folder, after = done.stdout.splitlines()
    assert after == "went on"
    assert len(done.stderr.splitlines()) == 1
    assert "recording stopped" in done.stderr
    assert "File too large" in done.stderr
    samples = read(Path(folder) / "audio.wav")
    assert len(samples) >= 20_000
    assert (samples == 8192).all()


def test_the_callback_is_told_once(tmp_path: Path) -> None:
    warnings: list[str] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal(tmp_path, RATE, warn=warnings.append) as kept:
        resource.setrlimit(resource.RLIMIT_FSIZE, (RATE, hard))
        try:
            for start in range(0, 3 * RATE, RATE):
                kept.audio(tone(start, RATE))
            kept.show(Final(0, 0, 1, "Said", "SAID", (), 1))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(warnings) == 1
    assert str(kept.folder) in warnings[0]


def unheard(line: str) -> None:
    raise BrokenPipeError(line)


def test_a_recording_that_breaks_costs_no_word(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    recognizer: CtcRecognizer,
) -> None:
    """The second file cannot be made, and whoever is to be told has gone."""
    samples, rate = read_audio(DEMO)
    heard: list[str] = []

    class Shown(PlainText):
        def show(self, event: Event) -> None:
            heard.extend([event.text] if isinstance(event, Final) else [])

    monkeypatch.setattr(journal, "MAX_AUDIO_BYTES", 2 * 3 * rate)
    soundfile.write(tmp_path / "talk.wav", samples[: 8 * rate], rate)
    kept = Journal(tmp_path, rate, warn=unheard)
    with AudioFile(tmp_path / "talk.wav") as source, kept:
        assert kept.folder
        (kept.folder / "audio-2.wav").mkdir()
        shown = [Shown(io.StringIO())]
        run(source, recognizer, Settings(), shown, real_time=False, journal=kept)
    whole = transcribe(tmp_path / "talk.wav", recognizer=recognizer)
    assert heard == [segment.text for segment in whole.segments]
    assert len(heard) > 1
    assert not kept.complete
    (line,) = capsys.readouterr().err.splitlines()
    assert "recording stopped" in line
