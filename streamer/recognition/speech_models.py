"""Checkpoints of transformers: of which kind one is, loading it, and what it takes of samples.

The kind follows from the class that transformers has for the configuration, whatever the model is
called:

    ctc         frame by frame, one distribution over letters or word pieces each
    transducer  token by token as it goes through the frames (RNN-T, TDT)
    writer      token by token of the whole window (encoder-decoders, language models that hear)
"""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
import transformers
from scipy.signal import resample_poly

from streamer.errors import ModelError, SettingsError
from streamer.messages import SAMPLE_RATE
from streamer.recognition.models import quiet

if TYPE_CHECKING:
    from streamer.messages import Samples
    from streamer.recognition.checkpoints import Checkpoint

Kind: TypeAlias = Literal["ctc", "transducer", "writer"]

_LOADERS: dict[Kind, tuple[str, ...]] = {
    "ctc": ("CTC",),
    "transducer": ("RNNT", "TDT"),
    "writer": ("SPEECH_SEQ_2_SEQ",),
}
"""The names of transformers' mappings from configurations to classes."""
_AUTO = {
    "CTC": "AutoModelForCTC",
    "RNNT": "AutoModelForRNNT",
    "TDT": "AutoModelForTDT",
    "SPEECH_SEQ_2_SEQ": "AutoModelForSpeechSeq2Seq",
}
_INSTRUCTION = "Transcribe the speech into written text."
"""For a model that takes a conversation and has no request of its own for this."""


def kind_of(checkpoint: Checkpoint) -> Kind:
    """Of which kind a checkpoint is.

    Raises:
        ModelError: transformers does not know its configuration, or has no class for it that makes
            text of speech.
    """
    return _loader(checkpoint)[0]


def load_speech_model(checkpoint: Checkpoint, accelerator: str) -> Any:
    """The model of a checkpoint, for inference, where it is to run.

    In single precision on the CPU; elsewhere in half precision, the checkpoint's own if it has one.

    Args:
        checkpoint: where it lies.
        accelerator: `cpu`, `cuda` or `mps`.

    Raises:
        ModelError: the checkpoint is damaged, or of no kind that makes text of speech.
    """
    _, loader, config = _loader(checkpoint)
    with quiet():
        try:
            model, info = loader.from_pretrained(
                str(checkpoint.folder),
                config=config,
                dtype=_precision(config, accelerator),
                local_files_only=True,
                trust_remote_code=False,
                weights_only=True,
                output_loading_info=True,
            )
        except Exception as error:  # safetensors, pickle, torch and OSError, by kind of damage
            raise ModelError(
                f"{checkpoint.name}: its weights are damaged, do not fit its config.json, or hold "
                "more than weights; get the model again"
            ) from error
    # Used in training only, and left out by some checkpoints.
    if missing := [key for key in info["missing_keys"] if not key.endswith("masked_spec_embed")]:
        raise ModelError(
            f"{checkpoint.name}: {len(missing)} of its weights are missing, {min(missing)} for one"
        )
    return model.eval().requires_grad_(False).to(accelerator)


