import dataclasses
from pathlib import Path

import pytest

from streamer.arguments import parse
from streamer.config import (
    _RANGES,
    DEFAULT_MODEL,
    NAMES,
    NO_LM,
    Settings,
    load_settings,
    settings_path,
)
from streamer.errors import SettingsError


@pytest.fixture
def file(tmp_path):
    return tmp_path / "config.toml"


def test_flags_win_over_environment_over_file_over_defaults(file):
    file.write_text("hangover_ms = 700\npre_roll_ms = 300\nvad_mode = 1\n")
    environ = {"STREAMER_PRE_ROLL_MS": "200", "STREAMER_VAD_MODE": "0"}
    merged = load_settings(vad_mode=3, raw=None, file=file, environ=environ)
    assert merged == Settings(hangover_ms=700, pre_roll_ms=200, vad_mode=3)


def test_nothing_given_means_defaults(tmp_path):
    assert load_settings(environ={"HOME": str(tmp_path)}) == Settings()
    assert Settings().model == DEFAULT_MODEL


def test_the_file_lies_where_the_desktop_says(tmp_path):
    expected = tmp_path / "streamer" / "config.toml"
    assert settings_path({"XDG_CONFIG_HOME": str(tmp_path)}) == expected
    home = settings_path({"HOME": str(tmp_path)})
    assert home == tmp_path / ".config" / "streamer" / "config.toml"
    assert settings_path({"XDG_CONFIG_HOME": "", "HOME": str(tmp_path)}) == home


def test_the_file_is_found_there(tmp_path):
    (tmp_path / "streamer").mkdir()
    (tmp_path / "streamer" / "config.toml").write_text('model = "embedded-sew"\n')
    assert load_settings(environ={"XDG_CONFIG_HOME": str(tmp_path)}).model == "embedded-sew"


def test_a_file_that_was_named_must_exist(file):
    with pytest.raises(SettingsError, match="no such settings file"):
        load_settings(file=file, environ={})


@pytest.mark.parametrize(
    ("line", "name", "expected"),
    [
        ('hotwords = "names.txt"', "hotwords", "{home}/conf/names.txt"),
        ('hotwords = "../names.txt"', "hotwords", "{home}/conf/../names.txt"),
        ('hotwords = "~/names.txt"', "hotwords", "{home}/names.txt"),
        ('hotwords = "/names.txt"', "hotwords", "/names.txt"),
        ('hotwords = ""', "hotwords", None),
        ('lm = "none"', "lm", NO_LM),
        ('lm = "words.arpa"', "lm", "{home}/conf/words.arpa"),
        ('record = "~/talks"', "record", "{home}/talks"),
        ('model = "~/mine"', "model", "{home}/mine"),
        ('model = "./mine"', "model", "{home}/conf/mine"),
        ('model = "trained"', "model", "{home}/conf/trained"),
        ('model = "asapp/sew"', "model", "asapp/sew"),
        ('model = "embedded-sew"', "model", "embedded-sew"),
        ('format = "jsonl"', "format", "jsonl"),
    ],
)
def test_paths_in_the_file_are_relative_to_its_folder(tmp_path, monkeypatch, line, name, expected):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir("/")
    (tmp_path / "conf" / "trained").mkdir(parents=True)
    (tmp_path / "conf" / "config.toml").write_text(line)
    value = getattr(load_settings(file=tmp_path / "conf" / "config.toml", environ={}), name)
    if isinstance(expected, str):
        expected = expected.format(home=tmp_path)
    assert (str(value) if isinstance(expected, str) else value) == expected
    assert name not in ("hotwords", "lm", "record") or value is None or isinstance(value, Path)


def test_paths_elsewhere_are_relative_to_where_one_is(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    environ = {"HOME": str(tmp_path), "STREAMER_HOTWORDS": "~/names.txt", "STREAMER_LM": "a.arpa"}
    settings = load_settings(environ=environ, record="~/talks")
    assert settings.hotwords == tmp_path / "names.txt"
    assert settings.lm == Path("a.arpa")
    assert settings.record == tmp_path / "talks"


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("STREAMER_HANGOVER", "did you mean STREAMER_HANGOVER_MS?"),
        ("STREAMER_PREROLL_MS", "did you mean STREAMER_PRE_ROLL_MS?"),
        ("STREAMER_ZZZ", "known: STREAMER_MODEL, STREAMER_DEVICE"),
    ],
)
def test_an_unknown_variable_is_named_with_the_nearest_known_one(tmp_path, variable, hint):
    environ = {"HOME": str(tmp_path), variable: "1"}
    with pytest.raises(SettingsError, match=f"{variable}=1: no such setting; ") as caught:
        load_settings(environ=environ)
    assert hint in str(caught.value)


def test_variables_of_others_are_none_of_our_business(tmp_path):
    environ = {
        "HOME": str(tmp_path),
        "STREAMER_SPEECH": "/speech",
        "STREAMER_ZZZ": "",
        "STREAM": "1",
    }
    assert load_settings(environ=environ) == Settings()


