"""What people get who install `streamer`: built from this tree, without a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes
from importlib.util import find_spec
from pathlib import Path

import pytest

import streamer

REPOSITORY = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]

pytestmark = pytest.mark.skipif(
    not (find_spec("hatchling") and find_spec("pip")), reason="hatchling or pip is not installed"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, REPOSITORY)
    (built,) = folder.iterdir()
    return built


def pip(*arguments: object) -> None:
    command = [sys.executable, "-m", "pip", "--no-cache-dir", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_file_of_the_package_is_in_the_wheel_and_nothing_else(wheel: Path) -> None:
    package = REPOSITORY / "streamer"
    wanted = {
        path.relative_to(REPOSITORY).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        assert archive.testzip() is None
    information = f"streamer-{streamer.__version__}.dist-info/"
    assert {name for name in names if not name.startswith(information)} == wanted
    assert {
        "streamer/py.typed",
        "streamer/demo/recording.flac",
        "streamer/recognition/embedded/model.safetensors",
        "streamer/recognition/embedded/moonshine-tiny-cut.md",
        "streamer/recognition/embedded/moonshine-tiny-cut.safetensors",
        "streamer/recognition/embedded/vocab.json",
    } <= wanted
    assert f"{information}licenses/LICENSE" in names


def test_the_wheel_is_small_enough_to_be_carried_around(wheel: Path) -> None:
    assert 5e6 < wheel.stat().st_size < 20e6
    assert wheel.name == f"streamer-{streamer.__version__}-py3-none-any.whl"


def test_the_metadata_says_what_it_needs_and_how_it_starts(wheel: Path) -> None:
    information = f"streamer-{streamer.__version__}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        metadata = message_from_bytes(archive.read(f"{information}/METADATA"))
        scripts = archive.read(f"{information}/entry_points.txt").decode()
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    needed = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert sorted(needed) == sorted(PROJECT["dependencies"])
    assert "streamer = streamer.cli:main" in scripts.splitlines()


def test_the_installed_wheel_transcribes_with_what_it_brings(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip("install", "--no-deps", "--no-index", "--no-compile", "--target", site, wheel)
    environ = {**os.environ, "PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"}
    code = (
        "import pathlib, streamer\n"
        "home = pathlib.Path(streamer.__file__).parent\n"
        "print(home)\n"
        "recognizer = streamer.load_recognizer(streamer.Settings(model='embedded-sew'))\n"
        "print(streamer.transcribe(home / 'demo/recording.flac', recognizer=recognizer).text)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    home, _, text = done.stdout.partition("\n")
    assert Path(home) == site / "streamer"
    said = (REPOSITORY / "streamer" / "demo" / "recording.txt").read_text()
    assert len(words(text) & words(said)) > len(words(said)) / 2, text
    script = subprocess.run(
        [site / "bin" / "streamer", "--version"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
    )
    assert script.stdout.strip() == f"streamer {streamer.__version__}", script.stderr


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z']+", text.lower()))


def test_the_pinned_versions_are_exact_and_allowed() -> None:
    packaging = pytest.importorskip("packaging.requirements")
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pinned = {}
    for line in lines:
        if line.startswith("#"):
            continue
        name, exact, version = line.partition("==")
        assert exact, line
        assert re.fullmatch(r"[\w.]+", version), f"{line}: no local versions, markers or addresses"
        pinned[name] = version
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    for requirement in map(packaging.Requirement, wanted):
        assert pinned[requirement.name] in requirement.specifier


def test_nothing_but_the_standard_library_is_loaded_by_importing_the_package() -> None:
    code = (
        "import sys, streamer\n"
        "heavy = {'numpy', 'scipy', 'torch', 'transformers', 'rich', 'sounddevice'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
