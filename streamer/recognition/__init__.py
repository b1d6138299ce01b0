"""The recognition edge: the only room that knows ONNX Runtime, torch, the hub and webrtcvad.

    settings.model ──checkpoints.resolve──► a folder ──load_recognizer──► a Recognizer

A `WriterRecognizer` has two ears: Moonshine or another writer writes, the embedded SEW follows. A
`CtcRecognizer` is one network for both. What is inside this package runs in ONNX Runtime; torch and
transformers are loaded only for other checkpoints, for a GPU, and to train.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from streamer.config import EMBEDDED_MODEL, NO_LM, Settings
from streamer.errors import SettingsError, StreamerWarning
from streamer.recognition.checkpoint_files import (
    EMBEDDED_FOLDER,
    GRAPH,
    read_calibration,
    read_writer_rules,
)
from streamer.recognition.checkpoints import Checkpoint, resolve
from streamer.recognition.moonshine_files import CUT_ADAPTER, holds_moonshine

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from streamer.core.hypothesis import Hypothesis
    from streamer.core.window_planner import WindowShape
    from streamer.messages import Reading, Window
    from streamer.recognition.ctc_recognizer import CtcRecognizer
    from streamer.recognition.finetuning import FineTuning
    from streamer.recognition.speech_models import Kind
    from streamer.recognition.writer import Writer, WriterRecognizer

__all__ = [
    "Checkpoint",
    "Recognizer",
    "load_finetuning",
    "load_recognizer",
    "require_same_words",
    "resolve",
]


class Recognizer(Protocol):
    """A loaded model: shared by all sessions, read-only, safe to call from several threads."""

    @property
    def name(self) -> str:
        """What the model is called."""

    @property
    def accelerator(self) -> str:
        """Where it computes: `cpu`, `cuda` or `mps`."""

    @property
    def hotwords(self) -> Path | None:
        """The setting that it was loaded with."""

    @property
    def lm(self) -> Path | None:
        """The setting that it was loaded with."""

    @property
    def uses_language_model(self) -> bool:
        """Whether a language model helps to decode, be it the model's own."""

    @property
    def shape(self) -> WindowShape:
        """Which windows it wants."""

    def hypothesis(self, settings: Settings) -> Hypothesis:
        """The text of a stream's first utterance; `raw` and the like are read from the settings."""

    def recognize(self, batch: Sequence[Window]) -> list[Reading]:
        """What it makes of some windows, in their order. The same window gives the same."""


_BEFORE_TORCH = {
    # Threads that spin while they wait made a 4 s window take 0.4 to 2 s instead of 0.16 s on two
    # cores that another program was using too.
    "OMP_WAIT_POLICY": "PASSIVE",
    # oneDNN keeps its kernels for every window length. With these bounds, 80 lengths of a SEW-tiny
    # cost 110 MB, without them 200 MB, in the same time.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "512",
    "LRU_CACHE_CAPACITY": "32",
}
"""Read once, when torch is loaded."""


def load_recognizer(
    model: str | Settings | None = None, *, checkpoint: Checkpoint | None = None
) -> Recognizer:
    """Find the model that the settings name, load it and warm it up.

    Args:
        model: as in the settings; or settings, of which the models, `language`, `task`, the
            accelerators, `threads`, `adapter`, `hotwords` and `lm` are read; the default model when
            not given.
        checkpoint: what `resolve` gave, where it was called before. Otherwise it is called here.

    Raises:
        ModelError: the model is not available, damaged, or of another kind.
        SettingsError: the accelerator is not there, the model has no such language or task, or the
            hotwords or the language model are not what they should be.
    """
    settings = Settings(model=model) if isinstance(model, str) else model or Settings()
    if checkpoint is None:
        checkpoint = resolve(settings.model)
    kind = _kind(checkpoint)
    if kind != "ctc" or settings.preview_model:
        return _load_writer(checkpoint, settings)
    _require_no_language(checkpoint, settings)
    return _load_ctc(checkpoint, settings, settings.accelerator)


def _load_ctc(checkpoint: Checkpoint, settings: Settings, accelerator: str) -> CtcRecognizer:
    from streamer.recognition.ctc_recognizer import CtcRecognizer
    from streamer.recognition.decoder_files import load_decoder

    recognizer = CtcRecognizer(checkpoint, accelerator=accelerator, threads=settings.threads)
    recognizer.decoder = load_decoder(settings, recognizer.vocabulary, checkpoint.folder)
    recognizer.hotwords, recognizer.lm = settings.hotwords, settings.lm
    recognizer.calibration = read_calibration(
        checkpoint.folder, with_lm=recognizer.decoder.has_language_model
    )
    return recognizer


