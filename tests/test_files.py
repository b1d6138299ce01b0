from __future__ import annotations

import io
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import soundfile
from conftest import RECORDINGS, more_speech

from streamer.errors import InputError
from streamer.messages import Block, Gap
from streamer.sources.files import AudioFile, PcmStream, paced, read_audio

RATE = 16_000


def tone(seconds: float = 1.0) -> np.ndarray:
    return (0.5 * np.sin(np.arange(int(seconds * RATE)) / 10)).astype(np.float32)


def wav(body: bytes, *, riff: int | None = None, data: int | None = None) -> bytes:
    """A 16-bit mono WAV with any lengths in its header."""
    data = len(body) if data is None else data
    riff = 36 + len(body) if riff is None else riff
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    return b"RIFF" + struct.pack("<I", riff) + b"WAVE" + form + b"data" + struct.pack("<I", data)


def pcm(samples: np.ndarray) -> bytes:
    return (samples * 32_768).astype("<i2").tobytes()


def error_of(path) -> str:
    """The one line that says why `path` cannot be read."""
    with pytest.raises(InputError) as caught:
        read_audio(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert caught.value.exit_code == 5
    return message


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff", "au", "caf", "w64"])
def test_what_was_written_is_read(tmp_path, suffix):
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, tone(), RATE)
    samples, rate = read_audio(path)
    assert (rate, samples.dtype, samples.shape) == (RATE, np.float32, (RATE,))
    tolerance = 0.05 if suffix in ("ogg", "mp3") else 1e-4
    assert np.abs(samples - tone())[200:-200].max() < tolerance


def test_channels_are_downmixed_to_their_mean(tmp_path):
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([tone(), tone() / 2], axis=1), RATE, subtype="FLOAT")
    assert np.allclose(read_audio(path)[0], tone() * 0.75)


def test_blocks_are_contiguous_and_join_to_the_file(tmp_path):
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(1.234), RATE, subtype="FLOAT")
    with AudioFile(path) as file:
        blocks = list(file)
        assert (file.name, file.rate, file.frames) == ("tone.wav", RATE, 19_744)
    assert [block.start for block in blocks] == list(range(0, 19_744, 1_600))
    assert np.array_equal(np.concatenate([block.samples for block in blocks]), tone(1.234))


@pytest.mark.parametrize(("suffix", "subtype"), [("mp3", None), ("ogg", "OPUS"), ("flac", None)])
def test_reading_in_blocks_decodes_the_same_samples_as_reading_at_once(tmp_path, suffix, subtype):
    path = tmp_path / f"tone.{suffix}"
    noise = np.random.default_rng(0).normal(0, 0.1, 3 * RATE)
    soundfile.write(path, noise, RATE, subtype=subtype)
    at_once, _ = soundfile.read(path, dtype="float32")
    assert np.abs(read_audio(path)[0] - at_once).max() < 1e-6


def test_stop_ends_a_file_early(tmp_path):
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(), RATE)
    with AudioFile(path) as file:
        ends = []
        for block in file:
            ends.append(block.end)
            file.stop()
    assert ends == [1_600]


@pytest.mark.parametrize(
    ("suffix", "share"), [("wav", 0.5), ("flac", 0.5), ("mp3", 0.5), ("aiff", 0.5), ("w64", 0.9)]
)
def test_a_file_that_was_cut_off_is_refused(tmp_path, suffix, share):
    whole, path = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    soundfile.write(whole, tone(), RATE)
    data = whole.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert re.search("ends early|cannot be read|can be read", error_of(path))


def test_a_truncated_sphere_file_is_refused(tmp_path):
    whole, path = tmp_path / "whole.sph", tmp_path / "cut.sph"
    soundfile.write(whole, np.stack([tone(0.5), tone(0.5)], axis=1), RATE, format="NIST")
    path.write_bytes(whole.read_bytes()[: 1_024 + 4 * 3_872])
    assert "ends early, after 3872 of 8000 samples" in error_of(path)


