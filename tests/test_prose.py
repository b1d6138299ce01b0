"""Sentences from the forms in which packages bring books and speeches."""

from __future__ import annotations

import json
import string
import zlib

import pytest

from training.prose import main, sentences, texts
from training.text import held_out, normalize


def r_object(lines: list[bytes | None]) -> bytes:
    """A character vector as R writes it to a lazy-load database: length, then what zlib made."""
    content = b"X\n\x00\x00\x00\x03" + b"\x00\x00\x00\x10" + len(lines).to_bytes(4)
    for line in lines:
        length = 0xFFFFFFFF if line is None else len(line)
        content += b"\x00\x04\x00\x09" + length.to_bytes(4) + (line or b"")
    return len(content).to_bytes(4) + zlib.compress(content)


def test_a_text_is_cut_where_a_voice_would_pause():
    text = 'Mr. Bingley\nwas there; "Was he?" she asked -- yes.\n\nCHAPTER TWO\n\nIt rained.'
    assert list(sentences(text)) == [
        "Mr Bingley was there;",
        '"Was he?',
        "she asked",
        "yes.",
        "CHAPTER TWO",
        "It rained.",
    ]


def test_texts_of_a_folder_of_json(tmp_path):
    (tmp_path / "b.json").write_text(json.dumps({"year": 1862, "text": "We can succeed."}))
    (tmp_path / "a.json").write_text(json.dumps({"text": "Call me Ishmael."}))
    (tmp_path / "index.json").write_text(json.dumps(["a", "b"]))
    (tmp_path / "notes.txt").write_text("Not this one.")
    assert list(texts(tmp_path)) == ["Call me Ishmael.", "We can succeed."]


def test_texts_of_an_r_package(tmp_path):
    database = tmp_path / "Rdata.rdb"
    emma = r_object([b"EMMA", b"", None, b"Emma Woodhouse, handsome,", b"clever, and rich"])
    database.write_bytes(emma + r_object([b"It is a truth", b"universally acknowledged"]))
    assert list(texts(database)) == [
        "EMMA\n\n\nEmma Woodhouse, handsome,\nclever, and rich",
        "It is a truth\nuniversally acknowledged",
    ]


@pytest.mark.parametrize("cut", [20, -3])
def test_a_damaged_r_package_is_said_in_one_line(tmp_path, cut):
    whole = r_object([b"EMMA"] * 50)
    (tmp_path / "Rdata.rdb").write_bytes(whole + whole[:cut])
    with pytest.raises(SystemExit, match="damaged"):
        main([str(tmp_path / "Rdata.rdb"), "--output", str(tmp_path / "prose.txt")])
    assert not (tmp_path / "prose.txt").exists()


def test_damaged_json_is_said_in_one_line(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(SystemExit, match=r"a\.json: no JSON"):
        main([str(tmp_path), "--output", str(tmp_path / "prose.txt")])


def test_what_is_measured_on_is_left_out(tmp_path, capsys):
    said = [f"{name} stood there" for name in string.ascii_lowercase * 8]
    said = [f"{sentence} {number * 'so '}long" for number, sentence in enumerate(said)]
    kept = [sentence for sentence in said if not held_out(normalize(sentence))]
    assert 0 < len(kept) < len(said)
    source, output = tmp_path / "said.txt", tmp_path / "prose.txt"
    source.write_text("\n".join([*said, "1984", ""]))
    main([str(source), "--output", str(output)])
    assert output.read_text().splitlines() == kept
    assert f"{len(kept)} sentences" in capsys.readouterr().out


def test_without_a_sentence_nothing_is_written(tmp_path):
    (tmp_path / "empty.txt").write_text("1984\n")
    with pytest.raises(SystemExit, match="no sentences"):
        main([str(tmp_path / "empty.txt"), "--output", str(tmp_path / "prose.txt")])
    assert not (tmp_path / "prose.txt").exists()
