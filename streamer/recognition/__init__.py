"""The recognition edge: the only room that knows torch, the model hub and the voice detector.

    settings.model ──checkpoints.resolve──► a folder ──Recognizer──► windows → log-probabilities

Importing this package loads neither torch nor transformers; `load_recognizer` does.
"""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

from streamer.config import NO_LM, Settings
from streamer.errors import SettingsError
from streamer.recognition.checkpoint_files import read_calibration
from streamer.recognition.checkpoints import Checkpoint, resolve

if TYPE_CHECKING:
    from streamer.recognition.finetuning import FineTuning
    from streamer.recognition.recognizer import Recognizer

__all__ = ["Checkpoint", "load_finetuning", "load_recognizer", "require_same_words", "resolve"]

_BEFORE_TORCH = {
    # Threads that spin while they wait made a 4 s window take 0.4 to 2 s instead of 0.16 s on two
    # cores that another program was using too.
    "OMP_WAIT_POLICY": "PASSIVE",
    # oneDNN makes thirty kernels for every window length. Previews have ten lengths, over and over:
    # kept, they took 18 % less time than made anew. The bound costs 40 to 170 MB; without one, 80
    # lengths cost a gigabyte.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "512",
    "LRU_CACHE_CAPACITY": "32",
}
"""Read once, when torch is loaded."""


def load_recognizer(
    model: str | Settings | None = None, *, checkpoint: Checkpoint | None = None
) -> Recognizer:
    """Find the model that the settings name, load it and warm it up.

    Args:
        model: a hub name, a folder or `embedded-sew`; or settings, of which `model`, `accelerator`,
            `threads`, `hotwords` and `lm` are read; the default model when not given.
        checkpoint: what `resolve` gave, where it was called before. Otherwise it is called here,
            and if it had to take another model than the one named, a warning says so.

    Raises:
        ModelError: the model is not available, damaged, or of another kind.
        SettingsError: the accelerator is not there, or the hotwords or the language model are not
            what they should be.
    """
    settings = Settings(model=model) if isinstance(model, str) else model or Settings()
    if checkpoint is None:
        checkpoint = resolve(settings.model)
        if checkpoint.notice:
            warnings.warn(checkpoint.notice, stacklevel=2)
    for variable, value in _BEFORE_TORCH.items():
        os.environ.setdefault(variable, value)
    from streamer.recognition.decoder_files import load_decoder
    from streamer.recognition.recognizer import Recognizer

    recognizer = Recognizer(checkpoint, accelerator=settings.accelerator, threads=settings.threads)
    recognizer.decoder = load_decoder(settings, recognizer.vocabulary, checkpoint.folder)
    recognizer.hotwords, recognizer.lm = settings.hotwords, settings.lm
    recognizer.calibration = read_calibration(
        checkpoint.folder, with_lm=recognizer.decoder.has_language_model
    )
    return recognizer


def require_same_words(settings: Settings, recognizer: Recognizer) -> None:
    """Check that a recognizer expects the words that settings ask for: loading decides on them.

    Raises:
        SettingsError: the settings name hotwords or a language model that it was not loaded with.
    """
    without_lm = settings.lm == NO_LM and not recognizer.decoder.has_language_model
    for name, met in (
        ("hotwords", not settings.hotwords or settings.hotwords == recognizer.hotwords),
        ("lm", not settings.lm or without_lm or settings.lm == recognizer.lm),
    ):
        if not met:
            raise SettingsError(
                f"{name} = '{getattr(settings, name)}': the recognizer was loaded without it; "
                "load it with the same settings: load_recognizer(settings)"
            )


def load_finetuning(
    checkpoint: Checkpoint, settings: Settings, *, train_features: bool = False
) -> FineTuning:
    """Load a model to be trained further, on as many threads as torch takes if none are set.

    Args:
        checkpoint: what `resolve` gave.
        settings: of which `accelerator` and `threads` are read.
        train_features: whether the convolutions learn too.

    Raises:
        ModelError: the model is damaged or of another kind.
        SettingsError: the accelerator is not there.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A step of training takes longer to prepare than to repeat: every kernel is kept.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")
    from streamer.recognition.finetuning import FineTuning

    return FineTuning(
        checkpoint,
        accelerator=settings.accelerator,
        threads=settings.threads,
        train_features=train_features,
    )
