"""Checkpoints of every kind, tiny and with random weights, through the real libraries."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import speech_checkpoints as build
import torch
import transformers
from conftest import model_error
from tokenizers import Tokenizer, models

from streamer.cli import main
from streamer.config import Settings
from streamer.core.ctc import decode
from streamer.errors import SettingsError
from streamer.recognition import Checkpoint, load_recognizer, resolve
from streamer.recognition.checkpoint_files import read_live_rules
from streamer.recognition.ctc_recognizer import CtcRecognizer
from streamer.recognition.feature_network import vocabulary_of
from streamer.recognition.speech_models import Listening, kind_of, load_speech_model, resampled

CPU = {"accelerator": "cpu"}


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(samples) * 0.1).astype(np.float32)


def ctc(folder: Path) -> CtcRecognizer:
    return CtcRecognizer(resolve(str(folder)), accelerator="cpu")


# --- kinds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("parakeet_ctc", "ctc"),
        ("wav2vec2_bert", "ctc"),
        ("parakeet_tdt", "transducer"),
        ("nemotron", "transducer"),
        ("whisper", "writer"),
        ("canary", "writer"),
    ],
)
def test_the_kind_follows_from_the_configuration_alone(
    name: str, kind: str, tmp_path: Path
) -> None:
    getattr(build, name)(tmp_path)
    for file in tmp_path.glob("*.safetensors"):
        file.unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    config.pop("architectures")
    build.write(tmp_path, "config.json", config)
    assert kind_of(Checkpoint(tmp_path, "somebody/something")) == kind


@pytest.mark.parametrize("model_type", ["bert", "vits", "of-tomorrow"])
def test_what_makes_no_text_of_speech_is_refused(model_type: str, tmp_path: Path) -> None:
    build.write(tmp_path, "config.json", {"model_type": model_type})
    said = model_error(kind_of, Checkpoint(tmp_path, "name"))
    assert said.startswith("name: ")
    assert "no text of speech" in said or "no model that transformers" in said


def test_a_model_that_speaks_is_refused_although_transformers_maps_it(tmp_path: Path) -> None:
    """Dia makes speech of text, and is in the mapping of speech to text."""
    build.word_pieces(tmp_path)
    sub = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    cross = {"cross_num_attention_heads": 2, "cross_num_key_value_heads": 2, "cross_head_dim": 8}
    config = transformers.DiaConfig(
        encoder_config={**sub, **heads},
        decoder_config={**sub, **heads, **cross, "cross_hidden_size": 16},
    )
    build.save(transformers.DiaForConditionalGeneration(config), tmp_path)
    transformers.DiaFeatureExtractor().save_pretrained(tmp_path)
    said = model_error(load_recognizer, Settings(model=str(tmp_path), **CPU))
    assert "takes text, not speech alone" in said


def test_lacking_files_and_weights_are_named(tmp_path: Path) -> None:
    build.moonshine(tmp_path)
    settings = Settings(model=str(tmp_path), **CPU)
    extractor = tmp_path / "preprocessor_config.json"
    kept = extractor.read_text()
    extractor.unlink()
    assert "no feature extractor" in model_error(load_recognizer, settings)
    extractor.write_text(kept)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    assert "its weights are damaged" in model_error(load_recognizer, settings)
    (tmp_path / "tokenizer.json").unlink()
    assert "no vocab.json or tokenizer.json" in model_error(load_recognizer, settings)


def test_missing_weights_are_counted(tmp_path: Path) -> None:
    build.moonshine(tmp_path)
    model = transformers.MoonshineForConditionalGeneration.from_pretrained(tmp_path)
    state = model.state_dict()
    del state["model.encoder.conv1.weight"]
    (tmp_path / "model.safetensors").unlink()
    torch.save(state, tmp_path / "pytorch_model.bin")
    said = model_error(load_speech_model, resolve(str(tmp_path)), "cpu")
    assert "1 of its weights are missing, model.encoder.conv1.weight" in said


# --- languages -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build.whisper(tmp_path_factory.mktemp("whisper"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"language": "xx"}, "knows de, en, fr"),
        ({"language": "en", "max_utterance_s": 60}, "hears 30 s at once"),
    ],
)
def test_what_a_multilingual_model_does_not_know_is_a_settings_error(
    settings: dict, said: str, whisper: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SettingsError, match=said):
        load_recognizer(Settings(model=str(whisper), **CPU, **settings))
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    command = ["listen", "--demo", "--pace", "fast", "--model", str(whisper), *flags]
    assert main(command) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert said in line


def test_language_and_task_reach_the_prompt(whisper: Path) -> None:
    model = load_speech_model(resolve(str(whisper)), "cpu")

    def generation(**asked: str) -> dict:
        return Listening(resolve(str(whisper)), model, **asked).generation

    assert generation() == {"task": "transcribe"}
    assert generation(language="de", task="translate") == {"language": "de", "task": "translate"}
    assert generation(language="german") == {"language": "german", "task": "transcribe"}


def test_a_model_that_needs_a_language_says_so(tmp_path: Path) -> None:
    build.seamless(tmp_path)
    with pytest.raises(SettingsError, match=r"must be told the language.*deu, eng"):
        load_recognizer(Settings(model=str(tmp_path), **CPU))


@pytest.mark.parametrize("model", ["moonshine-tiny", "embedded-sew"])
@pytest.mark.parametrize("given", [{"language": "de"}, {"task": "translate"}])
def test_models_of_one_language_refuse_another(model: str, given: dict) -> None:
    with pytest.raises(SettingsError, match="has no choice of it"):
        load_recognizer(Settings(model=model, **given))


# --- CTC -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["parakeet_ctc", "lasr_ctc"])
def test_word_pieces_give_the_text_of_transformers(name: str, tmp_path: Path) -> None:
    getattr(build, name)(tmp_path)
    recognizer = ctc(tmp_path)
    samples = noise(recognizer.grid.fit(48_000))
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    model = transformers.AutoModelForCTC.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        inputs = extractor(samples, sampling_rate=16_000, return_tensors="pt")
        path = model(**inputs).logits[0].argmax(-1)[: recognizer.grid.frames(len(samples))]
    tokens = [int(t) for i, t in enumerate(path) if t != 0 and (not i or t != path[i - 1])]
    words = decode(recognizer.log_probs(samples), recognizer.vocabulary)
    assert len(words) > 3
    assert " ".join(word.text for word in words) == " ".join(
        tokenizer.decode(tokens, skip_special_tokens=True).split()
    )
    for word in words:
        assert 0 <= word.start < word.end <= recognizer.grid.frames(len(samples))


@pytest.mark.parametrize(
    ("name", "options", "hop"),
    [
        ("parakeet_ctc", {}, 1280),
        ("lasr_ctc", {}, 640),
        ("wav2vec2_bert", {}, 640),
        ("wav2vec2_at", {"rate": 8_000}, 640),
    ],
)
def test_frames_fit_the_audio_whatever_the_features(
    name: str, options: dict, hop: int, tmp_path: Path
) -> None:
    getattr(build, name)(tmp_path, **options)
    recognizer = ctc(tmp_path)
    grid = recognizer.grid
    assert (grid.hop, grid.stride) == (hop, hop)
    for length in (grid.fit(1), grid.fit(16_000), 20_000, grid.fit(100_000)):
        assert len(recognizer.log_probs(noise(length))) == grid.frames(length)
    embedded = read_live_rules(tmp_path).settle_frames
    assert embedded * 320 <= recognizer.rules.settle_frames * hop < embedded * 320 + hop


def test_frames_that_no_grid_fits_are_refused(tmp_path: Path) -> None:
    build.wav2vec2_at(tmp_path, 48_000)
    assert "107 samples apart" in model_error(ctc, tmp_path)


def test_a_live_session_of_word_pieces_ends_with_its_account(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build.parakeet_ctc(tmp_path)
    flags = ["--model", str(tmp_path), "--format", "jsonl", "--min-certainty", "0"]
    assert main(["listen", "--demo", "--pace", "fast", *flags]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1]["event"] == "end"
    assert any(line["event"] == "final" for line in lines)


def test_hotwords_need_a_delimiter(tmp_path: Path) -> None:
    build.parakeet_ctc(tmp_path)
    (tmp_path / "words").write_text("Zürich\n")
    with pytest.raises(SettingsError, match="does not part words"):
        load_recognizer(Settings(model=str(tmp_path), hotwords=tmp_path / "words", **CPU))


def spelling(*names: str) -> transformers.PreTrainedTokenizerFast:
    ids = {name: number for number, name in enumerate(names)}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(ids, unk_token=names[0])), pad_token=names[0]
    )


def test_characters_of_several_bytes_are_put_together() -> None:
    tokenizer = spelling("<pad>", "<0xC3>", "<0xBC>", "\u2581Z", "rich", "\u2581née")
    vocabulary = vocabulary_of(tokenizer, 7, 0)
    path = [3, 1, 2, 4, 0, 5]
    log_probs = np.full((len(path), 7), -20.0, np.float32)
    log_probs[np.arange(len(path)), path] = 0
    assert [word.text for word in decode(log_probs, vocabulary)] == ["Zürich", "née"]
    assert 6 in vocabulary.special


def test_a_space_among_letters_is_a_delimiter() -> None:
    vocabulary = vocabulary_of(spelling("<pad>", " ", "a", "b"), 4, 0)
    assert (vocabulary.delimiter, vocabulary.openers) == (1, frozenset())
    assert vocabulary.tokens[2:] == ("a", "b")


@pytest.mark.parametrize("rate", [8_000, 22_050, 24_000, 48_000])
def test_a_tone_keeps_its_pitch_at_another_rate(rate: int) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000).astype(np.float32)
    heard = resampled(tone, rate)
    assert len(heard) == rate
    assert np.abs(np.fft.rfft(heard)).argmax() == 440
