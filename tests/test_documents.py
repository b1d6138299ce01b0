"""What the documents promise is there: files, sections, commands, JSON lines, exit codes."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import REPOSITORY
from test_lines import ENDED, FINAL, GAP, PARTIAL, STARTED

from streamer import errors
from streamer.arguments import parse
from streamer.cli import _COMMANDS
from streamer.sinks.lines import to_json

DOCUMENTS = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "training/README.md")),
    *sorted((REPOSITORY / "docs").glob("*.md")),
    *sorted((REPOSITORY / "streamer").rglob("*.md")),
]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")

each_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY))
)


def anchors(document: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_document
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        place, _, anchor = link.partition("#")
        target = (document.parent / place).resolve() if place else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@each_document
def test_commands_are_known(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert set(re.findall(r"`streamer (\w+)", text)) <= set(_COMMANDS)
    for line in re.findall(r"^streamer(?: .*)?$", text, re.MULTILINE):
        words = shlex.split(re.split(r"[|>\[]", line)[0], comments=True)[1:]
        if not words or words[0].startswith("-"):
            words.insert(0, "listen")
        parse(words, _COMMANDS)
    for module in re.findall(r"python -m ([\w.]+)", text):
        assert find_spec(module), module


@pytest.mark.parametrize("event", [STARTED, PARTIAL, FINAL, GAP, ENDED])
def test_the_readme_shows_json_lines_as_they_are(event: object) -> None:
    keys = re.findall(r'"(\w+)": ', to_json(event))
    assert keys in [re.findall(r'"(\w+)": ', line) for line in README.splitlines()]


def test_the_readme_tells_every_exit_code() -> None:
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    known = {error.exit_code for error in vars(errors).values() if hasattr(error, "exit_code")}
    assert known | {0} <= told
