from __future__ import annotations

import json
import subprocess
import sys

import pytest

from streamer.errors import DeviceError
from streamer.sources import devices
from streamer.sources.devices import Device, find_again, find_input


def device(index, name, *, channels=2, default=False, host="ALSA"):
    return Device(index, name, host, channels, 48_000, default, "monitor" in name.lower())


CARD = device(0, "HDA Intel PCH: ALC257 Analog (hw:0,0)")
USB = device(2, "USB Mic: Audio (hw:1,0)", default=True)
USB_TWO = device(3, "USB Mic Pro: Audio (hw:2,0)")
PULSE = device(5, "pulse", channels=32)
MONITOR = device(6, "pulse monitor")
ALL = [CARD, USB, USB_TWO, PULSE, MONITOR]


@pytest.fixture
def listed(monkeypatch):
    def listing(inputs):
        monkeypatch.setattr(devices, "list_inputs", lambda: list(inputs))

    listing(ALL)
    return listing


@pytest.mark.parametrize(
    ("wanted", "found"),
    [("", USB), ("3", USB_TWO), ("alc257", CARD), ("mic pro", USB_TWO), ("PULSE", PULSE)],
)
def test_an_input_is_found_by_default_number_part_of_name_or_exact_name(listed, wanted, found):
    assert find_input(wanted) == found


def test_an_ambiguous_name_lists_what_it_may_mean_on_one_line(listed):
    with pytest.raises(DeviceError) as caught:
        find_input("usb")
    message = str(caught.value)
    assert f"2: {USB.name}" in message
    assert f"3: {USB_TWO.name}" in message
    assert CARD.name not in message
    assert "\n" not in message


@pytest.mark.parametrize("wanted", ["banjo", "17"])
def test_an_unknown_input_names_what_there_is(listed, wanted):
    with pytest.raises(DeviceError, match="5: pulse") as caught:
        find_input(wanted)
    assert caught.value.exit_code == 3
    assert wanted in str(caught.value)


def test_no_input_or_no_default_says_so(listed):
    listed([CARD])
    with pytest.raises(DeviceError, match="no default audio input"):
        find_input("")
    listed([])
    with pytest.raises(DeviceError, match="streamer devices"):
        find_input("")


def test_a_replugged_device_is_found_under_its_new_numbers(listed):
    moved = device(4, "USB Mic: Audio (hw:3,0)")
    listed([CARD, USB_TWO, moved])
    assert find_again(USB) == moved
    listed([CARD, device(4, USB.name, host="JACK")])
    with pytest.raises(DeviceError, match="not connected"):
        find_again(USB)


def test_more_channels_than_hardware_has_are_not_believed():
    assert device(0, "array", channels=8).channel_choices == (8, 2, 1)
    assert device(0, "stereo", channels=2).channel_choices == (2, 1)
    assert device(0, "mono", channels=1).channel_choices == (1,)
    assert PULSE.channel_choices == (2, 1)


def test_a_machine_without_the_library_is_told_what_to_install(tmp_path):
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from streamer.sources.devices import find_input\n"
        "from streamer.errors import DeviceError\n"
        "try: find_input('')\n"
        "except DeviceError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "apt-get install libportaudio2" in done.stdout
    assert done.stderr == ""


def test_a_real_sound_server_is_listed_with_its_rates_and_monitor(sound):
    code = (
        "import json, dataclasses\n"
        "from streamer.sources.devices import find_input, list_inputs, supported_rates\n"
        "print(json.dumps([dataclasses.asdict(d) for d in list_inputs()]))\n"
        "print(json.dumps([find_input('').name, supported_rates(find_input(''))]))\n"
    )
    output, errors = sound.run(code).communicate(timeout=30)
    assert errors == "", "the libraries' noise must not reach the terminal"
    listed, (default, rates) = map(json.loads, output.splitlines())
    by_name = {one["name"]: one for one in listed}
    assert default == "default"
    assert by_name["default"]["is_default"]
    assert not by_name["default"]["is_loopback"]
    assert by_name["speaker_monitor"]["is_loopback"]
    assert {16_000, 44_100, 48_000} <= set(rates)
