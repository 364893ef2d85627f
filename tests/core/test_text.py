from hypothesis import given
from hypothesis import strategies as st

from codellm.text import StopScanner, TextStream

ALPHABET = st.text(alphabet="abé\n", max_size=40)


def expected(text: str, stops: list[str]) -> str:
    """The text before the stop string that ends first, the longest of those that end together."""
    matches = [(place + len(stop), place) for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(matches)[1]] if matches else text


@given(ALPHABET, st.lists(st.text(alphabet="abé\n", min_size=1, max_size=5), max_size=4), st.data())
def test_however_the_text_is_cut_the_same_comes_out(text, stops, data):
    encoded = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(encoded)), max_size=8)))
    stream, released = TextStream(stops), ""
    for begin, end in zip([0, *cuts], [*cuts, len(encoded)], strict=True):
        released += stream.push(encoded[begin:end])
        assert expected(text, stops).startswith(released)  # nothing is shown that must be taken back
    released += stream.finish()
    assert released == stream.text == expected(text, stops)


def test_a_stop_at_the_start_leaves_nothing():
    scanner = StopScanner(["ab"])
    assert scanner.push("a") == ""
    assert scanner.push("bc") == ""
    assert scanner.hit
    assert scanner.finish() == ""


def test_what_might_have_become_a_stop_is_released_at_the_end():
    scanner = StopScanner(["\n\ndef"])
    assert scanner.push("x\n\nde") == "x"
    assert scanner.finish() == "\n\nde"


def test_a_character_cut_off_becomes_a_replacement():
    stream = TextStream(())
    assert stream.push("é".encode()[:1]) == ""
    assert stream.finish() == "\ufffd"
