"""Sentences → speech, by flite, espeak-ng and festival, with the phones of flite's lexicon."""

import io
import random
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.signal import resample_poly

SAMPLE_RATE = 16_000
_ALL_PHONES = (
    "pau aa ae ah ao aw ax ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th "
    "uh uw v w y z zh"
)
PHONES = tuple(_ALL_PHONES.split())
"""The phones of flite's American lexicon; ``pau`` is a pause."""

FLITE_VOICES = {"kal16": 110, "awb": 120, "rms": 100, "slt": 170}
"""Voice → its usual pitch in hertz."""

ESPEAK_ACCENTS = ("en-us", "en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-029", "en-us-nyc")
_ALL_VARIANTS = (
    "m1 m2 m3 m4 m5 m6 m7 f1 f2 f3 f4 f5 klatt klatt2 Annie Andy Alex Lee Gene Denis Michael Diogo"
)
ESPEAK_VARIANTS = tuple(_ALL_VARIANTS.split())

UNHEARD_VOICE = "ked"
"""A festival voice (Debian's ``festvox-kdlpc16k``) that no training run hears."""


@dataclass(frozen=True)
class Speech:
    """One synthesized sentence."""

    samples: NDArray[np.int16]
    """16 kHz mono."""
    voice: str
    ends: tuple[int, ...] | None = None
    """Where each of ``phones`` ends, in samples, where the synthesizer says so."""
    phones: tuple[str, ...] = ()


def phones_of(sentence: str) -> tuple[str, ...]:
    """The phones that flite's lexicon and letter-to-sound rules give for ``sentence``."""
    said = subprocess.run(
        ["flite", "-voice", "kal16", "-ps", "-t", sentence.lower(), "-o", "none"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return tuple(phone for phone in said.split() if phone in PHONES)


def flite(sentence: str, rng: random.Random) -> Speech:
    """``sentence`` in one of flite's four voices, at a pace and pitch of its own."""
    voice, its_pitch = rng.choice(list(FLITE_VOICES.items()))
    stretch, pitch = rng.uniform(0.7, 1.25), its_pitch * rng.uniform(0.75, 1.35)
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        said = subprocess.run(
            [
                *("flite", "-voice", voice, "-psdur", "-t", sentence.lower(), "-o", file.name),
                *("--setf", f"duration_stretch={stretch:.2f}"),
                *("--setf", f"int_f0_target_mean={pitch:.0f}"),
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        samples, rate = soundfile.read(file.name, dtype="int16")
    assert rate == SAMPLE_RATE
    marks = re.findall(r"(\w+):([\d.]+)", said)
    return Speech(
        samples,
        voice,
        tuple(round(float(end) * SAMPLE_RATE) for _, end in marks),
        tuple(phone for phone, _ in marks),
    )


def espeak(sentence: str, rng: random.Random) -> Speech:
    """``sentence`` in one of espeak-ng's many voices."""
    voice = rng.choice(ESPEAK_ACCENTS)
    if rng.random() < 0.95:
        voice += "+" + rng.choice(ESPEAK_VARIANTS)
    sound = subprocess.run(
        [
            *("espeak-ng", "-v", voice, "--stdout", sentence.lower()),
            *("-s", str(rng.randint(120, 200)), "-p", str(rng.randint(20, 80))),
        ],
        capture_output=True,
        check=True,
    ).stdout
    return Speech(_decoded(sound), voice, phones=phones_of(sentence))


def festival(sentences: Sequence[str], voice: str = UNHEARD_VOICE) -> list[Speech]:
    """Each of ``sentences`` in a festival voice, all by one process: it starts slowly."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{number}.wav") for number in range(len(sentences))]
        script = [f"(voice_{voice}_diphone)"] + [
            f'(utt.save.wave (utt.synth (Utterance Text "{sentence.lower()}")) "{file}" \'riff)'
            for sentence, file in zip(sentences, files, strict=True)
        ]
        program = Path(folder, "say.scm")
        program.write_text("\n".join(script))
        subprocess.run(["festival", "--batch", str(program)], check=True, capture_output=True)
        return [Speech(_decoded(file.read_bytes()), voice) for file in files]


def _decoded(wave: bytes) -> NDArray[np.int16]:
    """The samples of a RIFF file at 16 kHz; the header of a pipe has no true length."""
    samples, rate = soundfile.read(io.BytesIO(wave), dtype="float32")
    if rate != SAMPLE_RATE:
        samples = resample_poly(samples, SAMPLE_RATE, rate)
    pcm: NDArray[np.int16] = np.clip(samples * 32768, -32768, 32767).astype(np.int16)
    return pcm
