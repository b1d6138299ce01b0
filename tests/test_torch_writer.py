"""Writers and transducers of transformers: tiny random ones, and the published Moonshine."""

from __future__ import annotations

import csv
import shutil
import threading
from functools import partial
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
import speech_checkpoints as build
import torch
import transformers
from conftest import RECORDINGS, model_error, words

from streamer.cli import DEMO
from streamer.config import Settings
from streamer.core.window_planner import WindowPlanner
from streamer.live import Transcriber
from streamer.messages import SAMPLE_RATE, Final, Partial, SessionEnded, Window
from streamer.recognition import load_recognizer, resolve, speech_models
from streamer.recognition.moonshine import Moonshine
from streamer.recognition.moonshine_files import installed_folder
from streamer.recognition.speech_models import Listening, kind_of
from streamer.recognition.torch_writer import TorchWriter, written_words
from streamer.sources.files import read_audio
from training.moonshine_checkpoint import write_checkpoint

LANGUAGES = {"seamless": "deu", "whisper": "de", "cohere": "de", "canary": "de"}
WRITERS = (
    "whisper", "moonshine", "moonshine_streaming", "speech_to_text", "speecht5",
    "encoder_decoder", "seamless", "cohere", "canary",
)  # fmt: skip
ACCELERATORS = (
    "cpu",
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(
            not torch.cuda.is_available(), reason="no CUDA device on this machine"
        ),
    ),
)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return read_audio(DEMO)[0][: 2 * SAMPLE_RATE]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Load a tiny checkpoint by the name of its builder, once."""
    loaded: dict[str, tuple[Path, TorchWriter]] = {}

    def loader(name: str, accelerator: str = "cpu", **options: Any) -> tuple[Path, TorchWriter]:
        key = f"{name}{accelerator}{options}"
        if key not in loaded:
            folder = getattr(build, name)(tmp_path_factory.mktemp(name), **options)
            checkpoint = resolve(str(folder))
            loaded[key] = (
                folder,
                TorchWriter(
                    checkpoint,
                    kind_of(checkpoint),
                    accelerator=accelerator,
                    language=LANGUAGES.get(name, ""),
                ),
            )
        return loaded[key]

    return loader


def generated(folder: Path, writer: TorchWriter, samples: np.ndarray, limit: int) -> list[int]:
    """The new tokens of transformers' own greedy loop."""
    name = next(name for name in (*WRITERS, "") if name in folder.name)
    listening = Listening(resolve(str(folder)), writer.model, language=LANGUAGES.get(name, ""))
    heard: list[Any] = []

    class Watching(transformers.LogitsProcessor):
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            heard.append(int(scores.argmax()))
            return scores

    with torch.no_grad():
        writer.model.generate(
            **listening.inputs(samples),
            **listening.generation,
            logits_processor=transformers.LogitsProcessorList([Watching()]),
            max_new_tokens=limit,
            do_sample=False,
            num_beams=1,
        )
    return heard


@pytest.mark.parametrize("accelerator", ACCELERATORS)
@pytest.mark.parametrize("name", WRITERS)
def test_tokens_are_those_of_generate(
    name: str, accelerator: str, load: Any, speech: np.ndarray
) -> None:
    folder, writer = load(name, accelerator)
    writing = writer.write(speech)
    assert len(writing.tokens) > 5
    theirs = generated(folder, writer, speech, len(writing.tokens) + 1)
    if writing.ended == "loop":  # all turns but the first are left out
        theirs = theirs[: len(writing.tokens)]
    else:
        ends = {writer.model.generation_config.eos_token_id}
        assert (theirs[-1] in ends) == (writing.ended == "end")
        theirs = theirs[:-1]
    assert list(writing.tokens) == theirs
    text = Listening(resolve(str(folder)), writer.model, language=LANGUAGES.get(name, "")).spell(
        theirs
    )
    assert "".join(writing.text.split()) == "".join(text.split())


@pytest.mark.parametrize("name", WRITERS)
def test_a_draft_changes_nothing_be_it_right_wrong_or_foreign(
    name: str, load: Any, speech: np.ndarray
) -> None:
    _, writer = load(name)
    plain = writer.write(speech)
    tokens = plain.tokens
    assert writer.uses_drafts
    for draft in (tokens, tokens[:-2], (7, *tokens), (*tokens[:2], 9, *tokens[2:]), (10**6, 7)):
        drafted = writer.write(speech, draft)
        assert drafted.tokens == tokens
        assert drafted.text == plain.text
        assert drafted.ended == plain.ended
        np.testing.assert_allclose(drafted.probabilities, plain.probabilities, atol=1e-3)
        assert drafted.end_probability == pytest.approx(plain.end_probability, abs=1e-3)


def test_a_right_draft_saves_runs_of_the_decoder(load: Any, speech: np.ndarray) -> None:
    _, writer = load("moonshine")
    runs = []
    hook = writer.model.model.decoder.register_forward_hook(lambda *_: runs.append(1))
    try:
        writing = writer.write(speech)
        alone = len(runs)
        runs.clear()
        writer.write(speech, writing.tokens)
    finally:
        hook.remove()
    assert alone > 20
    assert len(runs) <= 2


