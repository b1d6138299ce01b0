"""The parts of a training step: the network that grows, Muon, windows, processes that share."""

import random
from pathlib import Path

import pytest
import torch

import streamer.recognition
from training.live_windows import LEFT_EDGE, RIGHT_EDGE, LiveWindow
from training.muon import Muon, orthogonal
from training.network import HOP, RECEPTIVE, Trainee
from training.processes import Team, run_together

EMBEDDED = Path(streamer.recognition.__file__).parent / "embedded"


@pytest.fixture(scope="module")
def sound():
    return torch.randn(2, 200 * HOP + RECEPTIVE - HOP, generator=torch.Generator().manual_seed(0))


def test_a_network_that_grew_begins_by_passing_on_what_comes_in(sound):
    small = Trainee(EMBEDDED)
    layers = len(small.model.sew.encoder.layers)
    grown = Trainee(EMBEDDED, layers + 2)
    assert grown.model.config.num_hidden_layers == layers + 2
    with torch.inference_mode():
        before, after = small(sound)[0], grown(sound)[0]
    assert (before.exp() - after.exp()).abs().mean() < 0.01
    loss = grown(sound)[0][..., 5].sum()
    loss.backward()
    assert grown.model.sew.encoder.layers[-1].feed_forward.output_dense.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("shape", [(64, 64), (32, 128), (128, 32)])
def test_muon_steps_as_far_in_every_direction(shape):
    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    matrix = u * torch.logspace(0, -1.5, min(shape)) @ v  # some directions hardly count
    singular = torch.linalg.svdvals(orthogonal(matrix))
    assert singular.max() < 1.3
    assert singular.min() > 0.5


def test_muon_finds_a_minimum():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(16, 24))
    truth, inputs = torch.randn(16, 24), torch.randn(200, 24)
    optimizer = Muon([weight], 0.05, Team())

    def step():
        weight.grad = None
        loss = ((inputs @ weight.T - inputs @ truth.T) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    first = step()
    last = [step() for _ in range(150)][-1]
    assert last < 0.05 * first


def test_a_window_is_a_part_of_the_clip_on_the_networks_grid(sound):
    chance = random.Random(0)
    whole = torch.zeros(2, 200, 32).log_softmax(-1)
    for _ in range(100):
        window = LiveWindow.draw(chance, sound.shape[1])
        assert window.first % 2 == window.frames % 2 == 0
        assert window.first + window.frames <= 200
        part = window.cut(sound)
        assert part.shape[1] == window.frames * HOP + RECEPTIVE - HOP
        assert torch.equal(part, sound[:, window.first * HOP :][:, : part.shape[1]])
        assert window.difference(whole, torch.ones(2, window.frames, 32)) == pytest.approx(0)


def test_only_what_live_recognition_uses_of_a_window_is_compared():
    window = LiveWindow(first=20, frames=100)
    whole = torch.zeros(1, 200, 4).log_softmax(-1)
    heard = torch.zeros(1, 100, 4)
    heard[:, :LEFT_EDGE, 0] = heard[:, 100 - RIGHT_EDGE :, 0] = 9.0
    assert window.difference(whole, heard) == pytest.approx(0, abs=1e-6)
    heard[:, 50, 0] = 9.0
    assert window.difference(whole, heard) > 0.01


def _write_sum(team, folder):
    tensors = [torch.full((3,), float(team.rank + 1)), torch.tensor(10.0 * team.rank)]
    team.add_up(tensors)
    (folder / str(team.rank)).write_text(repr([tensor.tolist() for tensor in tensors]))


def test_processes_add_up_what_each_found(tmp_path):
    run_together(3, _write_sum, tmp_path)
    results = [(tmp_path / str(rank)).read_text() for rank in range(3)]
    assert results == [repr([[6.0] * 3, 30.0])] * 3
    torch.set_num_threads(2)
