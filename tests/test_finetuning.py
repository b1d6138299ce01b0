import shutil

import numpy as np
import pytest
import torch
import transformers
from transformers import SEWModel

from streamer.config import Settings
from streamer.errors import ModelError
from streamer.recognition import load_finetuning, load_recognizer, resolve
from streamer.recognition.checkpoint_files import (
    BEAM_RULES,
    EMBEDDED_FOLDER,
    LIVE_RULES,
    SEW_TINY_LETTERS,
)
from streamer.recognition.onnx_network import OnnxNetwork
from streamer.recognition.random_model import random_sew_tiny, write_random_sew_tiny

CPU = Settings(accelerator="cpu")
HELLO = (11, 5, 15, 15, 8)


@pytest.fixture(autouse=True)
def threads():
    """The number of threads is one for the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def load(folder, **options):
    return load_finetuning(resolve(str(folder), letters=False), CPU, **options)


def noise(model, seconds=1.0, clips=2):
    size = model.grid.fit(int(16_000 * seconds))
    return np.random.default_rng(0).standard_normal((clips, size), np.float32)


def learn(model, steps, rate=1e-3):
    rows = noise(model)
    frames = [model.grid.frames(rows.shape[1])] * len(rows)
    return [model.step(rows, frames, [HELLO] * len(rows), rate) for _ in range(steps)]


def test_what_it_hears_is_what_the_recognizer_hears(recognizer):
    model = load_finetuning(resolve("embedded-sew"), CPU)
    sound = noise(model)[0] * 0.1
    assert np.abs(model.log_probs(sound) - recognizer.log_probs(sound)).max() < 1e-3
    assert model.vocabulary == recognizer.vocabulary
    assert model.grid == recognizer.grid


def test_steps_teach_it_what_was_said():
    model = load_finetuning(resolve("embedded-sew"), CPU)
    losses = learn(model, 12)
    assert losses[-1] < losses[0] / 2


def test_the_convolutions_stay_as_they_are_unless_asked_for():
    for train_features in (False, True):
        model = load_finetuning(resolve("embedded-sew"), CPU, train_features=train_features)
        before = model.weights()
        learn(model, 2)
        changed = {name for name, value in model.weights().items() if not value.equal(before[name])}
        assert any(name.startswith("sew.encoder.layers") for name in changed)
        assert "lm_head.weight" in changed
        in_features = any(name.startswith("sew.feature_extractor") for name in changed)
        assert in_features == train_features


def test_weights_can_be_taken_back_and_mixed():
    model = load_finetuning(resolve("embedded-sew"), CPU)
    old = model.weights()
    learn(model, 2)
    new = model.weights()
    model.mix(old, new, 0.25)
    middle = model.weights()["lm_head.bias"]
    expected = 0.75 * old["lm_head.bias"] + 0.25 * new["lm_head.bias"]
    assert torch.allclose(middle, expected, atol=1e-6)
    model.set_weights(old)
    assert model.weights()["lm_head.bias"].equal(old["lm_head.bias"])


def test_what_is_saved_loads_and_says_the_same(tmp_path):
    model = load_finetuning(resolve("embedded-sew"), CPU)
    learn(model, 3)
    model.save(tmp_path / "new")
    sound = noise(model)[0]
    saved = load_recognizer(str(tmp_path / "new"))
    # Weights are kept in half precision.
    assert np.abs(model.log_probs(sound) - saved.log_probs(sound)).max() < 0.05
    assert isinstance(saved._network, OnnxNetwork), "the graph is as good for these weights"
    assert saved.vocabulary == model.vocabulary
    assert saved.decoder.has_language_model, "the language model is as good for these weights"
    for kept in (LIVE_RULES, BEAM_RULES):
        assert (tmp_path / "new" / kept).read_bytes() == (EMBEDDED_FOLDER / kept).read_bytes()
    assert (tmp_path / "new" / "WORDNET-LICENSE").is_file()
    assert saved.calibration is None, "that was of the old weights"


def test_weights_that_are_no_numbers_are_never_saved(tmp_path):
    model = load_finetuning(resolve("embedded-sew"), CPU)
    model.set_weights({name: value * torch.nan for name, value in model.weights().items()})
    with pytest.raises(ModelError, match="out of bounds"):
        model.save(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_full_size_fine_tuned_sew_tiny_takes_a_step(tmp_path):
    write_random_sew_tiny(tmp_path)
    model = load(tmp_path)
    assert not model.new_head
    [loss] = learn(model, 1)
    assert np.isfinite(loss)
    model.save(tmp_path / "new")
    assert transformers.SEWForCTC.from_pretrained(tmp_path / "new").num_parameters() > 40_700_000


def test_a_full_size_pre_trained_sew_tiny_gets_a_new_head_and_takes_a_step(tmp_path):
    # As asapp/sew-tiny-100k lies on the hub: no vocabulary, no head, weights of the bare network.
    write_random_sew_tiny(tmp_path)
    for name in ("vocab.json", "tokenizer_config.json", "special_tokens_map.json"):
        (tmp_path / name).unlink()
    bare = SEWModel(random_sew_tiny().config)
    torch.save(bare.state_dict(), tmp_path / "pytorch_model.bin")
    model = load(tmp_path)
    assert model.new_head
    assert model.vocabulary == SEW_TINY_LETTERS
    before = model.weights()
    name = "sew.encoder.layers.0.attention.k_proj.weight"
    assert before[name].equal(bare.state_dict()[name.removeprefix("sew.")])
    [loss] = learn(model, 1)
    assert np.isfinite(loss)
    assert not model.weights()["lm_head.weight"].equal(before["lm_head.weight"])
    model.save(tmp_path / "new")
    saved = load_recognizer(str(tmp_path / "new"))
    assert saved.vocabulary == SEW_TINY_LETTERS


def test_a_damaged_model_is_refused_as_everywhere(tmp_path):
    shutil.copytree(resolve("embedded-sew").folder, tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="damaged"):
        load(tmp_path / "broken")
