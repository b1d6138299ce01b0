from __future__ import annotations

import io
import os
import pty
import re
import signal
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TextIO

import pexpect
import pyte
import pytest

from streamer.messages import Event, Final, Gap, Partial, SessionEnded, SessionStarted
from streamer.sinks import Sink, Status, console
from streamer.sinks.console import Console, clean

REPOSITORY = Path(__file__).parents[1]
WIDTHS = [2, 7, 20, 40, 80, 200]
COLOURS = re.compile(rb"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;\d+)*m")
STARTED = SessionStarted(
    model="embedded-sew", device="USB Microphone", source_rate=48_000, version="0"
)
GAP = Gap(start=960_000, end=984_000, rate=48_000, reason="overflow")
ENDED = SessionEnded(
    captured=979_200, speech=641_600, silence=329_600, lost=8_000, rate=16_000, retracted=1
)


def partial(stable: str, tentative: str = "", segment: int = 0) -> Partial:
    return Partial(segment, 0.0, 1.0, stable, tentative, 1.0)


def final(text: str, segment: int = 0) -> Final:
    return Final(segment, 0.0, 1.0, text, text.upper(), (), 1.0)


def status(device: str = "USB Microphone", level_db: float = -20.0, lost_s: float = 0.0) -> Status:
    return Status(
        device=device,
        model="embedded-sew",
        level_db=level_db,
        lag_s=0.3,
        cost=0.21,
        lost_s=lost_s,
        elapsed_s=75.0,
    )


class Terminal:
    """A pseudo-terminal with an emulator behind it."""

    def __init__(self, columns: int, lines: int = 24) -> None:
        self._master, slave = pty.openpty()
        self.stream: TextIO = open(slave, "w", encoding="utf-8")  # noqa: SIM115 (closed in close)
        self.screen = pyte.HistoryScreen(columns, lines, history=1000)
        self._emulator = pyte.ByteStream(self.screen)
        self.resize(columns, lines)

    def resize(self, columns: int, lines: int) -> None:
        termios.tcsetwinsize(self.stream.fileno(), (lines, columns))
        self.screen.resize(lines, columns)

    def read(self) -> bytes:
        """Everything written since the last read, shown on the screen as well."""
        mark = b"\x1b]2;read\x07"  # sets a title, no cell
        os.write(self.stream.fileno(), mark)
        data = b""
        while not data.endswith(mark):
            data += os.read(self._master, 65_536)
        data = data.removesuffix(mark)
        self._emulator.feed(data)
        return data

    def rows(self) -> list[str]:
        """Everything to be seen, scrolled-off lines first, without blank lines at the end."""
        self.read()
        past = [
            "".join(line[x].data for x in range(self.screen.columns))
            for line in self.screen.history.top
        ]
        rows = [row.rstrip() for row in [*past, *self.screen.display]]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    @property
    def cursor_visible(self) -> bool:
        self.read()
        return not self.screen.cursor.hidden

    def close(self) -> None:
        self.stream.close()
        os.close(self._master)


