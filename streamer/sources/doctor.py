"""What keeps a microphone from being understood, one plain line a check: `streamer doctor`.

    check_system()        Python and the packages
    check_audio(device)   PortAudio → inputs → the chosen one opens → what it delivers
    judge_level(samples)  muted, clipped, too quiet, nothing but noise: pure, no device
    judge_background(samples)  an offset, hum

The checks are generators: each line can be shown while the next check still runs, and a check
that makes the following ones pointless is the last.
"""

from __future__ import annotations

import platform
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from streamer.core.highpass import HighPass
from streamer.errors import DeviceError
from streamer.messages import Block, Gap
from streamer.sources.devices import find_input, list_inputs, portaudio
from streamer.sources.microphone import Microphone

if TYPE_CHECKING:
    from streamer.messages import Samples

Verdict: TypeAlias = Literal["ok", "warning", "problem"]

_FRAME_MS = 20
_SILENT_STEPS = 2
"""A converter whose input is switched off repeats one value, or flips its last bit (of 16)."""
_CLIPPED_LEVEL = 0.99
_CLIPPED_SHARE = 0.001
"""Speech has a single peak at full scale now and then; a gain too high puts far more there."""
_QUIET_DB = -50.0
"""Measured on four recordings: at -50 dB the voice detector still hears most of the speech that
it hears when it is loud, at -60 dB little of it."""
_SPEECH_OVER_NOISE_DB = 10.0
_NOTED_BELOW_VOICE_DB = 15.0
"""What lies so far below the voice is of no importance."""
_BELOW_VOICE_HZ = 70
_PATIENCE_S = 5.0
"""A device that opens has delivered its first audio long before."""
_SHOWN_INPUTS = 6


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check: `message` says what was found and, unless `ok`, what to do."""

    name: str
    verdict: Verdict
    message: str


def check_system() -> Iterator[Check]:
    """This Python, and the packages that `streamer` was installed with."""
    yield Check("python", "ok", f"{platform.python_version()} on {platform.platform(terse=True)}")
    try:
        wanted = [
            re.split(r"[^\w.-]", line, maxsplit=1)[0]
            for line in metadata.requires("streamer") or []
            if "extra ==" not in line
        ]
    except metadata.PackageNotFoundError:
        yield Check(
            "packages", "warning", "streamer runs from its folder; install it with `pip install .`"
        )
        return
    found, missing = [], []
    for name in wanted:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        command = f"pip install {' '.join(missing)}"
        yield Check("packages", "problem", f"missing {', '.join(missing)}: run `{command}`")
    else:
        yield Check("packages", "ok", ", ".join(found))


def check_audio(device: str, seconds: float = 2.0) -> Iterator[Check]:
    """From the audio library to the sound of the chosen microphone.

    Args:
        device: as `find_input` takes it; empty for the system's default.
        seconds: how long to listen. That begins when the check after `opens` is asked for.
    """
    try:
        library = portaudio()
    except DeviceError as error:
        yield Check("portaudio", "problem", str(error))
        return
    yield Check("portaudio", "ok", library.get_portaudio_version()[1].split(",")[0])

    try:
        names = [f"{one.index}: {one.name}" for one in list_inputs()]
        if names:
            more = f" and {len(names) - _SHOWN_INPUTS} more" if len(names) > _SHOWN_INPUTS else ""
            yield Check("inputs", "ok", ", ".join(names[:_SHOWN_INPUTS]) + more)
        chosen = find_input(device)
    except DeviceError as error:
        yield Check("inputs", "problem", str(error))
        return
    if chosen.is_loopback:
        yield Check(
            "loopback",
            "warning",
            f"{chosen.name} hears what the machine plays; for your voice choose a microphone "
            "from `streamer devices` with --device",
        )

    microphone = Microphone(chosen)
    remarks: list[str] = []
    microphone.notice = remarks.append
    with ExitStack() as stack:
        try:
            stack.enter_context(microphone)
        except DeviceError as error:
            yield Check("opens", "problem", str(error))
            return
        yield Check(
            "opens",
            "ok",
            f"{chosen.name} at {microphone.rate} samples a second; "
            f"listening for {seconds:g} s, please speak",
        )
        try:
            blocks, gaps = _listen(microphone, seconds)
        except DeviceError as error:
            yield Check("capture", "problem", str(error))
            return
    samples = np.concatenate([np.zeros(0, np.float32), *(block.samples for block in blocks)])
    yield judge_capture(len(samples), gaps, microphone.rate)
    if len(samples):
        yield judge_level(samples, microphone.rate)
        yield from judge_background(samples, microphone.rate)
    if remarks:
        yield Check("channels", "warning", f"{remarks[0]}; check the cable and the adapter")


def judge_capture(captured: int, gaps: Sequence[Gap], rate: int) -> Check:
    """Whether the audio arrived whole.

    Args:
        captured: samples that arrived.
        gaps: what did not.
        rate: samples a second.
    """
    reasons = ", ".join(dict.fromkeys(gap.reason for gap in gaps))
    lost = sum(gap.end - gap.start for gap in gaps)
    if not captured:
        return Check(
            "capture",
            "problem",
            "the device opens but delivers nothing; connect it again, or close other programs "
            "that use it",
        )
    if gaps:
        return Check(
            "capture",
            "warning",
            f"{lost / rate:.2f} s of {(captured + lost) / rate:.2f} s were lost ({reasons}); close "
            "busy programs, or connect the microphone without a hub",
        )
    return Check("capture", "ok", f"{captured / rate:.2f} s, nothing lost")


def judge_level(samples: Samples, rate: int) -> Check:
    """Whether what was heard can be speech.

    Args:
        samples: shape (n,), at least one; full scale is -1 … 1.
        rate: samples a second.
    """
    if np.ptp(samples) * 32_768 <= _SILENT_STEPS:
        return Check(
            "level",
            "problem",
            "digital silence: the microphone is muted, or nothing is connected; look for a switch "
            "on it, then in the sound settings",
        )
    clipped = float(np.mean(np.abs(samples) >= _CLIPPED_LEVEL))
    if clipped >= _CLIPPED_SHARE:
        return Check(
            "level",
            "warning",
            f"clipping: {clipped:.1%} of the samples are at full scale; lower the input volume",
        )
    noise, loud = _levels(samples, rate)
    if loud < _QUIET_DB:
        return Check(
            "level",
            "warning",
            f"only {loud:.0f} dB at the loudest: if you did speak, raise the input volume or move "
            "closer",
        )
    if loud - noise < _SPEECH_OVER_NOISE_DB:
        return Check(
            "level",
            "warning",
            f"a steady {loud:.0f} dB: if you did speak, noise drowned it; move closer to the "
            "microphone",
        )
    return Check("level", "ok", f"{loud:.0f} dB at the loudest, {noise:.0f} dB in the pauses")


def judge_background(samples: Samples, rate: int) -> Iterator[Check]:
    """What is there below the voice: nothing is given where that is nothing of note.

    Args:
        samples: shape (n,), at least one; full scale is -1 … 1.
        rate: samples a second.
    """
    audible = max(_levels(samples, rate)[1] - _NOTED_BELOW_VOICE_DB, _QUIET_DB)
    offset = float(np.mean(samples, dtype=np.float64))
    if 20 * np.log10(abs(offset) + 1e-12) > audible:
        yield Check(
            "offset",
            "warning",
            f"a constant {offset:+.3f} of full scale lies under the sound; it is taken out, but it "
            "costs headroom: try another input, cable or USB port",
        )
    window = np.hanning(len(samples))
    powers = np.abs(np.fft.rfft((samples - offset) * window)) ** 2 / max(np.sum(window**2), 1e-12)
    below = np.fft.rfftfreq(len(samples), 1 / rate) <= _BELOW_VOICE_HZ
    level = 10 * np.log10(2 * np.sum(powers[below]) / len(samples) + 1e-12)
    if level <= audible:
        return
    hertz = float(np.argmax(powers[below])) * rate / len(samples)
    if any(abs(hertz - mains) < 2 for mains in (50, 60)):
        advice = "plug everything into one outlet, or run the computer from its battery"
        message = (
            f"mains hum of {hertz:.0f} Hz at {level:.0f} dB; it is taken out; to end it, {advice}"
        )
    else:
        advice = "keep the microphone off the desk, and away from fans and wind"
        message = (
            f"rumble around {hertz:.0f} Hz at {level:.0f} dB; it is taken out; to end it, {advice}"
        )
    yield Check("hum", "warning", message)


def _levels(samples: Samples, rate: int) -> tuple[float, float]:
    """The 10th and the 95th percentile of the frames' level above hum, in dB below full scale."""
    high_pass = HighPass(rate)
    voice = np.concatenate((high_pass.push(samples), high_pass.flush())).astype(np.float64)
    size = min(max(rate * _FRAME_MS // 1_000, 1), len(voice))
    frames = voice[: len(voice) // size * size].reshape(-1, size)
    noise, loud = np.percentile(10 * np.log10(np.mean(frames**2, axis=1) + 1e-12), (10, 95))
    return float(noise), float(loud)


def _listen(microphone: Microphone, seconds: float) -> tuple[list[Block], list[Gap]]:
    """What arrives in `seconds`; less where the device delivers nothing.

    Raises:
        DeviceError: the device was lost.
    """
    blocks: list[Block] = []
    gaps: list[Gap] = []
    impatience = threading.Timer(seconds + _PATIENCE_S, microphone.stop)
    impatience.start()
    try:
        for item in microphone:
            if isinstance(item, Gap):
                gaps.append(item)
            else:
                blocks.append(item)
            if item.end >= seconds * microphone.rate:
                break
    finally:
        impatience.cancel()
    return blocks, gaps
