"""The network that is trained, and the heads beside it that only training needs."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import SEWConfig, SEWForCTC

from streamer.recognition.checkpoint_files import SEW_TINY_TOKENS
from training.synthesis import PHONES, SAMPLE_RATE

HOP, RECEPTIVE = 320, 400
SQUEEZE = 2
_PHONE_LAYER = 2
"""Phones are read here, below the letters: what is said is settled before how it is spelled."""
MELS = 40
ATTENTION = "eager"
"""On two cores a step takes two thirds of what it takes with the fused kernel's backward pass."""


LAYERS = 9
"""Of the encoder: where sounds become spelling, for little time, at 25 frames a second."""


def new_network(layers: int = LAYERS) -> Any:
    """A SEW of 7.7 million weights: SEW-tiny's frames and vocabulary, half its convolutions."""
    return SEWForCTC(
        SEWConfig(
            vocab_size=len(SEW_TINY_TOKENS),
            hidden_size=256,
            num_hidden_layers=layers,
            num_attention_heads=4,
            intermediate_size=1024,
            squeeze_factor=SQUEEZE,
            conv_dim=(32, 64, 96, 128, 160, 192, 192),
            conv_kernel=(10, 3, 3, 3, 3, 2, 2),
            conv_stride=(5, 2, 2, 2, 2, 2, 2),
            num_conv_pos_embeddings=31,
            num_conv_pos_embedding_groups=16,
            mask_time_prob=0.0,
            hidden_dropout=0.0,
            attention_dropout=0.0,
            activation_dropout=0.0,
            feat_proj_dropout=0.0,
            final_dropout=0.0,
            layerdrop=0.0,
            ctc_zero_infinity=True,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            attn_implementation=ATTENTION,
        )
    )


class Trainee(nn.Module):
    """A SEW CTC model with two phone heads on an inner layer and a log-mel head on its features."""

    def __init__(self, start_from: Path | None = None, layers: int = LAYERS) -> None:
        """A network of random weights or of a checkpoint or a run, grown to so many layers."""
        super().__init__()
        run = start_from if start_from and (start_from / "state.pt").is_file() else None
        folder = run / "checkpoint" if run else start_from
        self.model = (
            SEWForCTC.from_pretrained(folder, dtype=torch.float32, attn_implementation=ATTENTION)
            if folder
            else new_network(layers)
        )
        width = self.model.config.hidden_size
        self.phone_sequence = nn.Linear(width, 1 + len(PHONES))
        self.phone_frames = nn.Linear(width, len(PHONES))
        self.mel = nn.Linear(self.model.config.conv_dim[-1], MELS)
        if run:
            state = torch.load(run / "state.pt", map_location="cpu", weights_only=True)
            self.load_state_dict(state["trainee"])
        _grow(self.model, layers)
        self._inner: Tensor | None = None
        self.model.sew.encoder.layers[_PHONE_LAYER].register_forward_hook(self._keep)

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Shape (clips, samples) → letters, phone sequence, phone frames.

        Letters: log-probabilities, shape (clips, frames, letters). Phones: logits of half
        as many frames; those of the sequence with the blank first.
        """
        letters = self.model(samples).logits
        inner, self._inner = self._inner, None
        assert inner is not None
        return (
            letters.float().log_softmax(-1),
            self.phone_sequence(inner).float(),
            self.phone_frames(inner).float(),
        )

    def matrices(self) -> list[nn.Parameter]:
        """The encoder's matrices, which `Muon` steps along."""
        layers = self.model.sew.encoder.layers
        return [weight for weight in layers.parameters() if weight.ndim == 2]

    def mel_error(self, samples: Tensor) -> Tensor:
        """How far the features are from the log-mel spectrum, as a share of its variance."""
        features = self.model.sew.feature_extractor(samples).transpose(1, 2)
        guess = self.mel(self.model.sew.layer_norm(features)).float()
        truth = log_mel(samples)[:, : guess.shape[1]]
        truth = (truth - truth.mean((0, 1))) / (truth.std((0, 1)) + 0.1)
        return functional.mse_loss(guess[:, : truth.shape[1]], truth)

    def _keep(self, layer: nn.Module, inputs: Any, output: Any) -> None:
        self._inner = output[0] if isinstance(output, tuple) else output


def _grow(model: Any, layers: int) -> None:
    """Add layers at the end that pass on what comes in, nearly, until they learn better."""
    encoder = model.sew.encoder
    while len(encoder.layers) < layers:
        new = copy.deepcopy(encoder.layers[-1])
        new.apply(model._init_weights)
        for norm in (new.layer_norm, new.final_layer_norm):
            norm.load_state_dict(encoder.layers[-1].final_layer_norm.state_dict())
        for last in (new.attention.out_proj, new.feed_forward.output_dense):
            nn.init.zeros_(last.weight)
        encoder.layers.append(new)
    model.config.num_hidden_layers = len(encoder.layers)


def log_mel(samples: Tensor) -> Tensor:
    """Shape (clips, samples) → (clips, frames, ``MELS``): one frame to each of the network's."""
    window = torch.hann_window(RECEPTIVE, device=samples.device)
    spectrum = torch.stft(
        samples, RECEPTIVE, HOP, RECEPTIVE, window, center=False, return_complex=True
    )
    power = spectrum.abs().square().transpose(1, 2)
    return torch.log(power @ _mel_bank(power.shape[-1]).to(power) + 1e-2)


def _mel_bank(bins: int) -> Tensor:
    """Triangles, evenly spaced in mel from 60 to 7,800 Hz. Shape (bins, ``MELS``)."""

    def to_mel(hertz: float) -> float:
        return 2595 * float(torch.log10(torch.tensor(1 + hertz / 700)))

    corners = 700 * (10 ** (torch.linspace(to_mel(60), to_mel(7_800), MELS + 2) / 2595) - 1)
    low, middle, high = corners[:-2], corners[1:-1], corners[2:]
    frequency = torch.linspace(0, SAMPLE_RATE / 2, bins)[:, None]
    rising, falling = (frequency - low) / (middle - low), (high - frequency) / (high - middle)
    return torch.minimum(rising, falling).clamp(min=0)
