import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.core.hypothesis import contradicted


@pytest.mark.parametrize(
    ("stable", "final", "count"),
    [
        ("", "", 0),
        ("A B", "A B C D", 0),
        ("A B", "A C", 1),
        ("A B C", "A C", 1),
        ("A C", "A B C", 0),
        ("A B", "", 2),
        ("A B", "C D E", 2),
        ("A B C", "B C", 1),
    ],
)
def test_contradicted_counts_what_the_final_text_does_not_have(stable, final, count):
    assert contradicted(stable.split(), final.split()) == count


@given(st.lists(st.sampled_from("ABC"), max_size=8), st.lists(st.sampled_from("ABC"), max_size=8))
def test_contradicted_is_bounded_and_nothing_for_a_beginning(stable, final):
    assert 0 <= contradicted(stable, final) <= len(stable)
    assert contradicted(stable, stable + final) == 0
