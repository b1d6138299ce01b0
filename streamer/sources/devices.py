"""Which microphones there are, and how one is named."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from streamer.errors import DeviceError
from streamer.sources import quiet_stderr

RATES = (8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 88_200, 96_000, 176_400, 192_000)
"""Samples a second that `supported_rates` asks for."""
MAX_CHANNELS = 8


@dataclass(frozen=True, slots=True)
class Device:
    """One audio input. `index` is PortAudio's number; it may change when devices come and go.

    `channels` is the most it offers, `default_rate` in samples a second. `is_loopback`: it
    hears what the machine plays.
    """

    index: int
    name: str
    host_api: str
    channels: int
    default_rate: int
    is_default: bool
    is_loopback: bool

    @property
    def channel_choices(self) -> tuple[int, ...]:
        """Channel counts worth asking for, best first.

        Software devices claim 32 or more channels and fill those they do not have with silence,
        which would weaken the mean: more than `MAX_CHANNELS` is not believed.
        """
        most = self.channels if self.channels <= MAX_CHANNELS else 2
        return tuple(count for count in dict.fromkeys((most, 2, 1)) if count <= most)


def portaudio() -> Any:
    """The `sounddevice` module.

    Raises:
        DeviceError: the PortAudio library is not installed or does not start.
    """
    try:
        with quiet_stderr():
            import sounddevice
    except OSError as error:
        raise DeviceError(
            "the PortAudio library is missing: install it with `apt-get install libportaudio2`"
        ) from error
    except Exception as error:
        raise DeviceError(f"PortAudio does not start: {one_line(error)}") from error
    return sounddevice


def refresh() -> None:
    """Look for devices again. Every stream of this process must be closed before.

    Raises:
        DeviceError: PortAudio does not start again.
    """
    sd = portaudio()
    with quiet_stderr():
        try:
            if sd._initialized:
                sd._terminate()
            sd._initialize()
        except sd.PortAudioError as error:
            raise DeviceError(f"PortAudio does not start: {one_line(error)}") from error


def list_inputs() -> list[Device]:
    """Every audio input, in PortAudio's order.

    Raises:
        DeviceError: PortAudio is missing.
    """
    sd = portaudio()
    with quiet_stderr():
        default = sd.default.device[0]
        return [
            Device(
                index=info["index"],
                name=info["name"],
                host_api=sd.query_hostapis(info["hostapi"])["name"],
                channels=info["max_input_channels"],
                default_rate=round(info["default_samplerate"]),
                is_default=info["index"] == default,
                is_loopback=any(word in info["name"].lower() for word in ("monitor", "loopback")),
            )
            for info in sd.query_devices()
            if info["max_input_channels"] > 0
        ]


def find_input(wanted: str) -> Device:
    """The input that `wanted` means: a number, a name or part of one; empty for the default.

    Raises:
        DeviceError: there is no such input, or several could be meant.
    """
    inputs = list_inputs()
    if not inputs:
        raise DeviceError(
            "no audio input: connect a microphone, then look with `streamer devices`; "
            "`streamer --demo` needs none"
        )
    if not wanted:
        matches = [device for device in inputs if device.is_default]
        if not matches:
            raise DeviceError(f"no default audio input: choose with --device: {_listed(inputs)}")
        return matches[0]
    if wanted.isdecimal():
        matches = [device for device in inputs if device.index == int(wanted)]
    else:
        exact = [device for device in inputs if device.name.lower() == wanted.lower()]
        part = [device for device in inputs if wanted.lower() in device.name.lower()]
        matches = exact or part
    if not matches:
        raise DeviceError(f"no audio input {wanted!r}; there is {_listed(inputs)}")
    if len(matches) > 1:
        raise DeviceError(f"{wanted!r} may be {_listed(matches)}: give the number")
    return matches[0]


def find_again(device: Device) -> Device:
    """`device` as it is listed now, after it went away and PortAudio looked again.

    Of several with its name the nearest number is taken; ALSA's card number is no part of the
    name, because a replugged device may get another.

    Raises:
        DeviceError: it is not there.
    """

    def identity(one: Device) -> tuple[str, str]:
        return one.host_api, re.sub(r" \(hw:\d+,\d+\)$", "", one.name)

    twins = [one for one in list_inputs() if identity(one) == identity(device)]
    if not twins:
        raise DeviceError(
            f"{device.name}: not connected; connect it again, or choose another with "
            "`streamer devices`"
        )
    return min(twins, key=lambda one: abs(one.index - device.index))


def supported_rates(device: Device) -> list[int]:
    """Those of `RATES` that `device` accepts.

    Raises:
        DeviceError: PortAudio is missing.
    """
    sd = portaudio()

    def accepts(rate: int, channels: int) -> bool:
        try:
            sd.check_input_settings(device.index, channels=channels, samplerate=rate)
        except (sd.PortAudioError, ValueError):
            return False
        return True

    with quiet_stderr():
        return [
            rate for rate in RATES if any(accepts(rate, count) for count in device.channel_choices)
        ]


def one_line(error: BaseException) -> str:
    """The message of another library's error, on one line."""
    return " ".join(str(error.args[0] if error.args else error).split())


def _listed(devices: list[Device]) -> str:
    return ", ".join(f"{device.index}: {device.name}" for device in devices)