def _kind(checkpoint: Checkpoint) -> Kind:
    """Of which kind a checkpoint is; what this package runs without torch is known without it."""
    if holds_moonshine(checkpoint.folder):
        return "writer"
    for variable, value in _BEFORE_TORCH.items():
        os.environ.setdefault(variable, value)
    if (checkpoint.folder / GRAPH).is_file():
        return "ctc"
    from streamer.recognition.speech_models import kind_of

    return kind_of(checkpoint)


def _require_no_language(checkpoint: Checkpoint, settings: Settings) -> None:
    for name, default in (("language", ("", "en", "english")), ("task", ("transcribe",))):
        value = getattr(settings, name)
        if value not in default:
            raise SettingsError(f"{name} = {value!r}: {checkpoint.name} has no choice of it")


def _writer(checkpoint: Checkpoint, settings: Settings, accelerator: str) -> Writer:
    kind = _kind(checkpoint)
    if kind == "ctc":
        from streamer.recognition.ctc_writer import CtcWriter

        _require_no_language(checkpoint, settings)
        own = replace(settings, hotwords=None, lm=None)
        return CtcWriter(_load_ctc(checkpoint, own, accelerator))
    if holds_moonshine(checkpoint.folder):
        from streamer.recognition.decoder_files import read_phrases
        from streamer.recognition.moonshine import Moonshine

        _require_no_language(checkpoint, settings)
        adapter = EMBEDDED_FOLDER / CUT_ADAPTER if settings.adapter else None
        hotwords = read_phrases(settings.hotwords) if settings.hotwords else ()
        return Moonshine(
            checkpoint.folder, threads=settings.threads or 1, adapter=adapter, hotwords=hotwords
        )
    from streamer.recognition.torch_writer import TorchWriter

    writer = TorchWriter(
        checkpoint,
        kind,
        accelerator=accelerator,
        threads=settings.threads,
        language=settings.language,
        task=settings.task,
    )
    if writer.longest_s and settings.max_utterance_s > writer.longest_s:
        raise SettingsError(
            f"max_utterance_s = {settings.max_utterance_s}: {checkpoint.name} hears "
            f"{writer.longest_s} s at once; set that or less"
        )
    return writer


def _load_writer(checkpoint: Checkpoint, settings: Settings) -> WriterRecognizer:
    from streamer.recognition.ctc_recognizer import CtcRecognizer
    from streamer.recognition.writer import WriterRecognizer

    follower = CtcRecognizer(resolve(EMBEDDED_MODEL), accelerator="cpu", threads=settings.threads)
    writer, previewer = _writer(checkpoint, settings, settings.accelerator), None
    rules = read_writer_rules(checkpoint.folder)
    if settings.preview_model:
        previews = resolve(settings.preview_model)
        previewer = _writer(previews, settings, settings.preview_accelerator)
        rules = read_writer_rules(previews.folder)
    unused = ("lm",) if holds_moonshine(checkpoint.folder) else ("hotwords", "lm")
    for name in unused:
        path = getattr(settings, name)
        if path not in (None, NO_LM):
            if not path.is_file():
                raise SettingsError(f"{path}: no such file; {name} names one")
            warnings.warn(
                f"{name}: {checkpoint.name} makes no use of it; `--model {EMBEDDED_MODEL}` does",
                StreamerWarning,
                stacklevel=3,
            )
    return WriterRecognizer(writer, follower, checkpoint.name, settings, rules, previewer)


def require_same_words(settings: Settings, recognizer: Recognizer) -> None:
    """Check that a recognizer expects the words that settings ask for: loading decides on them.

    Raises:
        SettingsError: the settings name hotwords or a language model that it was not loaded with.
    """
    without_lm = settings.lm == NO_LM and not recognizer.uses_language_model
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
        SettingsError: the accelerator is not there, or the model is no CTC model.
    """
    if holds_moonshine(checkpoint.folder):
        raise SettingsError(
            f"{checkpoint.name} cannot be adapted, CTC models can: name one, such as "
            f"`--model {EMBEDDED_MODEL}`"
        )
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
