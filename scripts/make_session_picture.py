"""Make docs/session.svg: a terminal in which `streamer listen --demo` runs.

    python scripts/make_session_picture.py [--until WORD] [--output FILE]

It runs in a shell, at the pace of speech. The picture shows the screen as it is when WORD has
appeared among the words that may still change.
"""

import argparse
import html
import itertools
import os
import sys
from pathlib import Path

import pexpect
import pyte

COLUMNS, LINES = 80, 16
REPOSITORY = Path(__file__).resolve().parent.parent
FONT, LINE, MARGIN, BAR = 14, 19, 16, 30
"""Units of the picture: the size of the letters, the height of a line, the window's margin and
title bar."""
CELL = 0.602 * FONT
"""The width that DejaVu Sans Mono gives a letter."""
COLOURS = {"default": "#d4d7dc", "green": "#98c379", "brown": "#e5c07b", "red": "#e06c75"}
DIM = "blue"
"""The colour that stands for dim text, which pyte does not know. Nothing else is blue."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--until", metavar="WORD", default="forms")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "docs" / "session.svg")
    options = parser.parse_args()
    screen = pyte.Screen(COLUMNS, LINES)
    run(screen, options.until)
    options.output.write_text(drawn(screen), encoding="utf-8")
    print("\n".join(row.rstrip() for row in screen.display).rstrip())


def run(screen: pyte.Screen, word: str) -> None:
    """Start a session in a shell, and end it once the word is shown dim."""
    stream = pyte.ByteStream(screen)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PS1": "$ ",
        "TERM": "xterm-256color",
    }
    shell = pexpect.spawn(
        "bash",
        ["--norc", "--noprofile"],
        dimensions=(LINES, COLUMNS),
        env=environment,
        timeout=120,
    )
    shell.expect_exact("$ ")
    stream.feed(b"$ ")
    shell.sendline("streamer listen --demo")
    while word not in dim_text(screen):
        stream.feed(shell.read_nonblocking(4096).replace(b"\x1b[2m", b"\x1b[34m"))
    shell.sendintr()
    shell.expect_exact("$ ")
    shell.sendline("exit")
    shell.close()


def dim_text(screen: pyte.Screen) -> str:
    cells = itertools.product(range(LINES), range(COLUMNS))
    found = (screen.buffer[row][column] for row, column in cells)
    return "".join(cell.data for cell in found if cell.fg == DIM)


def drawn(screen: pyte.Screen) -> str:
    """The screen, down to its last line that is not empty, as a window in SVG."""
    rows = [row for row in range(LINES) if screen.display[row].strip()]
    width = round(COLUMNS * CELL) + 2 * MARGIN
    height = BAR + (rows[-1] + 1) * LINE + MARGIN
    texts = [run for row in rows for run in runs(screen, row)]
    lights = [
        f'<circle cx="{18 + 20 * place}" cy="16" r="6" fill="{colour}"/>'
        for place, colour in enumerate(("#e06c75", "#e5c07b", "#98c379"))
    ]
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">',
            "<title>streamer listen --demo in a terminal: stable words are bright, words that may "
            "still change are dim</title>",
            f'<rect width="{width}" height="{height}" rx="9" fill="#21252b"/>',
            *lights,
            f'<g font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="{FONT}">',
            *texts,
            "</g>",
            "</svg>",
            "",
        )
    )


def runs(screen: pyte.Screen, row: int) -> list[str]:
    """The cells of a line, those of one colour together, each run as wide as on the terminal."""
    line, found, column = screen.buffer[row], [], 0
    length = len(screen.display[row].rstrip())
    for colour, cells in itertools.groupby(range(length), lambda column: line[column].fg):
        text = "".join(line[column].data for column in cells)
        if words := text.strip():
            style = f'fill="{COLOURS["default" if colour == DIM else colour]}"'
            style += ' fill-opacity="0.5"' if colour == DIM else ""
            x, y = MARGIN + (column + text.index(words)) * CELL, BAR + (row + 0.75) * LINE
            found.append(
                f'<text x="{x:.1f}" y="{y:.1f}" textLength="{len(words) * CELL:.1f}" {style}>'
                f"{html.escape(words)}</text>"
            )
        column += len(text)
    return found


if __name__ == "__main__":
    main()