def _loader(checkpoint: Checkpoint) -> tuple[Kind, Any, Any]:
    """The kind, transformers' loader, and the configuration."""
    with quiet():
        try:
            config = transformers.AutoConfig.from_pretrained(
                str(checkpoint.folder), local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # whatever a damaged or foreign configuration makes it raise
            raise ModelError(
                f"{checkpoint.name}: its config.json describes no model that transformers "
                f"{transformers.__version__} knows"
            ) from error
    for kind, names in _LOADERS.items():
        for name in names:
            # Absent from versions of transformers that have no such models.
            if type(config) in getattr(transformers, f"MODEL_FOR_{name}_MAPPING", ()):
                return kind, getattr(transformers, _AUTO[name]), config
    said = (getattr(config, "architectures", None) or [config.model_type])[0]
    raise ModelError(
        f"{checkpoint.name}: a {said} makes no text of speech; name a CTC model, a transducer or "
        "a speech-to-text encoder-decoder"
    )


def _precision(config: Any, accelerator: str) -> torch.dtype:
    if accelerator == "cpu":
        return torch.float32
    own = getattr(config, "dtype", None)
    return own if own in (torch.bfloat16, torch.float16) else torch.float16


class Listening:
    """Samples → what a model of transformers takes, with its prompt; tokens → text.

    Attributes:
        tokenizer: of transformers.
        generation: what `generate` takes beside that, such as the language.
        longest_s: what a model of a fixed window hears of a longer one, in seconds; 0 for all.
        hop_samples: samples at `SAMPLE_RATE` between the feature extractor's frames; 0 where it
            has none.
    """

    def __init__(
        self, checkpoint: Checkpoint, model: Any, *, language: str = "", task: str = "transcribe"
    ) -> None:
        """Read the small files of a checkpoint.

        Args:
            checkpoint: where it lies.
            model: its model.
            language: of the speech, as the model calls it; empty where none is asked for.
            task: `transcribe`, or `translate` into English.

        Raises:
            ModelError: it has no feature extractor or no tokenizer.
            SettingsError: the model has no such language or task, or needs a language.
        """
        self._name, self._model = checkpoint.name, model
        self._language, self._task = language, task
        self._processor, self._extractor, self.tokenizer = _processors(checkpoint)
        self.rate = int(getattr(self._extractor, "sampling_rate", SAMPLE_RATE))
        hop = getattr(self._extractor, "hop_length", 0)
        self.hop_samples = hop * SAMPLE_RATE // self.rate if isinstance(hop, int) else 0
        most = getattr(self._extractor, "n_samples", 0)
        self.longest_s = most // self.rate if isinstance(most, int) else 0
        self._request, self.generation = self._ask()

    def inputs(self, samples: Samples) -> dict[str, Any]:
        """What the model's `generate` takes of a window of shape (n,) at `SAMPLE_RATE`."""
        heard = resampled(samples, self.rate)
        given = self._prepared(heard)
        where, precision = self._model.device, self._model.dtype
        return {
            name: value.to(where, precision) if value.is_floating_point() else value.to(where)
            for name, value in given.items()
            if isinstance(value, torch.Tensor)
        }

    def spell(self, tokens: Any) -> str:
        """The text of some tokens, without special ones; repeated tokens stay repeated."""
        text: str = self.tokenizer.decode(
            list(tokens),
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
            group_tokens=False,
        )
        return text

    def tokens_of(self, text: str) -> int:
        """How many tokens a text has."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _prepared(self, heard: Samples) -> Any:
        if self._request == "transcription":
            return self._processor.apply_transcription_request(
                heard, **self._request_options(self._processor.apply_transcription_request)
            )
        if self._request == "conversation":
            content = [{"type": "audio", "audio": heard}, {"type": "text", "text": _INSTRUCTION}]
            return self._processor.apply_chat_template(
                [{"role": "user", "content": content}],
                tokenize=True,
                add_generation_prompt=True,
                return_dict=True,
                return_tensors="pt",
            )
        if self._request == "prompted":
            return self._processor(
                audio=heard,
                language=self._language,
                sampling_rate=self.rate,
                return_tensors="pt",
            )
        given = self._extractor(heard, sampling_rate=self.rate, return_tensors="pt")
        known = inspect.signature(self._model.forward).parameters
        return {name: value for name, value in given.items() if name in known}

    def _request_options(self, request: Any) -> dict[str, Any]:
        """How this model's own request takes language and task."""
        taken = inspect.signature(request).parameters
        options: dict[str, Any] = {"sampling_rate": self.rate} if "sampling_rate" in taken else {}
        if "model_id" in taken:
            options["model_id"] = self._name
        for name in ("language", "source_language"):
            if name in taken and self._language:
                options[name] = self._language
        if "target_language" in taken and self._task == "translate":
            options["target_language"] = "en"
        return options

    def _ask(self) -> tuple[str, dict[str, Any]]:
        """How the model is asked, and what `generate` is told."""
        request = getattr(self._processor, "apply_transcription_request", None)
        if request:
            taken = inspect.signature(request).parameters
            self._require(
                languages=bool({"language", "source_language"} & set(taken)),
                tasks="target_language" in taken,
            )
            return "transcription", {}
        if self._processor and "language" in inspect.signature(self._processor.__call__).parameters:
            self._require(languages=True, tasks=False, needed=True)
            return "prompted", {}
        if self._model.main_input_name == "input_ids" or getattr(
            self._processor, "chat_template", None
        ):
            if not getattr(self._processor, "chat_template", None):
                raise ModelError(
                    f"{self._name}: a {type(self._model).__name__} takes text, not speech alone; "
                    "it cannot be used here"
                )
            self._require(languages=False, tasks=False)
            return "conversation", {}
        return "speech", self._generation()

    def _generation(self) -> dict[str, Any]:
        """Language and task, as `generate` of a multilingual model takes them."""
        settings = getattr(self._model, "generation_config", None)  # a CTC model generates nothing
        if codes := getattr(settings, "text_decoder_lang_to_code_id", None):
            chosen = self._language or ("eng" if self._task == "translate" else "")
            self._require(languages=True, tasks=True, known=codes, needed=not chosen)
            return {"tgt_lang": "eng" if self._task == "translate" else chosen}
        # Whisper writes its languages as special tokens.
        codes = getattr(settings, "lang_to_id", None)
        if codes and getattr(settings, "is_multilingual", True):
            known = {code.strip("<|>") for code in codes}
            known |= {
                name
                for name, code in _whisper_names().items()
                if code in known and name not in known
            }
            self._require(languages=True, tasks=True, known=known)
            asked = {"language": self._language} if self._language else {}
            return {**asked, "task": self._task}
        if codes := getattr(self.tokenizer, "lang_code_to_id", None):
            self._require(languages=True, tasks=False, known=codes)
            return {"forced_bos_token_id": codes[self._language]} if self._language else {}
        self._require(languages=False, tasks=False)
        return {}

    def _require(
        self, *, languages: bool, tasks: bool, known: Any = (), needed: bool = False
    ) -> None:
        if self._task != "transcribe" and not tasks:
            raise SettingsError(f"task = {self._task!r}: {self._name} does not translate")
        if self._language and not languages and self._language not in ("en", "english"):
            raise SettingsError(
                f"language = {self._language!r}: {self._name} has one language and takes no other"
            )
        if needed and not self._language:
            choices = f", one of {_listed(known)}" if known else ", such as en"
            raise SettingsError(f"{self._name} must be told the language: `--language`{choices}")
        if self._language and known and self._language not in known:
            raise SettingsError(
                f"language = {self._language!r}: {self._name} knows {_listed(known)}"
            )


def resampled(samples: Samples, rate: int) -> Samples:
    """Samples at `SAMPLE_RATE`, shape (n,), at another rate."""
    samples = np.asarray(samples, np.float32)
    if rate == SAMPLE_RATE:
        return samples
    common = math.gcd(rate, SAMPLE_RATE)
    return np.asarray(resample_poly(samples, rate // common, SAMPLE_RATE // common), np.float32)


def _processors(checkpoint: Checkpoint) -> tuple[Any, Any, Any]:
    """Processor, if there is one, feature extractor and tokenizer."""
    folder = str(checkpoint.folder)
    reasons = list[str]()
    with quiet():
        processor = _loaded(transformers.AutoProcessor, folder, reasons)
        extractor = (
            getattr(processor, "feature_extractor", None)
            or getattr(processor, "audio_processor", None)
            or _loaded(transformers.AutoFeatureExtractor, folder, reasons)
        )
        tokenizer = getattr(processor, "tokenizer", None) or _loaded(
            transformers.AutoTokenizer, folder, reasons
        )
    for part, said, file in (
        (extractor, "feature extractor", "preprocessor_config.json"),
        (tokenizer, "tokenizer", "tokenizer.json"),
    ):
        if part is None:
            raise ModelError(
                f"{checkpoint.name}: transformers finds no {said} in it ({file}); "
                + (reasons[-1] if reasons else "get the model again")
            )
    # Without a processor of its own, a tokenizer or a feature extractor comes back.
    whole = hasattr(processor, "feature_extractor") or hasattr(processor, "audio_processor")
    return processor if whole else None, extractor, tokenizer


def _loaded(loader: Any, folder: str, reasons: list[str]) -> Any:
    """Loaded, or `None`; libraries that are lacking are among the reasons."""
    try:
        return loader.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except ImportError as error:
        reasons.append(" ".join(str(error).split()))
        return None
    except Exception:  # whatever a folder without its files makes it raise
        return None


def _whisper_names() -> dict[str, str]:
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    return dict(TO_LANGUAGE_CODE)


def _listed(names: Any) -> str:
    """At most a dozen names."""
    ordered = sorted(names, key=lambda name: (len(name), name))
    return ", ".join(ordered[:12]) + (f" and {len(ordered) - 12} more" if len(ordered) > 12 else "")
