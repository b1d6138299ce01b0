import pytest
from conftest import RECORDINGS, more_speech

from streamer.corpora.recordings import find_recordings
from streamer.errors import InputError


@pytest.fixture
def chapter(tmp_path):
    """Two chapters in LibriSpeech's layout, written out of order."""
    for speaker, number, ending, clips in (
        ("84", "121", "flac", {2: "AND MORE", 0: "THE FIRST  WORDS", 1: "THEN"}),
        ("84", "99", "wav", {0: "ANOTHER CHAPTER"}),
    ):
        folder = tmp_path / "speech" / speaker / number
        folder.mkdir(parents=True)
        lines = []
        for clip, text in clips.items():
            name = f"{speaker}-{number}-{clip:04}"
            (folder / f"{name}.{ending}").touch()
            lines.append(f"{name} {text}\n")
        (folder / f"{speaker}-{number}.trans.txt").write_text("\n".join(lines))
    return tmp_path / "speech"


def manifest(folder, text):
    path = folder / "clips.tsv"
    path.write_text(text, encoding="utf-8")
    return path


def shape(recordings):
    return [
        (each.name, [(clip.path.name, clip.text) for clip in each.clips]) for each in recordings
    ]


def test_librispeech_layout_is_found_at_any_depth(chapter):
    found = dict(shape(find_recordings(chapter)))
    assert found == {
        "84-121-0000": [("84-121-0000.flac", "THE FIRST  WORDS")],
        "84-121-0001": [("84-121-0001.flac", "THEN")],
        "84-121-0002": [("84-121-0002.flac", "AND MORE")],
        "84-99-0000": [("84-99-0000.wav", "ANOTHER CHAPTER")],
    }


def test_the_clips_of_a_chapter_are_joined_in_the_order_of_their_names(chapter):
    assert shape(find_recordings(chapter, join=True)) == [
        (
            "84-121",
            [
                ("84-121-0000.flac", "THE FIRST  WORDS"),
                ("84-121-0001.flac", "THEN"),
                ("84-121-0002.flac", "AND MORE"),
            ],
        ),
        ("84-99", [("84-99-0000.wav", "ANOTHER CHAPTER")]),
    ]


def test_a_line_without_text_is_a_clip_without_words(chapter):
    table = next(chapter.rglob("84-99.trans.txt"))
    table.write_text("84-99-0000\n")
    assert [r.clips[0].text for r in find_recordings(chapter) if r.name == "84-99-0000"] == [""]


def test_a_manifest_names_files_beside_it_in_any_columns(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("a/one.wav", "a/two.wav"):
        (tmp_path / name).touch()
    table = manifest(
        tmp_path,
        'note\ttranscript\tfile\nx\tHe said "no\ta/one.wav\n\n\t\ta/two.wav\tone column too many\n',
    )
    assert shape(find_recordings(table)) == [
        ("one", [("one.wav", 'He said "no')]),
        ("two", [("two.wav", "")]),
    ]
    assert find_recordings(table)[0].clips[0].path == tmp_path / "a" / "one.wav"


def test_a_folder_gives_what_any_layout_names(chapter):
    (chapter / "84" / "84.tsv").write_text(
        "file\ttranscript\n121/84-121-0000.flac\tin the layout already\nby.mp3\tBy a table\n"
    )
    (chapter / "84" / "by.mp3").touch()
    (chapter / "other.tsv").write_text("a table of something else\n")
    (chapter / "mine.wav").touch()
    (chapter / "mine.txt").write_text("A pair\n")
    found = dict(shape(find_recordings(chapter)))
    assert len(found) == 4 + 2
    assert found["84-121-0000"] == [("84-121-0000.flac", "THE FIRST  WORDS")]
    assert found["by"] == [("by.mp3", "By a table")]
    assert found["mine"] == [("mine.wav", "A pair\n")]


def test_a_manifest_may_come_from_windows(tmp_path):
    (tmp_path / "é.wav").touch()
    path = tmp_path / "clips.tsv"
    path.write_bytes("\ufefffile\ttranscript\r\né.wav\tÉtude\r\n".encode())
    assert shape(find_recordings(path)) == [("é", [("é.wav", "Étude")])]


def test_joined_clips_of_a_manifest_are_chapters_or_folders(tmp_path):
    (tmp_path / "free").mkdir()
    names = ("7-3-0010.mp3", "7-3-0002.mp3", "7-4-0001.mp3", "free/b.wav", "free/a.wav")
    for name in names:
        (tmp_path / name).touch()
    rows = "".join(f"{name}\t{name}\n" for name in names)
    joined = find_recordings(manifest(tmp_path, "file\ttranscript\n" + rows), join=True)
    assert [(each.name, [clip.text for clip in each.clips]) for each in joined] == [
        ("7-3", ["7-3-0002.mp3", "7-3-0010.mp3"]),
        ("7-4", ["7-4-0001.mp3"]),
        ("free", ["free/a.wav", "free/b.wav"]),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "first line must name the columns file and transcript"),
        ("path\ttext\na.wav\thello\n", "first line must name the columns file and transcript"),
        ("file\ttranscript\n", "no recordings with text"),
        ("file\ttranscript\ngone.wav\thello\n", "gone.wav: named in"),
        ("transcript\tfile\nhello\n", "clips.tsv:2: no file is named"),
    ],
)
def test_what_is_wrong_with_a_manifest_is_said_in_one_line(tmp_path, text, says):
    with pytest.raises(InputError) as raised:
        find_recordings(manifest(tmp_path, text))
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_manifest_that_is_no_text(tmp_path):
    path = tmp_path / "clips.tsv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        find_recordings(path)


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match="no such folder or manifest"):
        find_recordings(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no recordings with text"):
        find_recordings(tmp_path)


def test_a_clip_of_the_layout_without_audio(chapter):
    next(chapter.rglob("84-121-0001.flac")).unlink()
    with pytest.raises(InputError, match=r"84-121-0001\.flac: named in .* not there"):
        find_recordings(chapter)


def test_the_clips_of_real_chapters_are_joined():
    for table in (RECORDINGS / "clips.tsv", *more_speech("long.tsv")):
        whole = find_recordings(table, join=True)
        clips = find_recordings(table)
        assert len(clips) == sum(len(each.clips) for each in whole)
        assert 1 < len(whole) < len(clips) / 2
