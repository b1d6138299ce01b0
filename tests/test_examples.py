from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import RECORDING, RECORDINGS, more_speech, words
from scipy.signal import resample_poly

from streamer.config import Settings
from streamer.corpora.examples import Example, Found, find_examples, split_held_out
from streamer.corpora.sessions import MARGIN_S, read_session
from streamer.errors import InputError
from streamer.live import Transcriber
from streamer.messages import SAMPLE_RATE, Block, Final, Gap, SessionEnded, SessionStarted
from streamer.recognition.ctc_recognizer import CtcRecognizer
from streamer.sinks import journal
from streamer.sinks.journal import Journal
from streamer.sources.files import AudioFile

RATE = 8_000
TOLD = (
    "The cat sat on the mat",
    "It looked out of the window",
    "",
    "A bird was singing in the tree",
    "The dog next door began to bark",
    "Nobody came to see what it was",
)
"""What a session's segments say; each is its number in seconds long, and a second lies between."""


def starts(told: Sequence[str] = TOLD) -> list[float]:
    return [sum(1 + n for n in range(1, number)) + 1.0 for number in range(1, len(told) + 1)]


def mark(number: int) -> float:
    """The level of the number-th segment's audio, so that a cut is known by its sound."""
    return round(0.1 * number, 1)


