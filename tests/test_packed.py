import numpy as np
import pytest
import torch
import transformers

from streamer.recognition.models import frame_grid, freeze
from streamer.recognition.packed import PackedSew, packable
from streamer.recognition.stand_in import random_sew_tiny

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


def frozen(model):
    freeze(model)
    return model


def both(build, samples):
    """What transformers' modules give, and what the packed network gives."""
    model = frozen(build())
    assert packable(model)
    with torch.inference_mode():
        plain = model(samples).logits.numpy()
        packed = PackedSew(model)(samples).numpy()
    return plain, packed


@pytest.mark.parametrize("windows", [1, 3])
@pytest.mark.parametrize("positions", [(16, 4), (7, 1)], ids=["even", "odd"])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_gives_what_the_modules_give(shape, positions, windows):
    kernel, groups = positions
    shape = SHAPES[shape] | {
        "num_conv_pos_embeddings": kernel,
        "num_conv_pos_embedding_groups": groups,
    }
    grid = frame_grid(of_shape(**shape).config)
    for length in (grid.fit(2_000), grid.fit(9_000), grid.fit(9_000) + grid.stride - 1):
        samples = torch.randn(windows, length)
        plain, packed = both(lambda: of_shape(**shape), samples)
        frames = grid.frames(length)
        assert packed.shape[1] >= frames
        np.testing.assert_allclose(packed[:, :frames], plain[:, :frames], atol=1e-5)


def test_at_full_size_the_logits_differ_by_less_than_a_thousandth():
    def build():
        torch.manual_seed(0)
        return random_sew_tiny().eval()

    grid = frame_grid(build().config)
    samples = torch.randn(1, grid.fit(16_000 * 4))
    plain, packed = both(build, samples)
    frames = grid.frames(samples.shape[1])
    np.testing.assert_allclose(packed[:, :frames], plain[:, :frames], atol=1e-3)
    assert (packed[:, :frames].argmax(-1) == plain[:, :frames].argmax(-1)).all()
