"""Hotwords of the writer, heard on recorded speech that it misspells without them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_moonshine import clip, drafts, model_folder

from streamer.config import Settings
from streamer.live import Transcriber
from streamer.messages import SAMPLE_RATE, Final, Partial
from streamer.recognition import load_recognizer
from streamer.recognition.moonshine import Moonshine
from streamer.recognition.moonshine_files import TOKENIZER, Tokenizer

LIST = ["# people and places", "", "Eunuch", "minims", "narcotic"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(model_folder() / TOKENIZER)


@pytest.mark.parametrize(
    "text", ["streamer", "McKinsey", "naïve Zürich", "日本", "al-Makan 7", "a"]
)
def test_any_phrase_is_spelled_in_tokens_that_read_as_it(tokenizer, text):
    assert tokenizer.spell(tuple(tokenizer.encode(text))) == f" {text}"


def test_a_phrase_has_the_tokens_that_the_model_itself_writes(tokenizer, speech_dir):
    samples, _ = clip(speech_dir, "1998-15444-0001.flac")
    for word in Moonshine(model_folder()).write(samples).words:
        assert tuple(tokenizer.encode(word.text)) == word.tokens


@pytest.mark.parametrize(
    ("name", "hotword", "written"),
    [
        ("2033-164914-0003.flac", "Eunuch", "Eunuch,"),  # the case of the list
        ("1998-15444-0008.flac", "minims", "minims."),
        ("1998-15444-0009.flac", "narcotic", "narcotic"),
    ],
)
def test_a_name_that_is_said_takes_the_place_of_what_was_misheard(
    speech_dir, name, hotword, written
):
    samples, _ = clip(speech_dir, name)
    plain = Moonshine(model_folder()).write(samples)
    writing = Moonshine(model_folder(), hotwords=[hotword]).write(samples)
    assert written not in [word.text for word in plain.words]
    (found,) = (word for word in writing.words if word.text == written)
    assert 0.5 <= found.probability <= 1
    assert len(writing.tokens) == len(writing.probabilities)
    assert abs(len(writing.words) - len(plain.words)) <= 1


def test_names_that_nobody_says_change_nothing(speech_dir):
    samples, _ = clip(speech_dir, "1998-15444-0001.flac")
    names = ["Quilter", "Zarathustra", "Nebuchadnezzar", "Helstone", "bedfordshire", "New Orleans"]
    assert Moonshine(model_folder(), hotwords=names).write(samples) == Moonshine(
        model_folder()
    ).write(samples)


def test_with_hotwords_too_the_text_does_not_depend_on_the_draft(speech_dir):
    samples, _ = clip(speech_dir, "2033-164914-0003.flac")
    moonshine = Moonshine(model_folder(), hotwords=["Eunuch"])
    random = np.random.default_rng(0)
    for seconds in (1.5, 6.0):
        writing = moonshine.write(samples[: int(seconds * SAMPLE_RATE)])
        for kind, draft in drafts(writing.tokens, random).items():
            assert moonshine.write(samples[: int(seconds * SAMPLE_RATE)], draft) == writing, kind
    assert "Eunuch," in writing.text.split()


def test_a_list_of_names_is_heard_live(speech_dir, tmp_path: Path):
    samples, _ = clip(speech_dir, "2033-164914-0003.flac")
    (tmp_path / "names.txt").write_text("\n".join(LIST), encoding="utf-8")
    settings = Settings(hotwords=tmp_path / "names.txt")
    transcriber = Transcriber(load_recognizer(settings), SAMPLE_RATE, settings)
    events = []
    for block in np.split(samples, range(0, len(samples), SAMPLE_RATE // 50)[1:]):
        events += transcriber.feed(block)
    events += transcriber.finish()
    stable: dict[int, str] = {}
    for event in events:
        if isinstance(event, Partial):
            assert event.stable.startswith(stable.get(event.segment, ""))
            stable[event.segment] = event.stable
    text = " ".join(event.text for event in events if isinstance(event, Final))
    assert "Eunuch" in {word.strip(".,") for word in text.split()}