def record(folder: Path, told: Sequence[str] = TOLD, gap_at: float | None = None) -> Path:
    """Record a session through the journal, as `streamer listen --record` does."""
    sound = np.zeros(int((starts(told)[-1] + len(told) + 1) * RATE), np.float32)
    with Journal(folder, RATE) as kept:
        kept.show(SessionStarted("embedded-sew", "test", RATE, "0"))
        for number, start in enumerate(starts(told), 1):
            sound[int(start * RATE) : int((start + number) * RATE)] = mark(number)
        for start in range(0, len(sound), RATE // 10):
            if gap_at is not None and start == round(gap_at * RATE):
                gap = Gap(start, start + RATE // 10, RATE, "overflow")
                kept.show(gap)
                kept.audio(gap)
            else:
                kept.audio(Block(start, sound[start : start + RATE // 10]))
        for number, (start, text) in enumerate(zip(starts(told), told, strict=True), 1):
            end = start + number
            kept.show(Final(number - 1, start, end, text, text.upper(), (), end))
        kept.show(SessionEnded(len(sound), len(sound), 0, 0, RATE, 0))
    return kept.folder


def edit(session: Path, change: Callable[[list[str]], object]) -> Path:
    """Change the lines of a session's transcript, as in an editor."""
    transcript = session / "transcript.txt"
    lines = transcript.read_text(encoding="utf-8").splitlines()
    change(lines)
    transcript.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return session


def replace(number: int, *new: str, count: int = 1) -> Callable[[list[str]], object]:
    """Put `new` in the place of `count` lines from line `number` (from 0) on."""
    return lambda lines: lines.__setitem__(slice(number, number + count), new)


def heard(found: Found) -> list[tuple[str, list[float]]]:
    """Each example's text with the levels that its audio goes through, silence left out."""
    result = []
    for example in found.examples:
        middles = example.samples[: len(example.samples) // 800 * 800].reshape(-1, 800)
        levels = [round(float(np.median(part)), 1) for part in middles]
        steps = [b for a, b in zip([0.0, *levels], levels, strict=False) if a != b and b]
        result.append((example.text, steps))
    return result


def noted(found: Found, *parts: str) -> bool:
    return any(all(part in note for part in parts) for note in found.notes)


def tone(path: Path, seconds: float = 1.0, rate: int = SAMPLE_RATE, level: float = 0.5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * rate)) / rate
    soundfile.write(path, level * np.sin(2 * np.pi * 440 * time), rate)
    return path


def pair(audio: Path, text: str, seconds: float = 1.0) -> Path:
    tone(audio, seconds)
    audio.with_suffix(".txt").write_text(text, encoding="utf-8")
    return audio


# Sessions


def test_a_corrected_line_gets_the_audio_it_was_written_for(tmp_path: Path) -> None:
    session = edit(record(tmp_path), replace(1, "It locked out Otto the widow."))
    found = find_examples([tmp_path])
    assert heard(found) == [
        ("The cat sat on the mat", [0.1]),
        ("It locked out Otto the widow.", [0.2]),
        ("A bird was singing in the tree", [0.4]),
        ("The dog next door began to bark", [0.5]),
        ("Nobody came to see what it was", [0.6]),
    ]
    assert [e.source for e in found.examples][1] == f"{session.name}/transcript.txt:2"
    assert found.notes == (
        "1 of 5 lines of corrected sessions differ from what the model wrote; "
        "the others are taken to be right",
    )


def test_audio_comes_at_the_models_rate_with_a_margin(tmp_path: Path) -> None:
    edit(record(tmp_path), replace(1, "It looked out of a window"))
    first = find_examples([tmp_path]).examples[0]
    assert first.samples.dtype == np.float32
    assert len(first.samples) == (1 + 2 * MARGIN_S) * SAMPLE_RATE == first.seconds * SAMPLE_RATE
    edge = round(MARGIN_S * SAMPLE_RATE)
    assert np.abs(first.samples[: edge - 100]).max() < 0.01
    assert first.samples[edge + 100 : -edge - 100] == pytest.approx(mark(1), abs=0.01)


def test_the_margin_does_not_reach_into_the_next_segment(tmp_path: Path) -> None:
    with Journal(tmp_path, RATE) as kept:
        for number in (1, 2, 3):
            kept.audio(Block((number - 1) * RATE, np.full(RATE, mark(number), np.float32)))
        for number, (start, end) in enumerate([(0, 1), (1, 1.95), (2, 3)]):
            kept.show(Final(number, start, end, f"word {number}", "", (), end))
    edit(kept.folder, replace(0, "words"))
    assert [e.seconds for e in find_examples([tmp_path]).examples] == [1, 0.975, 1.025]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(
            lambda lines: (lines.pop(0), lines.__setitem__(3, "Nobody came to see what that was")),
            {"It looked out of the window": [0.2], "Nobody came to see what that was": [0.6]},
            id="deleted",
        ),
        pytest.param(
            replace(1, "Nothing like this was ever said", "It looks out of the window"),
            {"The cat sat on the mat": [0.1], "It looks out of the window": [0.2]},
            id="added",
        ),
        pytest.param(
            replace(2, "A bird was singing in the trees; the dog next door began to bark", count=2),
            {
                "A bird was singing in the trees; the dog next door began to bark": [0.4, 0.5],
                "Nobody came to see what it was": [0.6],
            },
            id="joined",
        ),
        pytest.param(
            replace(3, "The dogs next door", "began to bark."),
            {
                "The dogs next door began to bark.": [0.5],
                "Nobody came to see what it was": [0.6],
            },
            id="parted",
        ),
        pytest.param(
            replace(3, "Seventy frogs hummed"),
            {
                "A bird was singing in the tree": [0.4],
                "Seventy frogs hummed": [0.5],
                "Nobody came to see what it was": [0.6],
            },
            id="rewritten",
        ),
        pytest.param(
            # As many lines as before: pairing by number would give each the audio of another.
            lambda lines: (lines.pop(0), lines.append("and that is a line of my own")),
            {},
            id="deleted here and added there: nothing corrected",
        ),
        pytest.param(
            lambda lines: lines.__setitem__(
                slice(None),
                [*lines[2:4], "Nobody came to see what that was", "not", "heard at all"],
            ),
            {
                "A bird was singing in the tree": [0.4],
                "Nobody came to see what that was": [0.6],
            },
            id="deleted here, added there, corrected between",
        ),
    ],
)
def test_lines_find_their_audio_whatever_was_edited(
    tmp_path: Path, change: Callable[[list[str]], object], expected: dict[str, list[float]]
) -> None:
    edit(record(tmp_path / "a"), change)
    pair(tmp_path / "other.wav", "something else")
    got = dict(heard(find_examples([tmp_path])))
    del got["something else"]
    assert {text: got.get(text) for text in expected} == expected
    for text, levels in got.items():
        assert levels, text
        assert text in expected or levels == [mark(TOLD.index(text) + 1)], text
    assert bool(got) == bool(expected)


def test_lines_without_audio_are_left_out_and_told(tmp_path: Path) -> None:
    session = edit(
        record(tmp_path), replace(0, "The cat sat on a mat", "nothing like this was ever said")
    )
    found = find_examples([tmp_path])
    assert len(found.examples) == 5
    assert noted(found, "1 left out", "nothing was heard", f"{session.name}/transcript.txt:2")


def test_many_edits_at_once_are_untangled(tmp_path: Path) -> None:
    """A long session with half of its letters wrong, all of it corrected, and lines moved about."""
    rng = random.Random(4)
    vocabulary = RECORDING.with_suffix(".txt").read_text().split() + " ".join(TOLD).split()
    truth = [" ".join(rng.choices(vocabulary, k=rng.randint(4, 15))) for _ in range(150)]
    written, origins, number = [], [], 0
    while number < len(truth):
        kind = rng.random()
        joined = 2 if kind < 0.1 and number + 1 < len(truth) else 1
        if kind < 0.9:
            written.append(" ".join(truth[number : number + joined]))
            origins.append((float(number), number + joined - 0.5))
        number += joined
    events = [
        {
            "event": "final",
            "start": float(number),
            "end": number + 0.5,
            "text": "".join(rng.choice("abcde ") if rng.random() < 0.4 else c for c in line),
        }
        for number, line in enumerate(truth)
    ]
    (tmp_path / "events.jsonl").write_text("\n".join(map(json.dumps, events)) + "\n")
    (tmp_path / "transcript.txt").write_text("\n".join(written) + "\n")
    session = read_session(tmp_path)
    assert not session.unheard
    placed = {line.text: (line.start, line.end) for line in session.lines}
    assert len(placed) == len(written)
    for text, (start, end) in zip(written, origins, strict=True):
        assert placed[text] == pytest.approx((start, end), abs=MARGIN_S + 1e-6), text


def test_a_session_that_was_not_corrected_is_left_out(tmp_path: Path) -> None:
    session = record(tmp_path)
    with pytest.raises(InputError, match=rf"not corrected: .* the model wrote: {session.name}"):
        find_examples([tmp_path])
    # Deleted or rejoined lines say nothing about the words in the others.
    edit(session, lambda lines: lines.pop(1))
    with pytest.raises(InputError, match="not corrected"):
        find_examples([tmp_path])


def test_an_editors_line_ends_and_marks_are_no_corrections(tmp_path: Path) -> None:
    transcript = record(tmp_path) / "transcript.txt"
    lines = transcript.read_text().splitlines()
    transcript.write_bytes(("\ufeff\r\n" + "\r\n\r\n".join(lines) + "  \r\n").encode())
    with pytest.raises(InputError, match="not corrected"):
        find_examples([tmp_path])
    transcript.write_bytes(transcript.read_bytes().replace(b"cat", b"rat"))
    found = find_examples([tmp_path])
    assert heard(found)[0] == ("The rat sat on the mat", [0.1])
    assert found.examples[0].source.endswith(":2")


def test_gaps_and_further_audio_files_keep_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "MAX_AUDIO_BYTES", 100_002)
    session = edit(record(tmp_path, gap_at=2.5), replace(0, "The cat sat on a mat"))
    assert len(list(session.glob("audio*.wav"))) > 3
    (session / "audio-2.txt").write_text("No second time.")
    found = find_examples([tmp_path])
    assert [levels for _, levels in heard(found)] == [[0.1], [0.2], [0.4], [0.5], [0.6]]
    assert [e.seconds for e in found.examples] == pytest.approx([1.2, 2.2, 4.2, 5.2, 6.2])


def test_a_session_that_was_killed_gives_what_it_has(tmp_path: Path) -> None:
    session = edit(record(tmp_path), replace(0, "The cat sat on a mat"))
    audio = session / "audio.wav"
    sound, _ = soundfile.read(audio, dtype="int16")
    soundfile.write(audio, sound[: int(16 * RATE)], RATE, subtype="PCM_16")
    with (session / "events.jsonl").open("a") as events:
        events.write('{"event": "final", "sta')
    found = find_examples([tmp_path])
    assert [levels for _, levels in heard(found)] == [[0.1], [0.2], [0.4]]
    assert noted(found, "2 left out", "the recording ends before")


def test_damaged_audio_of_a_session_is_told(tmp_path: Path) -> None:
    session = edit(record(tmp_path), replace(0, "The cat sat on a mat"))
    audio = session / "audio.wav"
    soundfile.write(session / "audio-2.wav", [], RATE)  # killed when it had just been made
    found = find_examples([tmp_path])
    assert len(found.examples) == 5
    assert not noted(found, "left out")
    audio.write_bytes(audio.read_bytes()[: 16 * RATE * 2])
    pair(tmp_path / "a.wav", "said")
    found = find_examples([tmp_path])
    assert noted(found, "cannot be read", "ends early")
    assert noted(found, "5 left out", "the recording ends before")


def test_bracketed_tokens_and_silent_lines(tmp_path: Path) -> None:
    edit(
        record(tmp_path),
        lambda lines: lines.__setitem__(
            slice(0, 2), ["The  cat [noise] sat (laughs) on <unk> the mat", "[door]"]
        ),
    )
    found = find_examples([tmp_path])
    assert heard(found)[:2] == [
        ("The cat sat on the mat", [0.1]),
        ("A bird was singing in the tree", [0.4]),
    ]
    assert noted(found, "1 left out", "without text", "transcript.txt:2")


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"event": "final", "start": 1, "end": "x"}',
        '{"event": "final", "start": 2, "end": 1, "text": "a"}',
        '{"event": "final", "start": 1, "end": 2, "text": null}',
    ],
)
def test_a_damaged_event_is_an_error(tmp_path: Path, line: str) -> None:
    events = record(tmp_path) / "events.jsonl"
    lines = events.read_text().splitlines()
    events.write_text("\n".join([*lines[:2], line, *lines[2:]]) + "\n")
    with pytest.raises(InputError, match=r"events\.jsonl:3: not an event.*; restore"):
        find_examples([tmp_path])


