"""Fixtures that several test files share: recorded speech, and a sound server of our own."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import jiwer
import numpy as np
import pytest
import soundfile

from streamer.config import Settings
from streamer.errors import ModelError
from streamer.recognition import load_recognizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from streamer.recognition.ctc_recognizer import CtcRecognizer
    from streamer.recognition.writer import WriterRecognizer

REPOSITORY = Path(__file__).resolve().parent.parent
RECORDINGS = REPOSITORY / "tests" / "recordings"
RECORDING = RECORDINGS / "synthesized.flac"
"""Nine short sentences of which the small embedded model hears nearly every word."""

# A shell that starts the tests in the background makes them, and what they start, deaf to Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


SLOWEST = ("test_training_run", "test_adapt", "test_listen", "test_writer")
"""They begin first, so that of two processes neither waits for the other at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring the slowest files to the front."""
    items.sort(key=lambda item: item.path.stem not in SLOWEST)


def words(text: str) -> list[str]:
    """As they are scored: capitals and apostrophes."""
    return re.sub("[^A-Z']", " ", text.upper()).split()


def word_errors(truth: str, heard: str) -> int:
    """Words substituted, deleted and inserted, in the alignment with the fewest."""
    counted = jiwer.process_words(" ".join(words(truth)), " ".join(words(heard)))
    return counted.substitutions + counted.deletions + counted.insertions


def mostly(truth: str, shown: str) -> bool:
    """Whether most words of a sentence are somewhere in what is shown.

    Sound that went through a server begins anywhere between two samples, and the embedded model
    spells a word or two differently each time.
    """
    return len(set(words(truth)) & set(words(shown))) > 0.6 * len(set(words(truth)))


def between_lines(samples: NDArray[np.float32]) -> list[int]:
    """Samples in the middle of each long pause of a quiet 16 kHz recording."""
    frames = samples[: len(samples) // 320 * 320].reshape(-1, 320)
    loud = np.flatnonzero((frames**2).mean(axis=1) > 1e-5) * 320
    return [int(a + b) // 2 for a, b in itertools.pairwise(loud) if b - a > 6_400]


def write_json(folder: Path, name: str, content: object) -> None:
    """A file as checkpoints have them."""
    (folder / name).write_text(json.dumps(content))


def model_error(function: Callable[..., object], *arguments: object) -> str:
    """The one line of the ModelError that a call ends with."""
    with pytest.raises(ModelError) as caught:
        function(*arguments)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)
    return str(caught.value)


SPEECH = Path(os.environ.get("STREAMER_SPEECH") or REPOSITORY.parent / "shared" / "speech")
"""Larger sets of recorded speech, which need not be there."""


def more_speech(pattern: str) -> list[Path]:
    """Files of the larger sets, none where there are no such sets."""
    return sorted(SPEECH.glob(pattern))


@pytest.fixture(scope="session")
def speech_dir() -> Path:
    """Larger sets of recorded speech, for what the bundled clips cannot show."""
    if not SPEECH.is_dir():
        pytest.skip(f"no larger sets of recorded speech in {SPEECH}; set STREAMER_SPEECH")
    return SPEECH


@pytest.fixture
def malformed(tmp_path: Path) -> list[Path]:
    """Recordings that a disk, a network or a program has spoilt in its own way each."""
    samples, rate = soundfile.read(RECORDINGS / "LJ002-0096.ogg")
    soundfile.write(tmp_path / "whole.wav", samples, rate)
    wav = (tmp_path / "whole.wav").read_bytes()
    (tmp_path / "whole.wav").unlink()
    ogg = (RECORDINGS / "LJ002-0096.ogg").read_bytes()
    for name, content in {
        "empty.wav": b"",
        "half a header.wav": wav[:22],
        "no samples.wav": wav[:40] + bytes(4),
        "cut.wav": wav[:5_044],
        "zeros.wav": bytes(44),
        "another name.flac": b"<!DOCTYPE html>" * 60,
        "cut.ogg": ogg[:100],
    }.items():
        (tmp_path / name).write_bytes(content)
    return [*sorted(tmp_path.iterdir()), *more_speech("malformed/*")]


@pytest.fixture(scope="session")
def recognizer() -> CtcRecognizer:
    """The embedded model, loaded once for all tests."""
    return load_recognizer(Settings(model="embedded-sew"))


@pytest.fixture(scope="session")
def writer() -> WriterRecognizer:
    """The bundled encoder-decoder, loaded once for all tests."""
    return load_recognizer(Settings(model="moonshine-tiny"))


class Sound:
    """A private PulseAudio server whose default input hears what is played into it.

    Programs started with `env` record from its null sink's monitor through PortAudio's ALSA
    device `default`, and play into the sink with `play`.
    """

    def __init__(self, folder: Path, rate: int = 16_000, channels: int = 1) -> None:
        self.rate = rate
        self.channels = channels
        self.folder = folder
        self._socket = folder / "pulse.socket"
        self._server: subprocess.Popen[bytes] | None = None
        self._players: list[subprocess.Popen[bytes]] = []
        (folder / "run").mkdir(parents=True)
        (folder / "run").chmod(0o700)
        (folder / ".asoundrc").write_text(
            "pcm.!default { type pulse }\n"
            "ctl.!default { type pulse }\n"
            'pcm.speaker_monitor { type pulse device "speaker.monitor" '
            'hint { show on description "Monitor of the speaker" } }\n'
        )
        self.env = {
            **os.environ,
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "XDG_CONFIG_HOME": str(folder / ".config"),
            "PULSE_SERVER": f"unix:{self._socket}",
            "PYTHONPATH": str(REPOSITORY),
        }
        self.start()

    def start(self) -> None:
        """Start the server (again); returns when it answers."""
        self._socket.unlink(missing_ok=True)
        protocol = f"module-native-protocol-unix socket={self._socket} auth-anonymous=1"
        sink = f"module-null-sink sink_name=speaker rate={self.rate} channels={self.channels}"
        options = [
            "--daemonize=no",
            "--exit-idle-time=-1",
            "--use-pid-file=no",
            "--disable-shm=yes",
        ]
        with (self.folder / "pulseaudio.log").open("ab") as log:
            self._server = subprocess.Popen(
                ["pulseaudio", "-n", *options, "-L", protocol, "-L", sink],
                env=self.env,
                stdout=log,
                stderr=log,
            )
        for _ in range(100):
            if self._answers():
                return
            time.sleep(0.1)
        log_text = (self.folder / "pulseaudio.log").read_text()
        self.close()
        raise RuntimeError(f"pulseaudio does not start:\n{log_text}")

    def kill(self) -> None:
        """End the server at once, as a crash would."""
        assert self._server
        self._server.kill()
        self._server.wait()
        self._server = None

    def freeze(self) -> None:
        """Let the server hang; `kill` ends that."""
        assert self._server
        self._server.send_signal(signal.SIGSTOP)

    def play(self, samples: np.ndarray, rate: int, *, wait: bool = True) -> None:
        """Play float samples, shape (n,) or (n, channels); `wait` until they have been heard.

        Silence goes first: a null sink has rendered its next milliseconds already and its
        monitor does not hear what replaces them (3 to 9 ms of the start were missing).
        """
        channels = 1 if samples.ndim == 1 else samples.shape[1]
        form = ["--raw", "--format=float32le", f"--rate={rate}", f"--channels={channels}"]
        player = subprocess.Popen(
            ["pacat", "--playback", "--latency-msec=50", *form],
            env=self.env,
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        file = self.folder / f"play{len(self._players)}.f32"
        silence = np.zeros((rate // 10, *samples.shape[1:]))
        np.concatenate([silence, samples]).astype("<f4").tofile(file)
        self._players.append(player)
        if wait:
            player.communicate(file.read_bytes())
            return
        feeder = subprocess.Popen(["cat", str(file)], stdout=player.stdin)
        assert player.stdin
        player.stdin.close()
        self._players.append(feeder)

    def run(self, code: str) -> subprocess.Popen[str]:
        """Python code in a process of its own, because PortAudio starts once per process."""
        return subprocess.Popen(
            [sys.executable, "-c", code],
            env=self.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        """End the server and everything that plays."""
        for process in self._players:
            if process.poll() is None:
                process.kill()
            process.wait()
        if self._server:
            self._server.send_signal(signal.SIGTERM)
            self._server.wait()
            self._server = None

    def is_recorded(self) -> bool:
        """Whether a program has its microphone open."""
        listed = subprocess.run(
            ["pactl", "list", "short", "source-outputs"], env=self.env, capture_output=True
        )
        return bool(listed.stdout.strip())

    def _answers(self) -> bool:
        info = subprocess.run(["pactl", "info"], env=self.env, capture_output=True, check=False)
        return info.returncode == 0


@pytest.fixture(scope="session")
def sound_server(tmp_path_factory: pytest.TempPathFactory):
    """Start sound servers: `sound_server(rate, channels)`, one for each pair."""
    missing = [tool for tool in ("pulseaudio", "pacat", "pactl") if not shutil.which(tool)]
    if missing:
        reason = (
            f"no {', '.join(missing)}: "
            "apt-get install pulseaudio pulseaudio-utils libasound2-plugins libportaudio2"
        )
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    servers: dict[tuple[int, int], Sound] = {}

    def start(rate: int = 16_000, channels: int = 1) -> Sound:
        if (rate, channels) not in servers:
            folder = tmp_path_factory.mktemp(f"sound{rate}x{channels}-") / "home"
            servers[rate, channels] = Sound(folder, rate, channels)
        return servers[rate, channels]

    yield start
    for server in servers.values():
        server.close()


@pytest.fixture(scope="session")
def sound(sound_server) -> Sound:
    """A sound server whose sink is 16 kHz mono."""
    return sound_server()