@pytest.fixture
def terminal(request: pytest.FixtureRequest) -> Iterator[Terminal]:
    made = Terminal(*getattr(request, "param", (80,)))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still unless a test moves `now`."""
    fake = SimpleNamespace(now=100.0)
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: fake.now))
    return fake


def live(terminal: Terminal, **environ: str) -> Console:
    return Console(terminal.stream, terminal.stream, {"TERM": "xterm-256color", **environ})


def play(sink: Sink, terminal: Terminal | None, *items: Event | Status) -> None:
    for item in items:
        if isinstance(item, Status):
            sink.status(item)
        else:
            sink.show(item)
        if terminal:
            terminal.read()


def test_finished_text_stands_above_speech_and_status(terminal: Terminal) -> None:
    with live(terminal) as sink:
        play(sink, terminal, STARTED, status(), partial("First words", "and mor"))
        assert terminal.rows() == [
            "USB Microphone · embedded-sew · Ctrl-C ends",
            "First words and mor",
            "USB Microphone  ━━━━━───  -20 dB  lost 0.0 s  lag 0.3 s  cpu 21%  1:15",
        ]
        play(sink, terminal, final("First words and more."), partial("", "sec", segment=1))
        assert terminal.rows() == [
            "USB Microphone · embedded-sew · Ctrl-C ends",
            "First words and more.",
            "sec",
            "USB Microphone  ━━━━━───  -20 dB  lost 0.0 s  lag 0.3 s  cpu 21%  1:15",
        ]


def test_the_live_region_leaves_nothing_behind(terminal: Terminal) -> None:
    with live(terminal) as sink:
        assert not terminal.cursor_visible
        play(sink, terminal, status(), partial("One", "two " * 60), final("One two."), GAP)
        play(sink, terminal, partial("never finished", segment=1), ENDED, status())
        play(sink, terminal, partial("", segment=1))
    assert terminal.cursor_visible
    assert terminal.rows() == [
        "One two.",
        "⋯ 0.50 s of audio lost at 20.00 s (overflow)",
        "61.2 s captured, 40.1 s of speech, 0.5 s lost; 1 word changed after settling",
    ]


@pytest.mark.parametrize("terminal", [(width,) for width in WIDTHS], indirect=True)
def test_every_width_shows_every_finished_word_once(terminal: Terminal) -> None:
    said = [f"{word} sentence of some more words, extraordinarily." for word in ("one", "two")]
    with live(terminal) as sink:
        for segment, text in enumerate(said):
            for end in range(0, len(text), 5):
                play(
                    sink, terminal, status(level_db=-end), partial(text[:end], text[end:], segment)
                )
            play(sink, terminal, final(text, segment))
    shown = "".join(terminal.rows()).replace(" ", "")
    assert shown == "".join(said).replace(" ", "")


@pytest.mark.parametrize("terminal", [(width,) for width in WIDTHS], indirect=True)
def test_the_status_fits_one_line_of_any_width(terminal: Terminal) -> None:
    with live(terminal) as sink:
        for name in ("USB", "Built-in Audio Analog Stereo", "マイク（内蔵オーディオ）と長い名前"):
            sink._drawn_at = -1.0
            play(sink, terminal, status(device=name, lost_s=1234.5, level_db=-100))
            assert len(terminal.rows()) == 1
            # In the last column, real terminals would take the end of the row with what follows.
            assert len(terminal.screen.display[0].rstrip()) < terminal.screen.columns


def test_words_are_not_broken_at_the_end_of_a_line(terminal: Terminal) -> None:
    terminal.resize(20, 24)
    with live(terminal) as sink:
        play(sink, terminal, final("Please send the report to the team before lunch."))
    assert terminal.rows() == ["Please send the", "report to the team", "before lunch."]


@pytest.mark.parametrize("terminal", [(30, 5), (30, 2), (30, 1)], indirect=True)
def test_speech_taller_than_the_terminal_shows_its_end(terminal: Terminal) -> None:
    with live(terminal) as sink:
        words = [f"word{number:03}" for number in range(100)]
        for count in range(1, 101):
            play(sink, terminal, status(level_db=-count), partial(" ".join(words[:count])))
        assert not terminal.screen.history.top
        assert "word099" in terminal.rows()[-2 if terminal.screen.lines > 3 else 0]
        assert len(terminal.rows()) <= max(1, terminal.screen.lines // 2), "half as wide, it is off"
        play(sink, terminal, final("Done."))
    assert terminal.rows() == ["Done."]


@pytest.mark.parametrize("widths", [(80, 30), (30, 80), (80, 9, 200)])
def test_a_resized_terminal_is_drawn_anew(terminal: Terminal, widths: tuple[int, ...]) -> None:
    with live(terminal) as sink:
        for width in widths:
            terminal.resize(width, 24)
            sink._drawn_at = -1.0
            play(sink, terminal, status(), partial("said and", "heard"))
        assert terminal.rows()[0].startswith("said and heard"[: widths[-1]])
        assert len(terminal.rows()) == 2
    assert terminal.rows() == []


def test_a_resized_terminal_is_drawn_anew_even_if_the_words_are_the_same(
    terminal: Terminal,
) -> None:
    with live(terminal) as sink:
        sink.show(partial("short"))
        terminal.read()
        sink.show(partial("short"))
        assert not terminal.read()
        terminal.resize(40, 24)
        sink.show(partial("short"))
        assert terminal.read()


def test_a_terminal_that_tells_of_its_new_size_too_late_keeps_its_rows(terminal: Terminal) -> None:
    with live(terminal) as sink:
        terminal.screen.resize(24, 20)
        play(sink, terminal, status(), partial("one two three four five six", "seven"))
        assert len(terminal.rows()) == 2
        assert terminal.screen.cursor.y == 0
    assert terminal.rows() == []


def test_settled_words_are_plain_and_the_rest_is_dim(terminal: Terminal) -> None:
    with live(terminal) as sink:
        sink.show(partial("settled", "maybe"))
        assert b"settled \x1b[2mmaybe\x1b[0m" in terminal.read()


def test_loss_is_red_only_when_there_is_some(terminal: Terminal, clock: SimpleNamespace) -> None:
    with live(terminal) as sink:
        sink.status(status())
        assert b"\x1b[31m" not in terminal.read()
        clock.now += 1
        sink.status(status(lost_s=0.5))
        assert b"\x1b[31mlost 0.5 s" in terminal.read()


def test_only_changes_are_written_and_not_too_often(
    terminal: Terminal, clock: SimpleNamespace
) -> None:
    with live(terminal) as sink:
        sink.status(status(level_db=-20))
        assert terminal.read()
        sink.status(status(level_db=-10))
        assert not terminal.read(), "drawn again at once"
        clock.now += 0.11
        sink.status(status(level_db=-10))
        assert terminal.read()
        clock.now += 0.11
        sink.status(status(level_db=-10.2))
        assert not terminal.read(), "drawn although nothing to be seen has changed"


@pytest.mark.parametrize("level_db", [float("-inf"), float("nan"), float("inf"), 0.0, -0.2, -200])
def test_any_level_can_be_shown(terminal: Terminal, level_db: float) -> None:
    with live(terminal) as sink:
        sink.status(status(level_db=level_db))
        assert re.search(r"[━─]{8}  [ -]\d\d? dB|  0 dB", terminal.rows()[0])


def test_no_color_leaves_no_colours(terminal: Terminal) -> None:
    items = (STARTED, status(level_db=-1, lost_s=1.0), partial("a", "b"), GAP, final("c"), ENDED)
    written = {}
    for value in ("", "1"):
        with live(terminal, NO_COLOR=value) as sink:
            for item in items:
                if isinstance(item, Status):
                    sink.status(item)
                else:
                    sink.show(item)
            written[value] = terminal.read()
    assert COLOURS.search(written[""])
    assert not COLOURS.search(written["1"])


@pytest.mark.parametrize("term", ["dumb", "unknown", ""])
def test_a_dumb_terminal_gets_plain_lines(terminal: Terminal, term: str) -> None:
    with Console(terminal.stream, terminal.stream, {"TERM": term}) as sink:
        play(sink, None, STARTED, status(), partial("Wo", "rds"), final("Words."), GAP, ENDED)
    assert terminal.read().decode().splitlines() == [
        "USB Microphone · embedded-sew · Ctrl-C ends",
        "Words.",
        "⋯ 0.50 s of audio lost at 20.00 s (overflow)",
        "61.2 s captured, 40.1 s of speech, 0.5 s lost; 1 word changed after settling",
    ]


def test_without_any_terminal_the_words_are_plain_lines() -> None:
    out, err = io.StringIO(), io.StringIO()
    text = "A long sentence that no terminal is there to wrap. " * 5
    with Console(out, err, {"TERM": "xterm"}) as sink:
        play(sink, None, STARTED, status(), partial("A", "b"), final(text), final(""), GAP, ENDED)
    assert out.getvalue() == text.strip() + "\n"
    assert "\x1b" not in err.getvalue()
    assert len(err.getvalue().splitlines()) == 3


def test_where_only_errors_have_a_terminal_the_region_is_there(
    terminal: Terminal, clock: SimpleNamespace
) -> None:
    out = io.StringIO()
    with Console(out, terminal.stream, {"TERM": "xterm"}) as sink:
        play(sink, terminal, STARTED, status(), partial("Some", "words"))
        assert terminal.rows()[1] == "Some words"
        play(sink, terminal, final("Some words."), status())
        assert terminal.rows() == ["USB Microphone · embedded-sew · Ctrl-C ends"], (
            "no room for what `| tee` prints"
        )
        clock.now += 0.11
        play(sink, terminal, status())
        assert len(terminal.rows()) == 2
    assert out.getvalue() == "Some words.\n"
    assert terminal.rows() == ["USB Microphone · embedded-sew · Ctrl-C ends"]


def test_names_cannot_steer_the_terminal(terminal: Terminal) -> None:
    name = "Mic\x1b[2J\x1b[31m\x07\r\n\x9b31m \u202egnp.exe\x00"
    assert clean(name) == "Mic 31m gnp.exe"
    with live(terminal, NO_COLOR="1") as sink:
        play(sink, None, SessionStarted("m\x1b[5m", name, 16_000, "0"), status(device=name))
        data = terminal.read()
    assert b"\x07" not in data
    assert b"\x9b31m" not in data.replace(b"\xc2\x9b", b"\x9b")
    assert b"[2J" not in data


def test_wide_and_combining_characters_keep_their_place(terminal: Terminal) -> None:
    terminal.resize(21, 24)
    with live(terminal) as sink:
        play(sink, terminal, status(), partial("日本語のテキストもここに", "表示"), status())
        assert terminal.rows()[:2] == ["日本語のテキストもこ", "こに 表示"]
        play(sink, terminal, final("日本語のテキストもここに表示されます。"))
        play(sink, terminal, final("cafe\u0301 " * 6))
        assert terminal.rows()[:4] == [
            "日本語のテキストもこ",
            "こに表示されます。",
            "café café café café",
            "café café",
        ]


def test_an_error_leaves_the_terminal_as_it_was(terminal: Terminal) -> None:
    def fail() -> None:
        with live(terminal) as sink:
            play(sink, terminal, status(), partial("half a"))
            raise RuntimeError("model")

    with pytest.raises(RuntimeError, match="model"):
        fail()
    assert terminal.cursor_visible
    assert terminal.rows() == []


def test_a_terminal_that_has_gone_hides_no_other_error() -> None:
    gone = Terminal(80)

    def fail() -> None:
        with live(gone) as sink:
            play(sink, gone, status())
            os.close(gone._master)
            raise RuntimeError("first")

    with pytest.raises(RuntimeError, match="first"):
        fail()
    # The stream cannot be flushed any more; it must not try when it is closed.
    os.dup2(os.open(os.devnull, os.O_WRONLY), gone.stream.fileno())
    gone.stream.close()


INTERRUPTED = """
import time
from streamer.messages import Partial
from streamer.sinks.console import Console
try:
    with Console() as sink:
        sink.show(Partial(0, 0.0, 1.0, "half a", "sent", 1.0))
        time.sleep(60)