@pytest.mark.parametrize("missing", ["audio.wav", "transcript.txt"])
def test_a_session_without_one_of_its_files_is_told(tmp_path: Path, missing: str) -> None:
    session = edit(record(tmp_path), replace(0, "The cat sat on a mat"))
    (session / missing).unlink()
    pair(tmp_path / "a.wav", "said")
    found = find_examples([tmp_path])
    assert noted(found, "1 left out", f"session without {missing}", session.name)


def test_a_real_recording_corrected_by_hand(recognizer: CtcRecognizer, tmp_path: Path) -> None:
    with AudioFile(RECORDING) as source, Journal(tmp_path, source.rate) as kept:
        transcriber = Transcriber(recognizer, source.rate, Settings(), previews=False)
        for block in source:
            kept.audio(block)
            for event in transcriber.feed(block):
                kept.show(event)
        for event in transcriber.finish():
            kept.show(event)
    lines = (kept.folder / "transcript.txt").read_text().splitlines()
    assert len(lines) > 1
    # All that was heard, but for its first word, which the user puts right.
    edit(kept.folder, replace(0, f"Corrected {lines[0]}"))
    found = find_examples([tmp_path])
    assert [e.text for e in found.examples] == [f"Corrected {lines[0]}", *lines[1:]]
    for example, line in zip(found.examples, lines, strict=True):
        again = Transcriber(recognizer, SAMPLE_RATE, Settings(), previews=False)
        events = [*again.feed(example.samples), *again.finish()]
        said = words(" ".join(event.text for event in events if isinstance(event, Final)))
        shared = set(said) & set(words(line))
        assert len(shared) > 0.6 * len(set(words(line))), (said, line)


