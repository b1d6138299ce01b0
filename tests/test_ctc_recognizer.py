import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from streamer.config import Settings
from streamer.core.ctc import FrameGrid
from streamer.errors import ModelError, SettingsError
from streamer.messages import Window
from streamer.recognition import load_recognizer, resolve
from streamer.recognition.ctc_recognizer import CtcRecognizer
from streamer.recognition.random_model import random_sew_tiny

LETTERS = "ETAONIHSRDLUMWCFGYPBVK'XJQZ"
VOCABULARY = ["<pad>", "<s>", "</s>", "<unk>", "|", *LETTERS]
SMALL = {
    "vocab_size": 32,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": (16, 16, 16, 16, 16, 16, 16),
    "conv_kernel": (10, 3, 3, 3, 3, 2, 2),
    "conv_stride": (5, 2, 2, 2, 2, 2, 2),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "mask_time_prob": 0.05,
    "pad_token_id": 0,
}
FAMILIES = {
    "sew": (transformers.SEWConfig, transformers.SEWForCTC, {"squeeze_factor": 2}, 640),
    "sew-d": (transformers.SEWDConfig, transformers.SEWDForCTC, {"squeeze_factor": 2}, 640),
    "wav2vec2": (transformers.Wav2Vec2Config, transformers.Wav2Vec2ForCTC, {}, 320),
    "wav2vec2-layer": (
        transformers.Wav2Vec2Config,
        transformers.Wav2Vec2ForCTC,
        {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True},
        320,
    ),
    "hubert": (transformers.HubertConfig, transformers.HubertForCTC, {}, 320),
    "wavlm": (transformers.WavLMConfig, transformers.WavLMForCTC, {}, 320),
    "data2vec": (
        transformers.Data2VecAudioConfig,
        transformers.Data2VecAudioForCTC,
        {"num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 5},
        320,
    ),
}


def save(model, folder, *, normalize=True, rate=16_000):
    """Write a checkpoint as people publish it: weights, config, tokenizer and preprocessor."""
    model.save_pretrained(folder)
    folder = Path(folder)
    vocabulary = {token: number for number, token in enumerate(VOCABULARY)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Wav2Vec2CTCTokenizer", "word_delimiter_token": "|"})
    )
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "feature_extractor_type": "Wav2Vec2FeatureExtractor",
                "do_normalize": normalize,
                "return_attention_mask": False,
                "sampling_rate": rate,
            }
        )
    )
    return folder


def small(family):
    config, model, extra, _ = FAMILIES[family]
    torch.manual_seed(zlib.crc32(family.encode()))
    return model(config(**{**SMALL, **extra})).eval()


@pytest.fixture(scope="module")
def sew(tmp_path_factory):
    """A small SEW checkpoint. Read-only: copy it to change it."""
    return save(small("sew"), tmp_path_factory.mktemp("sew"))


@pytest.fixture(scope="module")
def embedded():
    return load_recognizer(Settings(model="embedded-sew", accelerator="cpu"))


@pytest.fixture
def copy(sew, tmp_path):
    return shutil.copytree(sew, tmp_path / "copy")


def load(folder, **options):
    return CtcRecognizer(resolve(str(folder)), **{"accelerator": "cpu", **options})


def noise(samples, seed=0):
    return np.random.default_rng(seed).normal(0.05, 0.1, samples).astype(np.float32)


def plain_log_probs(folder, model_class, samples):
    """What the documented transformers code gives: processor, model, log-softmax."""
    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(folder)
    model = model_class.from_pretrained(folder, dtype=torch.float32).eval()
    inputs = extractor(samples, sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).logits.log_softmax(-1)[0].numpy()


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_what_plain_transformers_code_gives(family, normalize, tmp_path):
    _, model_class, _, stride = FAMILIES[family]
    folder = save(small(family), tmp_path, normalize=normalize)
    recognizer = load(folder)
    assert recognizer.grid == FrameGrid(hop=320, receptive=400, stride=stride)
    for length in (16_080, 16_400, 17_001):
        ours = recognizer.log_probs(noise(length))
        theirs = plain_log_probs(folder, model_class, noise(length))
        assert ours.shape == (recognizer.grid.frames(length), 32)
        assert ours.dtype == np.float32
        assert len(theirs) - len(ours) in ((0, 1) if stride == 640 else (0,))
        np.testing.assert_allclose(ours, theirs[: len(ours)], atol=1e-5)
        np.testing.assert_allclose(np.exp(ours).sum(axis=1), 1, atol=1e-5)