except KeyboardInterrupt:
    print("stopped")
"""


def test_an_interrupted_process_gives_the_terminal_back() -> None:
    environ = {**os.environ, "TERM": "xterm-256color"}
    child = pexpect.spawn(
        sys.executable, ["-c", INTERRUPTED], cwd=str(REPOSITORY), env=environ, timeout=30
    )
    screen = pyte.Screen(80, 24)
    emulator = pyte.ByteStream(screen)
    child.expect_exact("sent")
    emulator.feed(child.before + child.after)
    child.kill(signal.SIGINT)
    child.expect(pexpect.EOF)
    emulator.feed(child.before)
    child.close()
    assert not screen.cursor.hidden
    assert [row.rstrip() for row in screen.display if row.strip()] == ["stopped"]


TALKING = """
import itertools, time
from streamer.messages import Partial
from streamer.sinks import Status
from streamer.sinks.console import Console
with Console() as sink:
    sink.show(Partial(0, 0.0, 1.0, "half a", "sent", 1.0))
    for second in itertools.count():
        level = -second % 60
        sink.status(Status(device="Mic", model="m", level_db=level, lag_s=0, cost=0, lost_s=0,
                           elapsed_s=second))
        time.sleep(0.11)
"""


def test_a_stopped_process_gives_the_terminal_back_and_takes_it_again(tmp_path: Path) -> None:
    (tmp_path / "talking.py").write_text(TALKING)
    environ = {**os.environ, "TERM": "xterm-256color", "PS1": "$ ", "PYTHONPATH": str(REPOSITORY)}
    shell = pexpect.spawn("bash", ["--norc", "-i"], env=environ, cwd=str(tmp_path), timeout=60)
    screen = pyte.Screen(80, 24)
    emulator = pyte.ByteStream(screen)

    def shown(*, status: bool, row: str) -> None:
        """Wait until a row stands there, with the status below the words or without it."""
        while True:
            emulator.feed(shell.read_nonblocking(65_536, timeout=60))
            rows = [line.rstrip() for line in screen.display]
            if row in rows and any("lag" in line for line in rows) is status:
                return

    shell.sendline(f"{sys.executable} talking.py")
    shown(status=True, row="half a sent")
    assert screen.cursor.hidden
    shell.sendcontrol("z")
    shown(status=False, row="$")
    assert not screen.cursor.hidden
    assert "half a sent" not in [line.rstrip() for line in screen.display]
    shell.sendline("fg")
    shown(status=True, row="half a sent")
    assert screen.cursor.hidden
    assert sum("lag" in line for line in screen.display) == 1
    shell.sendcontrol("z")
    shown(status=False, row="$")
    shell.sendline("bg; sleep 1; echo later")
    shown(status=False, row="later")
    assert not screen.cursor.hidden
    shell.sendline("kill -9 %1; exit")
    shell.expect(pexpect.EOF)
    shell.close()