# Other layouts


def test_pairs_of_audio_and_text(tmp_path: Path) -> None:
    pair(tmp_path / "b.flac", "Second\n")
    pair(tmp_path / "sub" / "c.ogg", "\ufeffThird: déjà vu")
    pair(tmp_path / "sub" / "D.mp3", "Fourth")
    pair(tmp_path / "a.wav", "First\nand more")
    tone(tmp_path / "without.wav")
    (tmp_path / "notes.txt").write_text("no audio")
    pair(tmp_path / "._a.wav", "what another system leaves behind")
    found = find_examples([tmp_path])
    assert [(e.text, e.source) for e in found.examples] == [
        ("First and more", f"{tmp_path.name}/a.wav"),
        ("Second", f"{tmp_path.name}/b.flac"),
        ("Fourth", "sub/D.mp3"),
        ("Third: déjà vu", "sub/c.ogg"),
    ]
    assert found.notes == ()


def test_capitals_in_a_files_ending_do_not_matter(tmp_path: Path) -> None:
    pair(tmp_path / "a.wav", "First").rename(tmp_path / "a.WAV")
    assert [e.text for e in find_examples([tmp_path]).examples] == ["First"]


def test_librispeech_folders(tmp_path: Path) -> None:
    chapter = tmp_path / "dev" / "84" / "121123"
    for number in range(2):
        tone(chapter / f"84-121123-000{number}.flac", 1 + number)
    (chapter / "84-121123.trans.txt").write_text(
        "84-121123-0000 GO DO YOU HEAR\n84-121123-0001 BUT IN LESS\n84-121123-0002 THAN\n"
    )
    found = find_examples([tmp_path])
    assert [(e.text, round(e.seconds)) for e in found.examples] == [
        ("GO DO YOU HEAR", 1),
        ("BUT IN LESS", 2),
    ]
    assert noted(found, "1 left out", "without audio", "84-121123-0002")