def test_the_zero_padded_last_frame_of_sew_is_dropped(sew):
    samples = noise(320 * 51 + 80)
    theirs = plain_log_probs(sew, transformers.SEWForCTC, samples)
    ours = load(sew).log_probs(samples)
    assert (len(ours), len(theirs)) == (50, 51)


@pytest.mark.parametrize("length", [0, 1, 399, 400, 719])
def test_a_window_too_short_for_a_frame_gives_no_frame(embedded, length):
    assert embedded.log_probs(noise(length)).shape == (0, 32)


def test_the_shortest_window_gives_the_frames_of_one_stride(embedded):
    assert embedded.log_probs(noise(720)).shape == (2, 32)


def test_silence_gives_finite_numbers(embedded):
    assert np.isfinite(embedded.log_probs(np.zeros(16_080, np.float32))).all()


def test_frames_that_are_no_numbers_say_nothing(embedded, monkeypatch):
    """As where half precision overflows."""
    plain = embedded._network

    def overflowing(samples):
        logits = plain(samples)
        logits[:, 10:20] = np.nan
        return logits

    expected = embedded.log_probs(noise(32_080))
    monkeypatch.setattr(embedded, "_network", overflowing)
    found = embedded.log_probs(noise(32_080))
    assert (found[10:20].argmax(axis=1) == embedded.vocabulary.blank).all()
    assert np.isfinite(found).all()
    expected[10:20] = found[10:20]
    np.testing.assert_array_equal(found, expected)
    embedded.decoder(found)


def test_a_window_always_gives_the_same_result(embedded):
    first = embedded.log_probs(noise(20_560))
    embedded.log_probs(noise(9_680))
    np.testing.assert_array_equal(embedded.log_probs(noise(20_560)), first)


def test_a_batch_of_unequal_lengths_gives_what_single_windows_give(embedded):
    windows = [noise(16_080, 1), noise(720, 2), noise(16_080, 3), noise(100, 4), noise(32_080, 5)]
    results = embedded.log_probs_batch(windows)
    assert [len(result) for result in results] == [50, 2, 50, 0, 100]
    for window, result in zip(windows, results, strict=True):
        np.testing.assert_allclose(result, embedded.log_probs(window), atol=1e-4)
    assert embedded.log_probs_batch([]) == []


def test_windows_of_any_kind_are_recognized_in_their_order(embedded):
    kinds = ("preview", "final", "likely_final", "preview", "final")
    sizes = (16_080, 16_080, 720, 720, 32_080)
    batch = [
        Window(0, 0, noise(size, seed), 0, size, kind, split=False, continues=False, due=size)
        for seed, (size, kind) in enumerate(zip(sizes, kinds, strict=True))
    ]
    readings = embedded.recognize(batch)
    for window, reading in zip(batch, readings, strict=True):
        expected = embedded.log_probs(window.samples)
        np.testing.assert_allclose(reading.emission, expected, atol=1e-4)
        assert reading.words is None
    assert embedded.recognize([]) == []