def test_an_unknown_name_in_a_program_is_an_error_too():
    with pytest.raises(SettingsError, match="unknown setting 'hangover'; did you mean hangover_ms"):
        load_settings(hangover=700, environ={})


def test_every_setting_is_a_flag(tmp_path):
    other = {
        "model": "m", "device": "d", "accelerator": "cpu", "format": "text", "raw": True,
        "adapter": False, "preview_model": "p", "preview_accelerator": "cpu", "language": "de",
        "task": "translate",
        "hotwords": Path("h"), "lm": Path("l"), "record": Path("r"), "vad_frame_ms": 30,
    }  # fmt: skip
    wanted = {name: other.get(name, _RANGES.get(name, (0, 0))[1]) for name in NAMES}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in wanted.items()]
    flags[NAMES.index("raw")], flags[NAMES.index("adapter")] = "--raw", "--no-adapter"
    options = vars(parse(["listen", *flags], ["listen"]))
    given = {name: options[name] for name in NAMES}
    assert load_settings(environ={"HOME": str(tmp_path)}, **given) == Settings(**wanted)


@pytest.mark.parametrize("content", [b"vad_mode = = 1", b"\xff\xfe", b"[streamer"])
def test_a_file_that_is_no_toml_is_named(file, content):
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"config\.toml: not a readable TOML file"):
        load_settings(file=file, environ={})


def test_a_folder_is_no_settings_file(tmp_path):
    with pytest.raises(SettingsError, match="not a readable"):
        load_settings(file=tmp_path, environ={})


def test_an_unknown_setting_is_named_with_the_nearest_known_one(file):
    file.write_text("hangover = 700\n")
    with pytest.raises(SettingsError, match="unknown setting 'hangover'; did you mean hangover_ms"):
        load_settings(file=file, environ={})
    file.write_text("zzz = 1\n")
    with pytest.raises(SettingsError, match="known: model, device"):
        load_settings(file=file, environ={})


@pytest.mark.parametrize("line", ['vad_mode = "2"', "raw = 1", "model = 3", "vad_frame_ms = 20.0"])
def test_a_wrong_type_in_the_file_names_file_and_setting(file, line):
    file.write_text(line)
    name = line.split(" ")[0]
    with pytest.raises(SettingsError, match=rf"config\.toml: {name} = .*: must be of type"):
        load_settings(file=file, environ={})


@pytest.mark.parametrize(
    ("variable", "text", "reason"),
    [
        ("STREAMER_VAD_MODE", "two", "must be of type int"),
        ("STREAMER_VAD_MODE", "7", "between 0 and 3"),
        ("STREAMER_RAW", "maybe", "must be of type bool"),
        ("STREAMER_MIN_CERTAINTY", "x", "must be of type float"),
        ("STREAMER_ACCELERATOR", "tpu", "must be one of auto, cpu, cuda, mps"),
    ],
)
def test_a_wrong_variable_is_named(variable, text, reason, tmp_path):
    with pytest.raises(SettingsError, match=rf"{variable}={text}: .*{reason}"):
        load_settings(environ={"HOME": str(tmp_path), variable: text})


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("TRUE", True), ("yes", True), ("0", False), ("No", False)]
)
def test_truth_has_several_spellings_in_the_environment(text, value, tmp_path):
    assert load_settings(environ={"HOME": str(tmp_path), "STREAMER_RAW": text}).raw is value


def test_empty_variables_count_as_not_set(tmp_path):
    environ = {"HOME": str(tmp_path), "STREAMER_VAD_MODE": "", "STREAMER_DEVICE": ""}
    assert load_settings(environ=environ) == Settings()


@pytest.mark.parametrize("name", _RANGES)
def test_values_out_of_range_are_refused_and_limits_are_not(name):
    low, high = _RANGES[name]
    for value in (low, high):
        Settings(**{name: value})
    for value in (low - 1, high + 1):
        with pytest.raises(SettingsError, match=f"{name} = {value}: must be between"):
            Settings(**{name: value})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "0.3", None])
def test_a_number_must_be_one(value):
    with pytest.raises(SettingsError, match="min_certainty"):
        Settings(min_certainty=value)


def test_whole_numbers_are_whole():
    for value in (600.0, True, "600"):
        with pytest.raises(SettingsError, match=r"hangover_ms = .*: must be of type int"):
            Settings(hangover_ms=value)
    assert Settings(min_certainty=0).min_certainty == 0


@pytest.mark.parametrize("value", [0, 15, 40])
def test_only_the_detectors_frame_lengths_are_taken(value):
    with pytest.raises(SettingsError, match="must be one of 10, 20, 30"):
        Settings(vad_frame_ms=value)


def test_every_range_belongs_to_a_setting_and_every_number_has_one():
    fields = {field.name: field.type for field in dataclasses.fields(Settings)}
    numbers = {name for name, kind in fields.items() if kind in ("int", "float")}
    assert set(_RANGES) == numbers - {"vad_frame_ms"}


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().raw = True
