"""Which lines of a generated text are told: those of the block that the cursor is in, until the time is over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codellm.serve.lines import Lines


def told(pieces, indent, seconds=None, elapsed=0.0):
    lines = Lines(indent, seconds)
    text = "".join(lines.push(piece, elapsed) for piece in pieces)
    return text + lines.finish(), lines.ended


@pytest.mark.parametrize(
    ("text", "indent", "expected"),
    [
        ("a\nb", 0, "a\nb"),
        ("a\n    b\n        c\nd", 4, "a\n    b\n        c\n"),
        ("a\n  b\n", 4, "a\n"),
        ("a\n\n    b", 4, "a\n"),
        ("a\n\tb\n\t\tc", 1, "a\n\tb\n\t\tc"),
        ("a\n   ", 4, "a\n   "),
        ("\n    a", 4, "\n    a"),
        ("a", 4, "a"),
    ],
)
def test_a_line_that_is_indented_less_ends_it(text, indent, expected):
    assert told([text], indent) == (expected, text != expected)


@given(st.lists(st.text(alphabet=" \tab\n", max_size=6), max_size=8), st.integers(0, 4))
def test_how_it_is_cut_makes_no_difference(pieces, indent):
    text, ended = told(["".join(pieces)], indent)
    assert told(pieces, indent) == (text, ended)
    first, *lines = text.split("\n")
    assert "".join(pieces).startswith(text)
    assert first == "".join(pieces).split("\n")[0]
    whole = lines[:-1]
    assert all(len(line) - len(line.lstrip(" \t")) >= indent for line in whole)
    assert ended == (text != "".join(pieces)) or text.endswith("\n")


def test_the_time_ends_it_at_the_end_of_a_line():
    lines = Lines(seconds=1.0)
    assert (lines.push("a\nb", 0.5), lines.ended) == ("a\nb", False)
    assert (lines.push("c", 2.0), lines.ended) == ("c", False)
    assert (lines.push("d\n", 2.0), lines.ended) == ("d\n", True)
    assert lines.finish() == ""
