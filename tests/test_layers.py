"""The walls of the house: who may import what."""

from __future__ import annotations

import ast
import sys
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "streamer"
MODULES = {
    path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", "."): path
    for path in PACKAGE.rglob("*.py")
}


@cache
def imports(path: Path, *, at_run_time: bool = False) -> set[str]:
    """Full names of everything a file imports, wherever in it.

    With `at_run_time`, what stands under `if TYPE_CHECKING` does not count.
    """
    found: set[str] = set()
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if at_run_time and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        todo += ast.iter_child_nodes(node)
    return found


def uses(name: str, *roots: str) -> set[str]:
    return {
        used
        for used in imports(MODULES[name])
        if any(used == root or used.startswith(root + ".") for root in roots)
    }


def in_room(*rooms: str) -> list[str]:
    return [
        name
        for name in MODULES
        if any(name == f"streamer.{room}" or name.startswith(f"streamer.{room}.") for room in rooms)
    ]


def test_there_is_a_house_to_check() -> None:
    for room in ("core", "sources", "recognition", "sinks", "corpora"):
        assert len(in_room(room)) > 2


ROOMS = sorted({name.split(".")[1] for name in MODULES if name.count(".") > 1})


@pytest.mark.parametrize(("one", "other"), [*combinations(ROOMS, 2)])
def test_no_two_folders_import_each_other(one: str, other: str) -> None:
    there = {name for name in in_room(one) if uses(name, f"streamer.{other}")}
    back = {name for name in in_room(other) if uses(name, f"streamer.{one}")}
    assert not (there and back), (there, back)


@pytest.mark.parametrize("name", in_room("core"))
def test_the_core_is_pure(name: str) -> None:
    allowed_outside = {"numpy", "scipy"}
    pure_standard = {
        "__future__",
        "bisect",
        "collections",
        "dataclasses",
        "difflib",
        "functools",
        "itertools",
        "math",
        "typing",
        "unicodedata",
    }
    allowed_inside = ("streamer.core", "streamer.messages", "streamer.errors", "streamer.config")
    for used in imports(MODULES[name], at_run_time=True):
        root = used.split(".")[0]
        if root == "streamer":
            assert used.startswith(allowed_inside), used
        elif root in sys.stdlib_module_names:
            assert root in pure_standard, used
        else:
            assert root in allowed_outside, used
    source = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    called = {node.func.id for node in ast.walk(source) if isinstance(node, ast.Call)
              and isinstance(node.func, ast.Name)}  # fmt: skip
    assert not called & {"open", "print", "input"}


@pytest.mark.parametrize("name", sorted(set(MODULES) - set(in_room("recognition"))))
def test_only_recognition_knows_torch(name: str) -> None:
    assert not uses(
        name, "torch", "transformers", "onnxruntime", "huggingface_hub", "safetensors", "webrtcvad"
    )


@pytest.mark.parametrize("name", sorted(set(MODULES) - set(in_room("sources"))))
def test_only_sources_know_the_sound_card(name: str) -> None:
    assert not uses(name, "sounddevice", "soundfile")


@pytest.mark.parametrize("name", in_room("sinks"))
def test_sinks_do_not_know_sources_or_models(name: str) -> None:
    assert not uses(name, "streamer.sources", "streamer.recognition", "streamer.live")


@pytest.mark.parametrize("name", in_room("sources"))
def test_sources_do_not_know_sinks_or_models(name: str) -> None:
    assert not uses(name, "streamer.sinks", "streamer.recognition", "streamer.live")


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"streamer.__main__"}))
def test_nothing_imports_the_command_line(name: str) -> None:
    assert not uses(name, "streamer.cli")


@pytest.mark.parametrize("name", in_room("core", "sources", "sinks", "recognition", "corpora"))
def test_only_the_top_knows_what_measures_or_trains(name: str) -> None:
    assert not uses(name, "streamer.evaluation", "streamer.adaptation")


@pytest.mark.parametrize("name", in_room("evaluation"))
def test_evaluation_reads_files_and_shows_nothing_live(name: str) -> None:
    assert not uses(name, "streamer.sinks")
    rooms = {used for used in uses(name, "streamer.sources") if used.count(".") == 2}
    assert rooms <= {
        "streamer.sources.clock",
        "streamer.sources.files",
        "streamer.sources.Closing",
    }
