import itertools
import math

import numpy as np
import pytest
import soundfile
from conftest import RECORDING, between_lines

from streamer.config import Settings
from streamer.corpora.layouts import Clip
from streamer.corpora.recordings import Recording
from streamer.errors import SettingsError
from streamer.evaluation.evaluate import NAMES, disagreement, evaluate
from streamer.evaluation.metrics import scored
from streamer.messages import SAMPLE_RATE, Window
from streamer.sources.files import read_audio

SETTINGS = Settings(model="embedded-sew")
CUTS_S = (0.0, *(cut / SAMPLE_RATE for cut in between_lines(read_audio(RECORDING)[0])[:2]))
"""Before its first line, and after its first and second."""


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Two pieces of the bundled recording and what is said in them."""
    samples, _ = read_audio(RECORDING)
    said = RECORDING.with_suffix(".txt").read_text().split("\n")
    folder = tmp_path_factory.mktemp("clips")
    found = []
    for number, (begin, end) in enumerate(itertools.pairwise(CUTS_S)):
        path = folder / f"7-1-{number:04}.wav"
        soundfile.write(path, samples[int(begin * SAMPLE_RATE) : int(end * SAMPLE_RATE)], 16_000)
        found.append(Clip(path, said[number]))
    return found


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def evaluation(recognizer, clips, told):
    """All policies over two recordings of one clip each."""
    recordings = [Recording(clip.path.stem, (clip,)) for clip in clips]
    return evaluate(
        recordings, recognizer, SETTINGS, progress=lambda name, seconds: told.append(name)
    )


def offline(recognizer, path):
    """The clip recognized at once, 0.2 s of faint noise around it."""
    samples, _ = read_audio(path)
    size = recognizer.grid.fit(len(samples) + 6_400)
    window = np.random.default_rng(0).standard_normal(size, np.float32) * 0.003 * samples.std()
    window[3_200 : 3_200 + len(samples)] += samples
    found = recognizer.decoder(recognizer.log_probs(window))
    return " ".join(word.text for word in found)


def test_the_summary_has_the_figures_that_are_promised(evaluation):
    summary = evaluation.summary()
    assert set(summary) == {"model", "files", "seconds", "offline", "as_files", "policies"}
    assert set(summary["as_files"]) == {"wer", "differing", "cost"}
    assert set(summary["offline"]) == {"wer", "cer", "lm"}
    assert set(summary["offline"]["lm"]) == {"wer", "cer"}
    assert tuple(summary["policies"]) == NAMES
    assert NAMES == (
        "streamer",
        "transformers-chunked",
        "growing-buffer",
        "local-agreement-2",
        "middle-token",
    )
    delays = {"word_delay", "settle_delay", "final_delay", "first_word_delay"}
    for name, figures in summary["policies"].items():
        rates = {"offline_wer", "wer", "delta", "disagreement", "upwr", "retracted", "cost"}
        rates |= {"stable_early"}
        assert all(
            set(figures.pop(f"word_{side}_error")) == {"p50", "p95"} for side in ("start", "end")
        )
        if name == "streamer":  # which alone tells confidences
            rates |= {"calibration_error", "mean_confidence", "words_right"}
        assert set(figures) == delays | rates
        assert all(set(figures[name]) == {"p50", "p95"} for name in delays)


def test_the_figures_are_finite_and_plausible(evaluation):
    summary = evaluation.summary()
    assert summary["files"] == 2
    assert summary["seconds"] == pytest.approx(CUTS_S[-1])
    assert 0 <= summary["offline"]["cer"] <= summary["offline"]["wer"] < 0.5
    for name, figures in summary["policies"].items():
        assert 0 <= figures["wer"] < 0.5, name
        read = summary["offline"]["lm"]["wer"]
        assert figures["offline_wer"] == read
        assert figures["delta"] == pytest.approx(figures["wer"] - read)
        assert 0 <= figures["disagreement"] < 0.6, name
        settles = name != "growing-buffer"
        known = ("word_delay", *["settle_delay"] * settles, "final_delay", "first_word_delay")
        for delay in known:
            p50, p95 = figures[delay]["p50"], figures[delay]["p95"]
            assert -0.5 < p50 <= p95, (name, delay)
            assert math.isfinite(p95)
        if settles:
            assert figures["settle_delay"]["p50"] >= figures["word_delay"]["p50"]
            assert 0 <= figures["retracted"] <= 1
        assert figures["first_word_delay"]["p50"] <= figures["final_delay"]["p50"] + CUTS_S[-1]
        assert figures["upwr"] >= 0
        assert 0 < figures["cost"] < 60
    assert 2 < evaluation.speech_s < CUTS_S[-1]
    ours = summary["policies"]["streamer"]
    words = sum(len(text.split()) for text in evaluation.policies["streamer"].texts)
    assert len(evaluation.policies["streamer"].confidence.claimed) == words
    assert 0.5 < ours["words_right"] <= 1
    assert 0 < ours["mean_confidence"] < 1
    assert ours["calibration_error"] >= abs(ours["mean_confidence"] - ours["words_right"]) - 1e-3


def test_final_words_wait_for_the_silence_after_the_end_of_the_recording(evaluation):
    """As live: no policy is told that nothing more will come."""
    for figures in evaluation.policies.values():
        assert min(figures.delays.final) >= 0.5


def test_every_word_of_the_offline_text_is_timed_or_never_shown(evaluation):
    words = sum(len(text.split()) for text in evaluation.offline.texts)
    for figures in evaluation.policies.values():
        delays = figures.delays
        assert len(delays.word) + delays.never_shown == words
        assert len(delays.settle) <= len(delays.word)
        assert len(delays.word) > words / 2


def test_our_final_text_is_that_of_the_growing_buffer(evaluation):
    ours, growing = (evaluation.policies[name] for name in ("streamer", "growing-buffer"))
    assert ours.texts == growing.texts
    assert growing.delays.settle[0] >= ours.delays.settle[0]


def test_policies_that_never_change_stable_words_retract_none(evaluation):
    policies = evaluation.summary()["policies"]
    for name in ("transformers-chunked", "local-agreement-2", "middle-token"):
        assert policies[name]["retracted"] == 0


def test_a_policy_that_calls_nothing_stable_has_no_figures_of_it(evaluation, written):
    for found in (evaluation, written):
        figures = found.summary()["policies"]["growing-buffer"]
        assert figures["settle_delay"] == {"p50": None, "p95": None}
        assert figures["retracted"] is None
        assert figures["stable_early"] is None
        assert figures["word_delay"]["p50"] is not None


def test_offline_is_the_clip_recognized_at_once(evaluation, recognizer, clips):
    texts = [offline(recognizer, clip.path) for clip in clips]
    assert evaluation.offline.clip_texts == evaluation.offline.texts == texts


def test_files_have_the_text_of_the_live_path_for_less(evaluation):
    files, ours = evaluation.as_files, evaluation.policies["streamer"]
    assert files.texts == ours.texts
    assert evaluation.summary()["as_files"]["differing"] == []
    assert 0 < files.cpu_s < ours.cpu_s


def test_a_recording_whose_file_has_another_text_is_named(recognizer, clips, monkeypatch):
    monkeypatch.setattr("streamer.evaluation.evaluate._without_previews", lambda *_: "Other words.")
    recordings = [Recording("one", (clips[0],))]
    found = evaluate(recordings, recognizer, SETTINGS, ["streamer"])
    assert found.summary()["as_files"]["differing"] == ["one"]
    assert found.as_files.texts == ["OTHER WORDS"]


@pytest.fixture(scope="module")
def written(writer, clips):
    """All policies that a writer has, over the second line."""
    return evaluate([Recording("two", (clips[1],))], writer, SETTINGS)


def test_a_writer_has_the_same_figures_but_those_of_frames(written):
    summary = written.summary()
    assert list(summary["policies"]) == ["streamer", "growing-buffer", "local-agreement-2"]
    assert set(summary["offline"]) == {"wer", "cer"}
    assert summary["as_files"]["differing"] == []
    assert summary["offline"]["wer"] < 0.2
    for figures in summary["policies"].values():
        assert figures["wer"] < 0.2
        assert figures["word_delay"]["p50"] > -0.5
    ours = summary["policies"]["streamer"]
    assert ours["word_delay"]["p50"] <= ours["settle_delay"]["p50"]
    assert ours["words_right"] > 0.8


def test_final_words_begin_and_end_near_where_the_transcript_is_aligned(written, evaluation):
    for found in (written, evaluation):
        summary = found.summary()["policies"]
        for side in ("start", "end"):
            error = summary["streamer"][f"word_{side}_error"]
            assert 0 <= error["p50"] <= 0.06
            assert error["p50"] <= error["p95"] < 0.6
        times = found.policies["streamer"].word_times
        said = sum(len(text.split()) for text in found.references)
        assert 0.5 * said < len(times.start) == len(times.end) <= said
        # Policies that tell no times have no errors.
        assert summary["growing-buffer"]["word_end_error"] == {"p50": None, "p95": None}


def test_a_clip_is_written_as_its_final_would_be(written, writer, clips):
    samples, _ = read_audio(clips[1].path)
    window = Window(0, 0, samples, 0, len(samples), "final", False, False, len(samples))
    [reading] = writer.recognize([window])
    text = " ".join(word.text for word in reading.words)
    assert written.offline.texts == [scored(text)]
    ends = [word.end for word in written.offline.words]
    assert ends == sorted(ends)
    assert 0 < ends[0] < ends[-1] <= len(samples) / SAMPLE_RATE


@pytest.mark.parametrize("name", ["transformers-chunked", "middle-token"])
def test_policies_of_frames_need_a_ctc_model(writer, name):
    with pytest.raises(SettingsError, match=f"{name} joins the frames of a CTC model") as caught:
        evaluate([], writer, SETTINGS, ["streamer", name])
    assert caught.value.exit_code == 2


def test_progress_names_what_has_been_heard(evaluation, told):
    assert told == ["offline", *NAMES] * 2


def test_clips_that_are_joined_are_one_recording_and_as_many_references(recognizer, clips):
    whole = Recording("7-1", tuple(clips))
    joined = evaluate([whole], recognizer, SETTINGS, ["streamer"])
    summary = joined.summary()
    assert (summary["files"], summary["seconds"]) == (1, CUTS_S[-1])
    assert joined.offline.clip_texts == [offline(recognizer, clip.path) for clip in clips]
    assert joined.offline.texts == [" ".join(joined.offline.clip_texts)]
    assert joined.references == [" ".join(joined.clip_references)]
    assert list(summary["policies"]) == ["streamer"]
    delays = joined.policies["streamer"].delays
    assert joined.policies["streamer"].word_times.end
    assert np.median(joined.policies["streamer"].word_times.end) < 0.1
    # The second clip's words are timed from the beginning of the whole.
    assert len(delays.word) > len(joined.offline.texts[0].split()) / 2
    assert all(-0.5 < delay < 4 for delay in delays.word)


def test_a_policy_that_is_named_twice_runs_once(recognizer, clips):
    recording = Recording("one", (clips[0],))
    once = evaluate([recording], recognizer, SETTINGS, ["middle-token", "middle-token"])
    assert len(once.policies["middle-token"].texts) == 1
    assert list(once.summary()["policies"]) == ["middle-token"]


def test_noise_in_which_nothing_is_said_has_figures_too(recognizer, tmp_path):
    path = tmp_path / "noise.wav"
    noise = np.random.default_rng(1).standard_normal(2 * SAMPLE_RATE) * 0.001
    soundfile.write(path, noise, SAMPLE_RATE)
    recording = Recording("noise", (Clip(path, "[noise]"),))
    summary = evaluate([recording], recognizer, SETTINGS, ["streamer"]).summary()
    figures = summary["policies"]["streamer"]
    assert figures["wer"] == 0
    assert figures["word_delay"] == figures["final_delay"] == {"p50": None, "p95": None}
    assert figures["calibration_error"] is None
    assert 0 <= figures["cost"] < 10


def test_recordings_at_another_rate_are_timed_in_seconds(recognizer, clips, tmp_path):
    samples, _ = read_audio(clips[0].path)
    path = tmp_path / "48k.wav"
    soundfile.write(path, np.repeat(samples, 3), 48_000)
    found = evaluate([Recording("48k", (Clip(path, clips[0].text),))], recognizer, SETTINGS, [])
    assert found.seconds == pytest.approx(CUTS_S[1])


def test_the_walls_clock_gives_the_same_text(recognizer, clips):
    recording = Recording("one", (clips[0],))
    fast, real = (
        evaluate([recording], recognizer, SETTINGS, ["middle-token"], real_pace=pace)
        for pace in (False, True)
    )
    policy = real.policies["middle-token"]
    assert policy.texts == fast.policies["middle-token"].texts
    assert min(policy.delays.final) >= 0.5


def test_disagreement_is_word_edits_over_offline_words():
    assert disagreement(["A B C D"], ["A X C"]) == pytest.approx(2 / 4)
    assert disagreement(["A B", "C D"], ["A B", "C D E"]) == pytest.approx(1 / 4)
    assert disagreement(["A B", ""], ["A B", "OH"]) == pytest.approx(1 / 2)
    assert disagreement(["A B"], [""]) == 1
    assert disagreement([""], [""]) == 0
    assert disagreement([""], ["OH NO"]) == 2
    assert disagreement([], []) == 0
