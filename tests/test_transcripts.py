import numpy as np
import pytest
import soundfile
from conftest import RECORDING
from scipy.signal import resample_poly

from streamer.config import Settings
from streamer.errors import InputError
from streamer.live import Transcriber
from streamer.messages import SAMPLE_RATE, Final, Partial
from streamer.sources.files import read_audio
from streamer.transcripts import Transcript, transcribe


@pytest.fixture(scope="module")
def recording():
    return read_audio(RECORDING)[0]


@pytest.fixture(scope="module")
def transcript(recognizer):
    return transcribe(RECORDING, recognizer=recognizer)


def test_a_file_is_transcribed_segment_by_segment(transcript, recording, recognizer):
    said = RECORDING.with_suffix(".txt").read_text().splitlines()
    assert transcript.text.startswith(said[0].rstrip("."))
    assert transcript.text == " ".join(segment.text for segment in transcript.segments)
    assert transcript.duration == len(recording) / SAMPLE_RATE
    assert transcript.model == recognizer.name
    assert len(transcript.segments) == len(said)
    ends = [0.0, *(segment.end for segment in transcript.segments)]
    for end, segment in zip(ends, transcript.segments, strict=False):
        assert end <= segment.start < segment.end <= transcript.duration
        assert segment.text
        times = [time for word in segment.words for time in (word.start, word.end)]
        assert times == sorted(times)


def test_an_array_gives_what_its_file_gives(transcript, recording, recognizer):
    assert transcribe(recording, SAMPLE_RATE, recognizer=recognizer) == transcript


def test_a_path_may_be_text_and_channels_are_mixed(transcript, recording, recognizer, tmp_path):
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([recording, recording], axis=1), SAMPLE_RATE, "FLOAT")
    assert transcribe(str(path), recognizer=recognizer).segments == transcript.segments


def test_settings_are_obeyed(transcript, recognizer):
    raw = transcribe(RECORDING, recognizer=recognizer, settings=Settings(raw=True))
    assert raw.text == raw.text.upper() != transcript.text
    deaf = transcribe(RECORDING, recognizer=recognizer, settings=Settings(min_certainty=1.0))
    assert deaf.segments == ()
    assert deaf.text == ""


def test_the_model_is_loaded_when_none_is_given(transcript, recording):
    between = (transcript.segments[0].end + transcript.segments[1].start) / 2
    first = recording[: int(between * SAMPLE_RATE)]
    loaded = transcribe(first, SAMPLE_RATE, settings=Settings(model="embedded-sew"))
    assert loaded.text == transcript.segments[0].text


@pytest.mark.parametrize("whole", [False, True])
def test_progress_is_told_in_seconds_of_audio(recording, recognizer, whole):
    told = []
    source = (recording, SAMPLE_RATE) if whole else (RECORDING,)
    transcribe(*source, recognizer=recognizer, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == len(recording) / SAMPLE_RATE


@pytest.mark.parametrize("extra", [1, 79])
@pytest.mark.parametrize("rate", [48_000, 44_100])
def test_no_event_ends_beyond_the_audio(recording, recognizer, rate, extra):
    """Cut off in the middle of a word."""
    common = np.gcd(rate, SAMPLE_RATE)
    long = resample_poly(recording[: 5 * SAMPLE_RATE], rate // common, SAMPLE_RATE // common)
    part = long[: 4 * rate + extra].astype(np.float32)
    transcriber = Transcriber(recognizer, rate)
    events = [*transcriber.feed(part), *transcriber.finish()]
    timed = [event for event in events if isinstance(event, Partial | Final)]
    assert any(isinstance(event, Final) for event in timed)
    for event in timed:
        assert event.start <= event.end <= len(part) / rate
        if isinstance(event, Final):
            assert all(word.end <= event.end for word in event.words)


def test_no_audio_gives_an_empty_transcript(recognizer):
    empty = transcribe(np.zeros(0, np.float32), 48_000, recognizer=recognizer)
    assert empty == Transcript((), 0.0, recognizer.name)
    assert transcribe([], 48_000, recognizer=recognizer).text == ""


def test_samples_without_a_rate_are_refused(recording, recognizer):
    with pytest.raises(InputError, match=r"transcribe\(audio, rate\)"):
        transcribe(recording, recognizer=recognizer)


@pytest.mark.parametrize("rate", [0, -16_000, 999, 1_000_000])
def test_an_impossible_rate_is_refused(recording, recognizer, rate):
    with pytest.raises(InputError, match=f"{rate}"):
        transcribe(recording, rate, recognizer=recognizer)


def test_a_file_that_cannot_be_read_is_one_error(recognizer, tmp_path):
    with pytest.raises(InputError):
        transcribe(tmp_path / "missing.wav", recognizer=recognizer)
    (tmp_path / "text.wav").write_text("no audio")
    with pytest.raises(InputError):
        transcribe(tmp_path / "text.wav", recognizer=recognizer)


def test_a_sample_that_is_no_number_is_refused(recording, recognizer):
    damaged = recording.copy()
    damaged[3 * SAMPLE_RATE] = np.nan
    with pytest.raises(InputError, match=r"3\.000 s"):
        transcribe(damaged, SAMPLE_RATE, recognizer=recognizer)


def test_enormous_samples_do_no_harm(recording, recognizer):
    """As in files of 32-bit numbers that were written without scaling."""
    loud = transcribe(recording * 32_768, SAMPLE_RATE, recognizer=recognizer)
    assert loud.duration == len(recording) / SAMPLE_RATE
    for segment in transcribe(recording * 1e15, SAMPLE_RATE, recognizer=recognizer).segments:
        assert isinstance(segment, Final)
        assert all(0 <= word.confidence <= 1 for word in segment.words)
