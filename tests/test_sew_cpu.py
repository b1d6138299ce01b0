import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from streamer.recognition.accelerators import multiplies_bfloat16
from streamer.recognition.checkpoint_files import frame_grid
from streamer.recognition.random_model import random_sew_tiny, write_random_sew_tiny
from streamer.recognition.sew_cpu import load_packed, product

pytestmark = pytest.mark.skipif(
    not torch.backends.cpu.get_cpu_capability().startswith("AVX"),
    reason="no x86 processor with AVX: the modules are used as they are",
)
SHAPES = {
    "overlapping steps only": {
        "conv_dim": (16, 16, 16),
        "conv_kernel": (10, 4, 3),
        "conv_stride": (5, 2, 2),
    },
    "steps that do not overlap": {
        "conv_dim": (16, 32, 32, 32),
        "conv_kernel": (10, 3, 1, 2),
        "conv_stride": (5, 2, 1, 2),
    },
    "with biases": {
        "conv_dim": (16, 32, 32),
        "conv_kernel": (10, 3, 2),
        "conv_stride": (5, 2, 2),
        "conv_bias": True,
    },
}


def of_shape(**shape):
    torch.manual_seed(0)
    config = transformers.SEWConfig(
        vocab_size=32,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        squeeze_factor=2,
        **shape,
    )
    return transformers.SEWForCTC(config).eval()


def both(model, samples, folder):
    """What transformers' modules give, and what the packed network gives, saved in between."""
    model.save_pretrained(folder)
    packed = load_packed(folder)
    assert packed
    with torch.inference_mode():
        return model(samples).logits.numpy(), packed(samples).numpy()


@pytest.mark.parametrize("windows", [1, 3])
@pytest.mark.parametrize("positions", [(16, 4), (7, 1)], ids=["even", "odd"])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_gives_what_the_modules_give(shape, positions, windows, tmp_path):
    kernel, groups = positions
    shape = SHAPES[shape] | {
        "num_conv_pos_embeddings": kernel,
        "num_conv_pos_embedding_groups": groups,
    }
    model = of_shape(**shape)
    grid = frame_grid(model.config.to_dict())
    for length in (grid.fit(2_000), grid.fit(9_000), grid.fit(9_000) + grid.stride - 1):
        samples = torch.randn(windows, length)
        plain, packed = both(model, samples, tmp_path)
        frames = grid.frames(length)
        assert packed.shape[1] >= frames
        np.testing.assert_allclose(packed[:, :frames], plain[:, :frames], atol=1e-5)


def test_at_full_size_the_logits_differ_by_less_than_a_thousandth(tmp_path):
    torch.manual_seed(0)
    model = random_sew_tiny().eval()
    grid = frame_grid(model.config.to_dict())
    samples = torch.randn(1, grid.fit(16_000 * 4))
    plain, packed = both(model, samples, tmp_path)
    frames = grid.frames(samples.shape[1])
    np.testing.assert_allclose(packed[:, :frames], plain[:, :frames], atol=1e-3)
    assert (packed[:, :frames].argmax(-1) == plain[:, :frames].argmax(-1)).all()


@pytest.mark.skipif(
    not multiplies_bfloat16(),
    reason="the processor has no products of bfloat16: a draft is what the rest is",
)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_draft_is_near_and_changes_nothing_else(shape, tmp_path):
    model = of_shape(**SHAPES[shape])
    samples = torch.randn(2, frame_grid(model.config.to_dict()).fit(9_000))
    model.save_pretrained(tmp_path)
    packed = load_packed(tmp_path)
    with torch.inference_mode():
        exact, draft, again = (packed(samples, draft=draft) for draft in (False, True, False))
    assert torch.equal(exact, again)
    assert draft.dtype == torch.float32
    assert 0 < float((draft - exact).abs().max()) < 0.05 * float(exact.std())


def test_a_product_is_that_of_matrices():
    """The bound of a benchmark: a wrong product would be no bound."""
    vectors, weight = torch.rand(40, 512), torch.rand(256, 512)
    multiply = product(weight)
    assert multiply is not None
    torch.testing.assert_close(multiply(vectors), vectors @ weight.T)


@pytest.mark.parametrize("names", [("weight_g", "weight_v"), None], ids=["older names", "folded"])
def test_weights_as_older_versions_wrote_them_are_read(names, tmp_path):
    model = of_shape(**SHAPES["with biases"])
    samples = torch.randn(1, frame_grid(model.config.to_dict()).fit(9_000))
    plain, _ = both(model, samples, tmp_path / "new")
    weights = load_file(tmp_path / "new" / "model.safetensors")
    place = "sew.encoder.pos_conv_embed.conv."
    length, direction = (
        weights.pop(f"{place}parametrizations.weight.original{number}") for number in (0, 1)
    )
    if names:
        weights |= {place + names[0]: length, place + names[1]: direction}
    else:
        weights[place + "weight"] = torch._weight_norm(direction, length, 2)
    (tmp_path / "new" / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "new" / "pytorch_model.bin")
    packed = load_packed(tmp_path / "new")
    assert packed
    with torch.inference_mode():
        frames = packed(samples).numpy()
        np.testing.assert_allclose(frames, plain[:, : frames.shape[1]], atol=1e-5)


def altered(folder, **changes):
    config = json.loads((folder / "config.json").read_text()) | changes
    kept = {name: value for name, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))


@pytest.mark.parametrize(
    "changes",
    [
        {"architectures": ["Wav2Vec2ForCTC"]},
        {"architectures": ["SEWModel"]},
        {"feat_extract_norm": "layer"},
        {"hidden_act": "relu"},
        {"add_adapter": True},
        {"conv_kernel": None},
        {"conv_kernel": 3},
        {"conv_dim": [64] * 13},
        {"num_hidden_layers": 13},
        {"layer_norm_eps": None},
        {"layer_norm_eps": "1e-5"},
        {"num_attention_heads": 5},
        {"num_attention_heads": 0},
        {"num_attention_heads": None},
        {"conv_stride": None},
        {"conv_stride": [5, 2]},
        {"conv_stride": [5] + [0] * 12},
        {"conv_stride": [5] + [2] * 13},
        {"num_conv_pos_embedding_groups": 0},
        {"squeeze_factor": 0},
    ],
    ids=str,
)
def test_what_is_no_such_network_is_left_to_transformers(changes, tmp_path):
    write_random_sew_tiny(tmp_path)
    assert load_packed(tmp_path)
    altered(tmp_path, **changes)
    assert load_packed(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"not weights", bytes(1_000)])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "config.json"])
def test_what_is_damaged_is_left_to_transformers(name, content, tmp_path):
    write_random_sew_tiny(tmp_path)
    (tmp_path / name).write_bytes(content)
    assert load_packed(tmp_path) is None


def test_other_things_than_weights_are_left_to_transformers(tmp_path):
    write_random_sew_tiny(tmp_path)
    (file,) = tmp_path.glob("*.bin")
    weights = torch.load(file)
    for content in ([1, 2], {"model": weights}, weights | {"epoch": 3}):
        torch.save(content, file)
        assert load_packed(tmp_path) is None


def test_loading_it_does_not_import_transformers():
    code = (
        "import sys; from streamer.config import Settings; "
        "from streamer.recognition import load_recognizer; "
        "load_recognizer(Settings(model='embedded-sew', accelerator='cpu')); "
        "print('transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n"