def test_more_than_can_be_said_is_cut(load: Any, speech: np.ndarray) -> None:
    _, writer = load("moonshine")
    short = speech[SAMPLE_RATE : SAMPLE_RATE * 3 // 2]
    writing = writer.write(short)
    assert writing.ended == "limit"
    assert len(writing.tokens) == writer._limit(len(short)) < SAMPLE_RATE


def test_a_model_that_breaks_is_named(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, writer = load("moonshine")

    def out_of_memory(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")

    monkeypatch.setattr(writer.model, "generate", out_of_memory)
    said = model_error(writer.write, np.zeros(SAMPLE_RATE, np.float32))
    assert "a MoonshineForConditionalGeneration does not write 1.0 s" in said
    assert "(CUDA out of memory.)" in said


@pytest.mark.parametrize("name", ["parakeet_tdt", "moonshine"])
def test_where_half_precision_overflows_single_precision_writes(
    name: str, load: Any, speech: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = load(name)
    speech = speech[:SAMPLE_RATE]
    monkeypatch.setattr(speech_models, "_precision", lambda *_: torch.float16)
    checkpoint = resolve(str(folder))
    writer = TorchWriter(checkpoint, kind_of(checkpoint), accelerator="cpu")
    if name == "moonshine":  # nothing of it overflows by itself
        assert writer.model.dtype == torch.float16
        writer.model.model.encoder.layers[0].mlp.fc1.weight.fill_(60_000)
        writer.model.model.encoder.layers[0].mlp.fc2.weight.fill_(60_000)
    assert writer.write(speech).words
    assert writer.model.dtype == torch.float32


def test_weights_that_are_no_numbers_are_refused(load: Any, tmp_path: Path) -> None:
    folder, writer = load("moonshine")
    broken = shutil.copytree(folder, tmp_path / "broken")
    model = type(writer.model).from_pretrained(broken)
    with torch.no_grad():
        model.model.encoder.conv1.weight[0] = torch.nan
    model.save_pretrained(broken)
    checkpoint = resolve(str(broken))
    said = model_error(partial(TorchWriter, accelerator="cpu"), checkpoint, "writer")
    assert "numbers that are none" in said


def test_a_window_without_room_for_a_word_is_empty(load: Any) -> None:
    _, writer = load("moonshine")
    assert writer.write(np.zeros(1_000, np.float32)).words == ()


def test_another_language_gives_another_text(load: Any, speech: np.ndarray, tmp_path: Path) -> None:
    folder, german = load("whisper")
    checkpoint = resolve(str(folder))
    english = TorchWriter(checkpoint, "writer", accelerator="cpu", language="english")
    translated = TorchWriter(
        checkpoint, "writer", accelerator="cpu", language="de", task="translate"
    )
    texts = {writer.write(speech).text for writer in (german, english, translated)}
    assert len(texts) == 3


def test_an_utterance_and_what_is_around_it_fit_into_a_fixed_window(
    load: Any, speech: np.ndarray
) -> None:
    folder, writer = load("whisper")
    assert writer.longest_s == 30
    recognizer = load_recognizer(Settings(model=str(folder), accelerator="cpu"))
    shape = recognizer.shape
    assert shape.longest_s * SAMPLE_RATE + 2 * shape.context <= 30 * SAMPLE_RATE
    planner = WindowPlanner(Settings(), shape, lambda _: True)
    windows = [*planner.push(np.tile(speech[SAMPLE_RATE:], 70)), *planner.flush()]
    assert max(len(window.samples) for window in windows) <= 30 * SAMPLE_RATE
    assert sum(window.split for window in windows) >= 2


def test_threads_may_share_a_writer(load: Any, speech: np.ndarray) -> None:
    _, writer = load("moonshine")
    _, transducer = load("parakeet_tdt")
    windows = [speech[: SAMPLE_RATE * size // 5] for size in (1, 2, 3)]
    for shared in (writer, transducer):
        alone = [shared.write(window) for window in windows]
        together: list[Any] = [None] * 3

        def work(index: int, shared: TorchWriter = shared, found: list[Any] = together) -> None:
            found[index] = shared.write(windows[index])

        threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert together == alone


# --- transducers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("accelerator", ACCELERATORS)
@pytest.mark.parametrize(
    ("name", "options"),
    [("parakeet_tdt", {}), ("parakeet_tdt", {"tdt": False}), ("nemotron", {})],
)
def test_a_transducer_gives_text_and_times_of_transformers(
    name: str, options: dict[str, Any], accelerator: str, load: Any, speech: np.ndarray
) -> None:
    folder, writer = load(name, accelerator, **options)
    speech = speech[:SAMPLE_RATE]
    writing = writer.write(speech)
    listening = Listening(resolve(str(folder)), writer.model)
    with torch.no_grad():
        theirs = writer.model.generate(
            **listening.inputs(speech),
            max_new_tokens=len(speech) // 128 + 3,
            return_dict_in_generate=True,
        )
    blank = writer.model.config.blank_token_id
    tokens = [int(token) for token in theirs.sequences[0] if token not in (blank, 0)]
    assert list(writing.tokens) == tokens
    assert len(tokens) > 3
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert writing.text == " ".join(tokenizer.decode(tokens, skip_special_tokens=True).split())
    frames = theirs.durations[0].cumsum(0)
    for word in writing.words:
        assert word.span
        assert word.span[0] % 1280 == 0
        assert 0 <= word.span[0] < word.span[1] <= (int(frames[-1]) + 1) * 1280
        assert 0 < word.probability <= 1
    starts = [word.span[0] for word in writing.words if word.span]
    assert starts == sorted(starts)


def test_a_transducers_times_are_those_of_the_final(load: Any, speech: np.ndarray) -> None:
    folder, _ = load("parakeet_tdt")
    recognizer = load_recognizer(Settings(model=str(folder), accelerator="cpu"))
    window = Window(0, 0, speech, 0, len(speech), "final", False, False, 0)
    [reading] = recognizer.recognize([window])
    assert reading.words
    final = recognizer.hypothesis(Settings(min_certainty=0.0)).close(window, reading)
    if not final.words:
        pytest.skip("the gate takes what random weights write for noise")
    for word, written in zip(final.words, reading.words, strict=True):
        assert written.span
        assert abs(word.start - written.span[0] / SAMPLE_RATE) < 0.2


# --- words ---------------------------------------------------------------------------------------

PIECES = {
    1: b" Z", 2: b"\xc3", 3: b"\xbc", 4: b"rich", 5: b",", 6: b" is", 7: b" of the", 8: b"",
    9: b" ", 10: "日本".encode(), 11: "語。".encode(), 12: "ที่".encode(),
}  # fmt: skip


def spell(tokens: Any) -> str:
    return b"".join(PIECES[token] for token in tokens).decode("utf-8", "replace").strip()


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ((), []),
        ((8, 8), []),
        ((1, 2, 3, 4, 5), [("Zürich,", (1, 2, 3, 4, 5))]),
        ((1, 2, 3, 6), [("Zü", (1, 2, 3)), ("is", (6,))]),
        ((6, 7, 6), [("is", (6,)), ("of", (7,)), ("the", ()), ("is", (6,))]),
        ((8, 6, 8, 9), [("is", (8, 6, 8, 9))]),
        ((6, 9, 4), [("is", (6,)), ("rich", (9, 4))]),
        ((10, 11, 6), [("日", (10,)), ("本", ()), ("語。", (11,)), ("is", (6,))]),
        ((4, 12, 12), [("rich", (4,)), ("ที่", (12,)), ("ที่", (12,))]),
    ],
)
def test_tokens_belong_to_the_words_they_spell(tokens: Any, expected: list[Any]) -> None:
    probabilities = [0.9 - 0.1 * index for index in range(len(tokens))]
    found = written_words(tokens, probabilities, spell, [(i, i + 1) for i in range(len(tokens))])
    assert [(word.text, word.tokens) for word in found] == expected
    assert [token for word in found for token in word.tokens] == list(tokens if found else ())
    assert all(word.probability in probabilities for word in found)


# --- the published writer ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("moonshine") / "checkpoint"
    write_checkpoint(folder)
    return folder


@pytest.mark.parametrize("accelerator", ACCELERATORS)
def test_the_published_weights_write_the_same_words_in_torch(
    accelerator: str, published: Path
) -> None:
    """40 clips are compared by `python -m training.moonshine_checkpoint compare`."""
    onnx = Moonshine(installed_folder())
    writer = TorchWriter(resolve(str(published)), "writer", accelerator=accelerator, language="en")
    with (RECORDINGS / "clips.tsv").open(newline="") as table:
        clips = [RECORDINGS / row["file"] for row in csv.DictReader(table, delimiter="\t")]
    ours, theirs = [], []
    for clip in clips[:3]:
        samples = read_audio(clip)[0]
        ours.append(" ".join(words(writer.write(samples).text)))
        theirs.append(" ".join(words(onnx.write(samples).text)))
    assert jiwer.wer(theirs, ours) <= 0.03


@pytest.mark.parametrize("accelerator", ACCELERATORS)
@pytest.mark.parametrize("preview", ["", "embedded-sew"])
def test_a_session_with_one_or_two_models(preview: str, accelerator: str, published: Path) -> None:
    settings = Settings(model=str(published), preview_model=preview, accelerator=accelerator)
    recognizer = load_recognizer(settings)
    samples = read_audio(RECORDINGS / "LJ002-0080.ogg")[0][: 5 * SAMPLE_RATE // 2]
    transcriber = Transcriber(recognizer, SAMPLE_RATE, settings)
    events = [*transcriber.feed(samples), *transcriber.finish()]
    [final] = [event for event in events if isinstance(event, Final)]
    partials = [event for event in events if isinstance(event, Partial)]
    assert words(final.text) == words("The long narrow yard still remained")
    assert len(partials) > 1
    assert isinstance(events[-1], SessionEnded)
    if preview == "embedded-sew":  # it writes no punctuation
        assert "," not in partials[0].tentative
