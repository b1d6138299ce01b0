"""The embedded model in ONNX Runtime: what transformers says, and without it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from streamer.config import Settings
from streamer.errors import ModelError
from streamer.recognition import load_recognizer, resolve
from streamer.recognition.checkpoint_files import GRAPH, SAFETENSORS
from streamer.recognition.ctc_recognizer import CtcRecognizer
from streamer.recognition.models import TorchNetwork
from streamer.recognition.onnx_network import OnnxNetwork, load_onnx

EMBEDDED = resolve("embedded-sew")


@pytest.fixture(scope="module")
def networks():
    return load_onnx(EMBEDDED.folder, 1), TorchNetwork(EMBEDDED, "cpu", 1)


@pytest.fixture
def copy(tmp_path):
    """The embedded checkpoint, to be changed."""
    return shutil.copytree(EMBEDDED.folder, tmp_path / "copy")


def noise(windows, length):
    return np.random.default_rng(length).standard_normal((windows, length), np.float32)


def log_softmax(logits):
    return torch.from_numpy(logits).log_softmax(-1).numpy()


@pytest.mark.parametrize(
    ("windows", "length"),
    [(1, 720), (1, 16_080), (3, 16_400), (2, 32_080), (1, 41_000), (1, 480_080)],
)
def test_it_gives_what_torch_gives(networks, windows, length):
    ours, theirs = (log_softmax(network(noise(windows, length))) for network in networks)
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    if length % 640 == 80:
        assert ours.shape == (windows, (length - 80) // 320, 32)


def test_the_packages_graph_fits_the_packages_weights():
    recognizer = CtcRecognizer(EMBEDDED)
    assert isinstance(recognizer._network, OnnxNetwork)
    assert recognizer.accelerator == "cpu"


def test_recognizing_with_the_embedded_model_imports_neither_torch_nor_transformers():
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "import streamer\n"
        "recognizer = streamer.load_recognizer('embedded-sew')\n"
        "demo = Path(streamer.__file__).parent / 'demo' / 'recording.flac'\n"
        "assert streamer.transcribe(demo, recognizer=recognizer).text\n"
        "print(sorted({'torch', 'transformers', 'onnx'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_weights_behind_a_symbolic_link_are_read(copy):
    """As installers and the hub's cache lay them."""
    (copy / SAFETENSORS).unlink()
    (copy / SAFETENSORS).symlink_to(EMBEDDED.folder / SAFETENSORS)
    assert load_onnx(copy, 1)


def test_other_weights_of_the_same_shape_are_heard_through_the_same_graph(copy):
    weights = load_file(copy / SAFETENSORS)
    weights["lm_head.bias"][7] += 9
    save_file(weights, copy / SAFETENSORS, {"format": "pt"})
    changed, before = load_onnx(copy, 1), load_onnx(EMBEDDED.folder, 1)
    difference = changed(noise(1, 16_080)) - before(noise(1, 16_080))
    np.testing.assert_allclose(difference, 9 * np.eye(32)[None, [7]].repeat(50, 1), atol=0.02)


def test_weights_that_lie_otherwise_are_left_to_torch(copy):
    weights = load_file(copy / SAFETENSORS)
    save_file({name: value.float() for name, value in weights.items()}, copy / SAFETENSORS)
    assert load_onnx(copy, 1) is None
    recognizer, sound = CtcRecognizer(resolve(str(copy)), accelerator="cpu"), noise(1, 16_080)[0]
    assert isinstance(recognizer._network, TorchNetwork)
    expected = CtcRecognizer(EMBEDDED).log_probs(sound)
    np.testing.assert_allclose(recognizer.log_probs(sound), expected, atol=1e-3)


def test_a_checkpoint_without_a_graph_is_left_to_torch(copy):
    (copy / GRAPH).unlink()
    assert load_onnx(copy, 1) is None


@pytest.mark.parametrize("end", [0, 7, 100, 30_000, -1])
def test_weights_that_are_cut_off_are_refused(copy, end):
    content = (copy / SAFETENSORS).read_bytes()
    (copy / SAFETENSORS).write_bytes(content[:end])
    with pytest.raises(ModelError, match="weights are damaged"):
        CtcRecognizer(resolve(str(copy)), accelerator="cpu")


def test_a_damaged_graph_is_refused_and_the_error_says_what_to_do(copy):
    graph = (copy / GRAPH).read_bytes()
    (copy / GRAPH).write_bytes(graph[100:])
    with pytest.raises(ModelError, match=r"sew\.onnx: damaged; delete it") as caught:
        load_recognizer(Settings(model=str(copy)))
    assert "\n" not in str(caught.value)