def test_threads_may_share_one_recognizer(embedded):
    windows = [noise(16_080 + 640 * i, i) for i in range(6)]
    alone = [embedded.log_probs(window) for window in windows]
    together = [None] * len(windows)

    def work(i):
        for _ in range(3):
            together[i] = embedded.log_probs(windows[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(windows))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_embedded_model_gives_what_plain_transformers_code_gives(embedded):
    folder = resolve("embedded-sew").folder
    ours = embedded.log_probs(noise(32_080))
    theirs = plain_log_probs(folder, transformers.SEWForCTC, noise(32_080))
    np.testing.assert_allclose(ours, theirs, atol=2e-4)
    np.testing.assert_array_equal(ours.argmax(axis=1), theirs.argmax(axis=1))


def test_the_recognizer_says_what_it_is(embedded):
    assert (embedded.name, embedded.accelerator) == ("embedded-sew", "cpu")
    assert embedded.vocabulary.tokens == tuple(VOCABULARY)
    assert (embedded.vocabulary.blank, embedded.vocabulary.delimiter) == (0, 4)


def test_a_recognizer_keeps_its_threads_when_another_is_loaded(sew, monkeypatch):
    """In torch the number is one for the whole process."""
    before = torch.get_num_threads()
    first, second = load(sew, threads=2), load(sew)
    assert (first.threads, second.threads) == (2, 1)
    seen = []
    forward = transformers.SEWForCTC.forward

    def watched(*arguments, **options):
        seen.append(torch.get_num_threads())
        return forward(*arguments, **options)

    monkeypatch.setattr(transformers.SEWForCTC, "forward", watched)
    for recognizer in (first, second, first):
        recognizer.log_probs(noise(16_080))
    assert seen == [2, 1, 2]
    assert torch.get_num_threads() == before


def test_the_embedded_model_keeps_its_threads_and_letters_whatever_their_number():
    one, two = (load("embedded-sew", threads=number) for number in (0, 2))
    assert (one.threads, two.threads) == (1, 2)
    expected = two.log_probs(noise(64_080))
    np.testing.assert_allclose(one.log_probs(noise(64_080)), expected, atol=1e-4)
    np.testing.assert_array_equal(two.log_probs(noise(64_080)), expected)


@pytest.mark.parametrize("accelerator", ["cuda", "mps"])
def test_an_absent_accelerator_is_a_settings_error(sew, accelerator):
    there = torch.cuda if accelerator == "cuda" else torch.backends.mps
    if there.is_available():
        pytest.skip(f"this machine has {accelerator}")
    with pytest.raises(SettingsError, match=f"{accelerator}.*not on this machine.*cpu") as caught:
        CtcRecognizer(resolve(str(sew)), accelerator=accelerator)
    assert caught.value.exit_code == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_half_precision_on_cuda_reads_the_same_letters(embedded):
    fast = load_recognizer(Settings(model="embedded-sew", accelerator="cuda"))
    here, there = embedded.log_probs(noise(32_080)), fast.log_probs(noise(32_080))
    assert (here.argmax(axis=1) == there.argmax(axis=1)).mean() > 0.95


# --- the hub's layout, full size --------------------------------------------------------------


def as_published_in_2021(model, folder):
    """pytorch_model.bin with the weight norm's old names, as the hub holds it."""
    folder = save(model, folder)
    (folder / "model.safetensors").unlink()
    state = model.state_dict()
    old = {"parametrizations.weight.original0": "weight_g"}
    old["parametrizations.weight.original1"] = "weight_v"
    for new, former in old.items():
        state = {key.replace(new, former): value for key, value in state.items()}
    assert any(key.endswith("conv.weight_g") for key in state)
    torch.save(state, folder / "pytorch_model.bin")
    return folder


@pytest.mark.parametrize("layout", ["safetensors", "bin"])
def test_a_full_size_model_is_found_in_the_hubs_cache_without_network(layout, tmp_path):
    model = random_sew_tiny().eval()
    assert round(sum(weights.numel() for weights in model.parameters()) / 1e4) == 4073
    home = tmp_path / "hub" / "models--asapp--sew-tiny-100k-ft-ls100h"
    snapshot = home / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    snapshot.mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(snapshot.name)
    (save if layout == "safetensors" else as_published_in_2021)(model, snapshot)
    np.save(tmp_path / "samples.npy", noise(32_080))
    code = (
        "import sys, numpy as np\n"
        "from streamer.config import Settings\n"
        "from streamer.recognition import load_recognizer\n"
        "assert 'torch' not in sys.modules\n"
        "r = load_recognizer(Settings(model='asapp/sew-tiny-100k-ft-ls100h', accelerator='cpu'))\n"
        "assert r.name == 'asapp/sew-tiny-100k-ft-ls100h'\n"
        "np.save('ours.npy', r.log_probs(np.load('samples.npy')))\n"
    )
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    # An endpoint that nothing listens on: any request would fail.
    environ |= {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    theirs = plain_log_probs(snapshot, transformers.SEWForCTC, noise(32_080))
    np.testing.assert_allclose(np.load(tmp_path / "ours.npy"), theirs, atol=1e-5)


# --- what is refused, in one line and with exit code 4 ------------------------------------------


def refused(folder):
    with pytest.raises(ModelError) as caught:
        load(folder)
    message = str(caught.value)
    assert caught.value.exit_code == 4
    assert "\n" not in message
    return message


def test_damaged_safetensors_are_refused(copy):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5_000])
    assert "weights are damaged" in refused(copy)


