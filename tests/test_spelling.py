from __future__ import annotations

import pytest

from streamer.adaptation.spelling import spell
from streamer.core.ctc import Vocabulary


def vocabulary(letters: str, delimiter: bool = True) -> Vocabulary:
    tokens = ("<pad>", "<s>", "</s>", "<unk>", "|" if delimiter else "</x>", *letters, "ING")
    special = {1, 2, 3} if delimiter else {1, 2, 3, 4}
    return Vocabulary(tokens, 0, 4 if delimiter else None, frozenset(special))


UPPER = vocabulary("ABCDEFGHIJKLMNOPQRSTUVWXYZ'")
LOWER = vocabulary("abcdefghijklmnopqrstuvwxyzäöüß-")
MIXED = vocabulary("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXY.,?'")
RUSSIAN = vocabulary("абвгдежзийклмнопрстуфхцчшщъыьэюя")


def read(ids: tuple[int, ...] | None, letters: Vocabulary) -> str | None:
    return None if ids is None else "".join(letters.tokens[id_] for id_ in ids)


@pytest.mark.parametrize(
    ("letters", "text", "expected"),
    [
        (UPPER, "Hello, world!", "HELLO|WORLD"),
        (UPPER, "  a\tb\n c ", "A|B|C"),
        (UPPER, "I don’t “know”.", "I|DON'T|KNOW"),
        (UPPER, "‘Stop,’ he said, 'the dog's bowl.' James'", "STOP|HE|SAID|THE|DOG'S|BOWL|JAMES'"),
        (UPPER, "'tis rock'n'roll", "'TIS|ROCK'N'ROLL"),
        (UPPER, "well-known either/or yes—no one,two wait…what", "WELL|KNOWN|EITHER|OR|YES|NO|ONE"
                "|TWO|WAIT|WHAT"),
        (UPPER, "the U.S. café naïve cafe\u0301 Straße co\u00adoperate",
                "THE|US|CAFE|NAIVE|CAFE|STRASSE|COOPERATE"),
        (UPPER, "sing", "SING"),
        (LOWER, "Über-Größe, don't É", "über-größe|dont|e"),
        (LOWER, "A\u0308rger", "ärger"),
        (MIXED, "Is it? Yes, Zoe.", "Is|it?|Yes,|zoe."),
        (RUSSIAN, "Ёж — мой", "еж|мой"),
        (UPPER, "room 5", None),
        (UPPER, "x²", None),
        (UPPER, "50%", None),
        (UPPER, "you & me", None),
        (UPPER, "f***", None),
        (UPPER, "two + two", None),
        (UPPER, "five €", None),
        (UPPER, "a | b", None),
        (UPPER, "Привет", None),
        (RUSSIAN, "hello", None),
        (UPPER, "ﬁne", "FINE"),
        (UPPER, "", None),
        (UPPER, "...", None),
        (vocabulary("ab5"), "A 5b", "a|5b"),
        (vocabulary("aerst"), "Straße", "strasse"),
        (vocabulary("ab", delimiter=False), "a b", "ab"),
    ],
)  # fmt: skip
def test_text_is_spelled_with_the_letters_there_are(
    letters: Vocabulary, text: str, expected: str | None
) -> None:
    assert read(spell(text, letters), letters) == expected


def test_no_special_token_is_ever_spelled() -> None:
    odd = Vocabulary(("_", "#", "|", "A", "B"), 0, 2, frozenset({1}))
    assert spell("A_B", odd) == (3, 2, 4)
    assert spell("A#", odd) is None