def test_a_manifest_in_a_folder_or_given_itself(tmp_path: Path) -> None:
    tone(tmp_path / "clips" / "one.wav", 2)
    tone(tmp_path / "clips" / "two.wav", 3)
    manifest = tmp_path / "eval.tsv"
    manifest.write_text(
        "seconds\ttranscript\tfile\n"
        '2\tHe said "no" twice\tclips/one.wav\n\n3\tTwo\tclips/two.wav\n1\tThree\tclips/gone.wav\n'
    )
    for place in (tmp_path, manifest):
        found = find_examples([place])
        assert [e.text for e in found.examples] == ['He said "no" twice', "Two"]
        assert noted(found, "1 left out", "without audio", "gone.wav")


def test_recorded_clips_are_read() -> None:
    for table in (RECORDINGS / "clips.tsv", *more_speech("eval.tsv")):
        found = find_examples([table])
        rows = table.read_text(encoding="utf-8").splitlines()[1:]
        left_out = sum(int(n.split()[0]) for n in found.notes)
        assert len(found.examples) + left_out == len(rows)
        assert len(found.examples) > 0.8 * len(rows)


def test_the_same_audio_is_taken_once(tmp_path: Path) -> None:
    session = edit(record(tmp_path), replace(0, "The cat sat on a mat"))
    (session / "audio.txt").write_text("everything")
    pair(tmp_path / "x" / "a.wav", "said")
    (tmp_path / "x" / "x.trans.txt").write_text("a SAID\n")
    (tmp_path / "all.tsv").write_text("file\ttranscript\nx/a.wav\tsaid so\n")
    found = find_examples([tmp_path, session, tmp_path / "x", tmp_path / "all.tsv"])
    assert len(found.examples) == 5 + 1
    assert found.examples[-1].text == "SAID"


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_other_rates_are_resampled(tmp_path: Path, rate: int) -> None:
    tone(tmp_path / "a.wav", 1, rate)
    (tmp_path / "a.txt").write_text("a tone")
    samples = find_examples([tmp_path]).examples[0].samples
    sound, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    common = np.gcd(rate, SAMPLE_RATE)
    expected = resample_poly(sound.astype(float), SAMPLE_RATE // common, rate // common)
    np.testing.assert_allclose(samples, expected, atol=1e-6)


def test_what_is_too_long_too_short_or_empty_is_counted(tmp_path: Path) -> None:
    for number in range(4):
        pair(tmp_path / f"long{number}.flac", "words", 30.1)
    pair(tmp_path / "short.wav", "words", 0.25)
    pair(tmp_path / "silent.wav", " [noise] \n")
    pair(tmp_path / "just.wav", "words", 30)
    found = find_examples([tmp_path])
    assert [e.source for e in found.examples] == [f"{tmp_path.name}/just.wav"]
    assert noted(found, "4 left out, longer than 30 s", "long0.flac", "long2.flac, ...")
    assert noted(found, "1 left out, shorter than 0.3 s", "short.wav")
    assert noted(found, "1 left out, without text", "silent.wav")


def test_a_segment_that_is_too_long_is_counted(tmp_path: Path) -> None:
    with Journal(tmp_path, 1_000) as kept:
        kept.audio(Block(0, np.zeros(40_000, np.float32)))
        kept.show(Final(0, 0, 2, "one", "ONE", (), 2))
        kept.show(Final(1, 3, 35, "two", "TWO", (), 35))
    edit(kept.folder, replace(0, "One"))
    found = find_examples([tmp_path])
    assert [e.text for e in found.examples] == ["One"]
    assert noted(found, "1 left out, longer than 30 s")


# What cannot be used


def test_unreadable_audio_is_left_out_unless_nothing_remains(tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"RIFF????")
    (tmp_path / "bad.txt").write_text("words")
    with pytest.raises(InputError, match=r"nothing to learn from; 1 left out.*bad\.wav"):
        find_examples([tmp_path])
    pair(tmp_path / "good.wav", "words")
    found = find_examples([tmp_path])
    assert len(found.examples) == 1
    assert noted(found, "1 left out", "cannot be read", "bad.wav")


def test_places_without_examples_are_errors(tmp_path: Path) -> None:
    for place, says in [
        (tmp_path / "gone", "gone: no such folder"),
        (tone(tmp_path / "x" / "a.wav"), "a.wav: not a folder"),
        (tmp_path, "nothing to learn from; give .*--record.*LibriSpeech.*tsv.*a.wav and a.txt"),
    ]:
        with pytest.raises(InputError, match=says) as error:
            find_examples([place])
        assert "\n" not in str(error.value)


def test_a_manifest_without_its_columns(tmp_path: Path) -> None:
    manifest = tmp_path / "table.tsv"
    manifest.write_text("path\tsentence\na.wav\tsaid\n")
    with pytest.raises(InputError, match="name the columns file and transcript; add it"):
        find_examples([manifest])
    with pytest.raises(InputError, match=r"without columns file and transcript: .*table\.tsv"):
        find_examples([tmp_path])
    pair(tmp_path / "a.wav", "said")
    assert noted(find_examples([tmp_path]), "1 left out", "table.tsv")


@pytest.mark.parametrize("name", ["a.txt", "x.trans.txt", "all.tsv", "events"])
def test_text_that_is_not_utf8(tmp_path: Path, name: str) -> None:
    pair(tmp_path / "a.wav", "said")
    path = tmp_path / name
    if name == "events":
        path = edit(record(tmp_path), replace(0, "The cat sat on a mat")) / "transcript.txt"
    path.write_bytes("Größe".encode("utf-16"))
    with pytest.raises(InputError, match=rf"{path.name}: not UTF-8 text; save it as UTF-8"):
        find_examples([tmp_path])


def test_no_torch_is_needed() -> None:
    code = "import sys, streamer.corpora.examples as e; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, check=False)
    assert done.returncode == 0


# Holding out


def clip(text: str, seconds: float = 1.0, source: str = "") -> Example:
    return Example(np.zeros(round(seconds * SAMPLE_RATE), np.float32), text, source or text)


def texts(examples: Sequence[Example]) -> list[str]:
    return [example.text for example in examples]


def test_a_share_of_the_whole_is_held_out(tmp_path: Path) -> None:
    rng = random.Random(0)
    examples = [clip(f"sentence {n}", rng.uniform(1, 5)) for n in range(200)]
    learned, held_out = split_held_out(examples)
    assert sorted(texts([*learned, *held_out])) == sorted(texts(examples))
    whole = sum(e.seconds for e in examples)
    assert 0.13 * whole < sum(e.seconds for e in held_out) <= 0.15 * whole
    assert texts(split_held_out(examples, share=0.5)[1]) != texts(held_out)
    assert texts(split_held_out(examples, seed=1)[1]) != texts(held_out)


def test_order_does_not_change_what_is_held_out() -> None:
    examples = [clip(f"sentence {n % 40}", 1 + n % 7, f"s:{n}") for n in range(60)]
    learned, held_out = split_held_out(examples)
    random.Random(3).shuffle(examples)
    again = split_held_out(examples)
    assert [e.source for e in again[0]] == [e.source for e in learned]
    assert [e.source for e in again[1]] == [e.source for e in held_out]


def test_the_same_words_are_never_on_both_sides() -> None:
    examples = [
        clip(text, 1, f"{text}{n}")
        for n in range(10)
        for text in (f"Yes, number {n}.", f"yes number {n}", f"YES NUMBER  {n}!")
    ]
    learned, held_out = split_held_out(examples, share=0.3)
    assert len(held_out) == 9
    numbers = [{"".join(filter(str.isdigit, e.text)) for e in side} for side in (learned, held_out)]
    assert not numbers[0] & numbers[1]


def test_at_least_one_is_held_out_and_one_is_not() -> None:
    learned, held_out = split_held_out([clip("long", 9), clip("longer", 10)])
    assert (texts(learned), texts(held_out)) == (["longer"], ["long"])
    assert [len(side) for side in split_held_out([clip("a"), clip("b")], share=1)] == [1, 1]
    assert [len(side) for side in split_held_out([clip("a"), clip("A.")])] == [2, 0]
    assert split_held_out([]) == ([], [])