def test_a_damaged_bin_is_refused(copy):
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"PK\x03\x04 not much of a zip archive")
    assert "weights are damaged" in refused(copy)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("modern", [True, False])
def test_a_bin_that_would_run_code_is_refused_and_does_not(copy, tmp_path, modern):
    (copy / "model.safetensors").unlink()
    touched = tmp_path / "touched"
    with (copy / "pytorch_model.bin").open("wb") as file:
        if modern:
            torch.save({"lm_head.weight": Malicious(touched)}, file)
        else:
            pickle.dump(Malicious(touched), file)
    assert "more than weights" in refused(copy)
    assert not touched.exists()
    torch.load(copy / "pytorch_model.bin", weights_only=False) if modern else pickle.loads(
        (copy / "pytorch_model.bin").read_bytes()
    )
    assert touched.exists(), "the file was not malicious after all"


def test_models_that_are_not_ctc_are_refused(copy):
    (copy / "config.json").write_text(
        json.dumps({"model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"]})
    )
    assert "a WhisperForConditionalGeneration is no CTC model" in refused(copy)
    (copy / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert "a bert is no CTC model" in refused(copy)


def test_weights_of_another_architecture_are_refused(copy):
    (copy / "config.json").write_text(json.dumps({"model_type": "wav2vec2-bert"}))
    assert "its weights" in refused(copy)


def test_unknown_and_unreadable_configurations_are_refused(copy):
    (copy / "config.json").write_text(json.dumps({"model_type": "of-tomorrow"}))
    assert "no model that transformers knows" in refused(copy)
    (copy / "config.json").write_text("{")
    assert "no model that transformers knows" in refused(copy)


def test_a_model_without_a_ctc_head_is_refused(copy):
    small("sew").sew.save_pretrained(copy)
    assert "a SEWModel without a CTC head" in refused(copy)


def test_a_model_with_missing_weights_is_refused(copy):
    state = small("sew").state_dict()
    lost = "sew.encoder.layers.1.final_layer_norm.weight"
    del state[lost]
    (copy / "model.safetensors").unlink()
    torch.save(state, copy / "pytorch_model.bin")
    assert lost in refused(copy)


def test_weights_that_do_not_fit_the_configuration_are_refused(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"intermediate_size": 96}))
    assert "do not fit its config.json" in refused(copy)


def test_impossible_convolutions_are_refused(copy):
    config = json.loads((copy / "config.json").read_text())
    config["conv_stride"][1] = 0
    (copy / "config.json").write_text(json.dumps(config))
    assert "convolutions that cannot be" in refused(copy)


def test_weights_that_are_no_numbers_are_refused(copy):
    weights = load_file(copy / "model.safetensors")
    weights["lm_head.bias"][3] = torch.nan
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    assert "numbers that are none" in refused(copy)


def test_a_missing_vocabulary_is_refused(copy):
    (copy / "vocab.json").unlink()
    assert "no vocab.json" in refused(copy)


def test_a_vocabulary_of_another_size_is_refused(copy):
    (copy / "vocab.json").write_text(json.dumps({f"t{i}": i for i in range(40)}))
    assert "40 tokens, but the model 32 outputs" in refused(copy)


def test_an_adapter_that_changes_the_frames_is_measured(tmp_path):
    config = transformers.Wav2Vec2Config(**SMALL, add_adapter=True)
    recognizer = load(save(transformers.Wav2Vec2ForCTC(config), tmp_path))
    assert recognizer.grid.hop == 8 * 320
    assert recognizer.log_probs(noise(48_000)).shape == (recognizer.grid.frames(48_000), 32)
