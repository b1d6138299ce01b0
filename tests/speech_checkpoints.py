"""Tiny checkpoints with random weights, one of each architecture, as people publish them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TEXT = (
    "The forms of printed letters should be beautiful, and their arrangement on the page should "
    "be reasonable and a help to the shapeliness of the letters themselves. It's Zürich, née 雪."
)
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")


def word_pieces(folder: Path, special: tuple[str, ...] = SPECIAL, size: int = 120) -> int:
    """Train word pieces on a text, save them, and return how many there are."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[*special],
        show_progress=False,
        initial_alphabet=["\u2581"],
    )
    tokenizer.train_from_iterator(TEXT.split(), trainer)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1, right=0),
        ]
    )
    return _save(tokenizer, folder, "PreTrainedTokenizerFast")


def bytes_of_words(folder: Path, special: tuple[str, ...], size: int = 320) -> int:
    """The same with pieces of bytes, as Whisper has them; special tokens come last."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.add_special_tokens([*special])
    return _save(tokenizer, folder, "PreTrainedTokenizerFast")


def _save(tokenizer: Tokenizer, folder: Path, kind: str) -> int:
    tokenizer.save(str(folder / "tokenizer.json"))
    known = set(tokenizer.get_vocab())
    roles = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    written = {role: token for role, token in roles.items() if token in known}
    write(folder, "tokenizer_config.json", {"tokenizer_class": kind, **written})
    return tokenizer.get_vocab_size()


def write(folder: Path, name: str, content: Any) -> None:
    (folder / name).write_text(json.dumps(content))


def save(
    model: Any, folder: Path, *, seed: int = 0, scale: float = 3.0, blank: int | None = None
) -> Path:
    """Write a model that says something else of each sound.

    Weights as large as at first write one token over and over again. With the seeds and scales of
    this module a text has a dozen tokens or more.
    """
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, scale / parameter.shape[-1] ** 0.5)
            elif name.endswith("bias"):
                parameter.zero_()
        if blank is not None:  # a transducer that says ten tokens in each frame takes its time
            model.joint.head.bias[blank] = 6.0
    model.save_pretrained(folder)
    return folder


def whisper(folder: Path, **extra: Any) -> Path:
    codes = ("<|en|>", "<|de|>", "<|fr|>")
    special = (
        "<|endoftext|>", "<|startoftranscript|>", *codes, "<|translate|>", "<|transcribe|>",
        "<|startofprev|>", "<|notimestamps|>", "<|0.00|>",
    )  # fmt: skip
    size = bytes_of_words(folder, special)
    ids = {token: size - len(special) + index for index, token in enumerate(special)}
    config = transformers.WhisperConfig(
        vocab_size=size,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_mel_bins=80,
        max_target_positions=64,
        pad_token_id=ids["<|endoftext|>"],
        bos_token_id=ids["<|endoftext|>"],
        eos_token_id=ids["<|endoftext|>"],
        decoder_start_token_id=ids["<|startoftranscript|>"],
        **extra,
    )
    model = transformers.WhisperForConditionalGeneration(config)
    model.generation_config = transformers.GenerationConfig(
        decoder_start_token_id=ids["<|startoftranscript|>"],
        eos_token_id=ids["<|endoftext|>"],
        pad_token_id=ids["<|endoftext|>"],
        bos_token_id=ids["<|endoftext|>"],
        is_multilingual=True,
        lang_to_id={code: ids[code] for code in codes},
        task_to_id={"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]},
        no_timestamps_token_id=ids["<|notimestamps|>"],
        suppress_tokens=[5, 6, *(ids[t] for t in special[1:])],
        begin_suppress_tokens=[ids["<|endoftext|>"]],
        max_length=64,
    )
    save(model, folder, seed=1)
    transformers.WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    return folder


def moonshine(folder: Path) -> Path:
    size = word_pieces(folder)
    config = transformers.MoonshineConfig(
        vocab_size=size,
        hidden_size=32,
        intermediate_size=64,
        encoder_num_hidden_layers=2,
        decoder_num_hidden_layers=2,
        encoder_num_attention_heads=2,
        decoder_num_attention_heads=2,
        max_position_embeddings=194,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        decoder_start_token_id=1,
    )
    save(transformers.MoonshineForConditionalGeneration(config), folder, seed=5, scale=2.0)
    raw_audio(folder)
    return folder


def raw_audio(folder: Path, rate: int = 16_000, *, normalize: bool = False) -> None:
    transformers.Wav2Vec2FeatureExtractor(
        sampling_rate=rate, do_normalize=normalize, return_attention_mask=True
    ).save_pretrained(folder)


def moonshine_streaming(folder: Path) -> Path:
    size = word_pieces(folder)
    config = transformers.MoonshineStreamingConfig(
        encoder_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "sliding_windows": [[16, 4], [16, 0]],
            "head_dim": 16,
        },
        vocab_size=size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        decoder_start_token_id=1,
    )
    save(transformers.MoonshineStreamingForConditionalGeneration(config), folder, seed=4)
    raw_audio(folder)
    return folder


def speech_to_text(folder: Path) -> Path:
    size = word_pieces(folder)
    config = transformers.Speech2TextConfig(
        vocab_size=size,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        conv_channels=32,
        max_target_positions=200,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    save(transformers.Speech2TextForConditionalGeneration(config), folder, scale=2.0)
    transformers.Speech2TextFeatureExtractor().save_pretrained(folder)
    return folder


def speecht5(folder: Path) -> Path:
    size = word_pieces(folder)
    config = transformers.SpeechT5Config(
        vocab_size=size,
        hidden_size=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    save(transformers.SpeechT5ForSpeechToText(config), folder, scale=1.0)
    transformers.SpeechT5FeatureExtractor().save_pretrained(folder)
    return folder


def encoder_decoder(folder: Path) -> Path:
    size = word_pieces(folder)
    encoder = transformers.Wav2Vec2Config(
        vocab_size=32,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )
    decoder = transformers.BartConfig(
        vocab_size=size,
        d_model=32,
        decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=64,
        max_position_embeddings=128,
        is_decoder=True,
        add_cross_attention=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    config = transformers.SpeechEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 1, 0, 2
    save(transformers.SpeechEncoderDecoderModel(config=config), folder, seed=4, scale=1.5)
    raw_audio(folder, normalize=True)
    return folder


def _conformer(**extra: Any) -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "num_mel_bins": 80,
        "subsampling_conv_channels": 16,
        "conv_kernel_size": 5,
        **extra,
    }


def parakeet_ctc(folder: Path) -> Path:
    size = word_pieces(folder)
    config = transformers.ParakeetCTCConfig(
        vocab_size=size, encoder_config=_conformer(), pad_token_id=0
    )
    save(transformers.ParakeetForCTC(config), folder, scale=1.0)
    transformers.ParakeetFeatureExtractor(feature_size=80).save_pretrained(folder)
    return folder


def parakeet_tdt(folder: Path, *, tdt: bool = True) -> Path:
    size = word_pieces(folder, (*SPECIAL, "<blank>"))
    kind = "TDT" if tdt else "RNNT"
    config = getattr(transformers, f"Parakeet{kind}Config")(
        vocab_size=size,
        encoder_config=_conformer(),
        decoder_hidden_size=32,
        num_decoder_layers=1,
        pad_token_id=0,
        blank_token_id=4,
        **({"durations": [0, 1, 2, 3, 4]} if tdt else {}),
    )
    model = getattr(transformers, f"ParakeetFor{kind}")(config)
    durations = [*range(size, size + 5)] if tdt else None
    model.generation_config = transformers.GenerationConfig(
        decoder_start_token_id=4, pad_token_id=0, eos_token_id=2, suppress_tokens=durations
    )
    save(model, folder, blank=4)
    transformers.ParakeetFeatureExtractor(feature_size=80).save_pretrained(folder)
    return folder


def lasr_ctc(folder: Path) -> Path:
    size = word_pieces(folder)
    config = transformers.LasrCTCConfig(
        vocab_size=size, encoder_config=_conformer(), pad_token_id=0
    )
    save(transformers.LasrForCTC(config), folder, scale=1.0)
    transformers.LasrFeatureExtractor(feature_size=80).save_pretrained(folder)
    return folder


LETTERS = ("<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ")


def letters(folder: Path) -> int:
    write(folder, "vocab.json", {token: number for number, token in enumerate(LETTERS)})
    write(
        folder,
        "tokenizer_config.json",
        {"tokenizer_class": "Wav2Vec2CTCTokenizer", "word_delimiter_token": "|"},
    )
    return len(LETTERS)


def wav2vec2_bert(folder: Path) -> Path:
    config = transformers.Wav2Vec2BertConfig(
        vocab_size=letters(folder),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        output_hidden_size=32,
        add_adapter=True,
    )
    save(transformers.Wav2Vec2BertForCTC(config), folder)
    transformers.SeamlessM4TFeatureExtractor().save_pretrained(folder)
    return folder


def wav2vec2_at(folder: Path, rate: int) -> Path:
    config = transformers.Wav2Vec2Config(
        vocab_size=letters(folder),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )
    save(transformers.Wav2Vec2ForCTC(config), folder)
    raw_audio(folder, rate, normalize=True)
    return folder


def nemotron(folder: Path) -> Path:
    size = word_pieces(folder, (*SPECIAL, "<blank>"))
    config = transformers.NemotronAsrStreamingConfig(
        vocab_size=size,
        encoder_config=_conformer(
            num_mel_bins=128, sliding_window=21, default_num_lookahead_tokens=3
        ),
        decoder_hidden_size=32,
        num_decoder_layers=1,
        pad_token_id=0,
        blank_token_id=4,
    )
    model = transformers.NemotronAsrStreamingForRNNT(config)
    model.generation_config = transformers.GenerationConfig(
        decoder_start_token_id=4, pad_token_id=0, eos_token_id=2
    )
    save(model, folder, blank=4)
    transformers.NemotronAsrStreamingFeatureExtractor(feature_size=128).save_pretrained(folder)
    return folder


def seamless(folder: Path, *, second: bool = True) -> Path:
    size = word_pieces(folder, (*SPECIAL, "__eng__", "__deu__"))
    kind = "SeamlessM4Tv2" if second else "SeamlessM4T"
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=size,
        hidden_size=32,
        encoder_layers=1,
        encoder_ffn_dim=64,
        encoder_attention_heads=2,
        decoder_layers=2,
        decoder_ffn_dim=64,
        decoder_attention_heads=2,
        speech_encoder_layers=2,
        speech_encoder_attention_heads=2,
        speech_encoder_intermediate_size=64,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        t2u_encoder_layers=1,
        t2u_encoder_ffn_dim=64,
        t2u_encoder_attention_heads=2,
        t2u_decoder_layers=1,
        t2u_decoder_ffn_dim=64,
        t2u_decoder_attention_heads=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
    )
    model = getattr(transformers, f"{kind}ForSpeechToText")(config)
    model.generation_config = transformers.GenerationConfig(
        decoder_start_token_id=2,
        pad_token_id=0,
        eos_token_id=2,
        text_decoder_lang_to_code_id={"eng": 4, "deu": 5},
    )
    save(model, folder, seed=3)
    transformers.SeamlessM4TFeatureExtractor().save_pretrained(folder)
    return folder


_PROMPT = (
    "<|startofcontext|>", "<|startoftranscript|>", "<|emo:undefined|>", "<|en|>", "<|de|>",
    "<|pnc|>", "<|nopnc|>", "<|noitn|>", "<|notimestamp|>", "<|nodiarize|>",
)  # fmt: skip


def cohere(folder: Path) -> Path:
    size = word_pieces(folder, (*SPECIAL, *_PROMPT))
    config = transformers.CohereAsrConfig(
        vocab_size=size,
        encoder_config=_conformer(num_mel_bins=128),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=5,
    )
    save(transformers.CohereAsrForConditionalGeneration(config), folder, seed=3)
    transformers.CohereAsrFeatureExtractor().save_pretrained(folder)
    write(folder, "processor_config.json", {"processor_class": "CohereAsrProcessor"})
    return folder


def canary(folder: Path) -> Path:
    size = word_pieces(folder, (*SPECIAL, *_PROMPT))
    config = transformers.CanaryConfig(
        vocab_size=size,
        encoder_config=_conformer(num_mel_bins=128),
        decoder_config={
            "vocab_size": size,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=5,
    )
    save(transformers.CanaryForConditionalGeneration(config), folder, seed=2, scale=2.0)
    transformers.ParakeetFeatureExtractor(feature_size=128).save_pretrained(folder)
    write(folder, "processor_config.json", {"processor_class": "CanaryProcessor"})
    turn = (
        "{% for message in messages %}{% for part in message['content'] %}"
        "{% if part['type'] == 'text' %}<|startofcontext|><|startoftranscript|><|emo:undefined|>"
        "<|{{ part['source_language'] }}|><|{{ part['target_language'] }}|><|pnc|>"
        "{% endif %}{% endfor %}{% endfor %}"
    )
    (folder / "chat_template.jinja").write_text(turn)
    return folder