def test_a_damaged_flac_is_refused_where_it_breaks(tmp_path):
    path = tmp_path / "broken.flac"
    soundfile.write(path, tone(), RATE)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    path.write_bytes(data)
    heard = []
    with AudioFile(path) as file, pytest.raises(InputError, match=r"broken\.flac"):
        heard.extend(file)
    assert 0 < heard[-1].end < RATE


@pytest.mark.parametrize("length", [0, 0x7FFF_F000, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_a_wav_whose_writer_could_not_fill_in_the_length_is_read(tmp_path, length):
    path = tmp_path / "streamed.wav"
    path.write_bytes(wav(pcm(tone()), riff=length, data=length) + pcm(tone()))
    samples, rate = read_audio(path)
    assert rate == RATE
    assert np.abs(samples - tone()).max() < 1e-4


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_finite_numbers_are_refused_with_their_time(tmp_path, value):
    path = tmp_path / "bad.wav"
    samples = tone()
    samples[9_000] = value
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    assert "from 0.5 s on" in error_of(path)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("none.wav", b"", "is empty"),
        ("head.wav", wav(b""), "holds no audio"),
        ("text.wav", b"this is no sound at all\n" * 40, "not audio"),
        ("speech.raw", pcm(tone()), "streamer listen --input -"),
        ("phone.m4a", b"\0\0\0\x20ftypM4A \0\0\0\0", "ffmpeg -i phone.m4a phone.wav"),
        ("web.webm", b"\x1aE\xdf\xa3" + bytes(50), "convert it first"),
    ],
)
def test_what_is_no_readable_audio_says_why_and_what_to_do(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content)
    assert reason in error_of(path)


def test_missing_files_folders_and_devices_are_refused(tmp_path):
    assert "No such file" in error_of(tmp_path / "nowhere.wav")
    assert "is a folder" in error_of(tmp_path)
    assert "no regular file" in error_of("/dev/null")


def test_every_malformed_recording_gives_one_clear_error(malformed):
    for path in malformed:
        error_of(path)


def test_every_usual_format_opens_and_m4a_is_told_to_be_converted(tmp_path):
    samples, rate = soundfile.read(RECORDINGS / "LJ002-0096.ogg")
    for name, channels, form in [
        ("mono_float64.wav", 1, {"subtype": "DOUBLE"}),
        ("mono_int32.wav", 1, {"subtype": "PCM_32"}),
        ("ms_adpcm.wav", 1, {"subtype": "MS_ADPCM"}),
        ("stereo_24bit.WAV", 2, {"subtype": "PCM_24", "format": "WAV"}),
        ("stereo.mp3", 2, {}),
        ("stereo.opus", 2, {"subtype": "OPUS", "format": "OGG"}),
        ("stereo.sph", 2, {"format": "NIST"}),
    ]:
        soundfile.write(tmp_path / name, np.stack([samples] * channels, axis=1), rate, **form)
    for path in (*sorted(tmp_path.iterdir()), *more_speech("formats/*")):
        if path.suffix == ".m4a":
            assert "ffmpeg" in error_of(path)
        else:
            samples, rate = read_audio(path)
            assert rate >= 8_000
            assert np.abs(samples).max() > 0.01, path


def test_an_mp3_padded_beyond_its_audio_is_whole(speech_dir):
    with AudioFile(speech_dir / "eval" / "commands" / "common_voice_en_22058264.mp3") as file:
        decoded = sum(len(block.samples) for block in file)
        assert 0 < file.frames - decoded < 1_152


def test_a_pipe_delivers_what_came_without_waiting_for_more():
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as stream, PcmStream(stream) as source:
        blocks = iter(source)
        os.write(writer, pcm(tone()[:30]) + b"\x01")
        assert next(blocks).samples.shape == (30,)
        os.write(writer, b"\x40" + pcm(tone()[:4]))
        second = next(blocks)
        assert (second.start, second.end) == (30, 35)
        assert second.samples[0] == pytest.approx(0x4001 / 32_768)
        os.close(writer)
        assert list(blocks) == []


def test_a_long_stream_comes_in_tenths_of_a_second_and_stereo_is_downmixed():
    stereo = np.stack([tone(), tone() / 2], axis=1)
    with PcmStream(io.BytesIO(pcm(stereo)), channels=2) as source:
        blocks = list(source)
    assert [block.start for block in blocks] == list(range(0, RATE, 1_600))
    heard = np.concatenate([block.samples for block in blocks])
    assert np.abs(heard - 0.75 * tone()).max() < 1e-4


def test_half_a_sample_at_the_end_is_an_error_after_everything_before_it():
    heard = []
    with PcmStream(io.BytesIO(pcm(tone()) + b"x")) as source:
        with pytest.raises(InputError, match="ends inside a sample"):
            heard.extend(source)
        assert heard[-1].end == RATE


def test_a_stream_without_audio_is_an_error():
    with PcmStream(io.BytesIO(b"")) as source, pytest.raises(InputError, match="no audio came"):
        list(source)


def test_stop_wakes_a_pipe_that_waits_for_data():
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as stream, PcmStream(stream) as source:
        heard = []
        thread = threading.Thread(target=lambda: heard.extend(source))
        thread.start()
        os.write(writer, pcm(tone()[:30]))
        source.stop()
        thread.join(10)
        assert not thread.is_alive()
        source.stop()
    source.stop()
    os.close(writer)


def test_a_signal_handler_may_stop_a_waiting_program_that_reads_stdin():
    code = (
        "import signal, sys\n"
        "from streamer.sources.files import PcmStream, paced\n"
        "with paced(PcmStream(sys.stdin.buffer)) as source:\n"
        "    signal.signal(signal.SIGTERM, lambda *_: source.stop())\n"
        "    for block in source:\n"
        "        print(source.name, block.end, flush=True)\n"
        "print('stopped in order')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    process.stdin.write(pcm(tone()[:80]))
    process.stdin.flush()
    assert process.stdout.readline() == b"standard input 80\n"
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert output == b"stopped in order\n"


class Script:
    """A source of given items, with the time at which each was asked for."""

    rate = 100
    name = "script"

    def __init__(self, items):
        self.items = items
        self.stopped = self.closed = False

    def stop(self):
        self.stopped = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closed = True

    def __iter__(self):
        return iter(self.items)


def script():
    silence = np.zeros(10, np.float32)
    return Script([Block(0, silence), Gap(10, 20, 100, "overflow"), Block(20, silence)])


def test_paced_items_come_no_earlier_than_their_last_sample_is_due():
    inner = script()
    with paced(inner) as source:
        begin = time.monotonic()
        seen = [(item, time.monotonic() - begin) for item in source]
        assert (source.rate, source.name) == (100, "script")
    assert [item for item, _ in seen] == inner.items
    for item, at in seen:
        assert at >= item.end / 100
    assert inner.closed


def test_a_late_consumer_does_not_delay_what_follows(monkeypatch):
    waits = []
    monkeypatch.setattr("streamer.sources.Bell.wait", lambda _, seconds: waits.append(seconds))
    clock = iter([0.0, 0.35, 0.36, 0.37])  # the first item is asked for at 0, taken at 0.35
    monkeypatch.setattr("streamer.sources.files.time.monotonic", lambda: next(clock))
    with paced(script()) as source:
        assert len(list(source)) == 3
    assert waits == []


def test_stop_wakes_a_paced_source_at_once():
    inner = Script([Block(0, np.zeros(100_000, np.float32))])
    heard = []
    with paced(inner) as source:
        thread = threading.Thread(target=lambda: heard.extend(source))
        thread.start()
        source.stop()
        thread.join(10)
        assert not thread.is_alive()
    assert heard == []
    assert inner.stopped
