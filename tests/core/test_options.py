"""`-o key=value`: what is read of it, and how what cannot be is refused."""

import pytest

from codellm.errors import InvalidValueError, UnknownNameError
from codellm.options import amount, choice, count, read, switch

KNOWN = {
    "mode": choice("slow", "fast"),
    "cache": switch("on", "off", default=True),
    "chunk": count(None, "tokens", 1, 64),
    "threshold": amount(6.0, "a size"),
}


def test_what_is_not_written_has_its_default():
    assert read({}, KNOWN) == {"mode": "slow", "cache": True, "chunk": None, "threshold": 6.0}


def test_what_is_written_is_read():
    written = {"mode": "fast", "cache": "off", "chunk": "64", "threshold": "0.5"}
    assert read(written, KNOWN) == {"mode": "fast", "cache": False, "chunk": 64, "threshold": 0.5}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mode", "Fast", "option mode is one of slow, fast, not 'Fast'"),
        ("cache", "true", "option cache is one of on, off, not 'true'"),
        ("chunk", "65", "option chunk is a number of tokens from 1 to 64, not '65'"),
        ("chunk", "-1", "not '-1'"),
        ("chunk", "\u00b2", "not"),
        ("threshold", "0", "option threshold is a size above 0, not '0'"),
        ("threshold", "nan", "not 'nan'"),
        ("threshold", "inf", "not 'inf'"),
        ("threshold", "six", "not 'six'"),
    ],
)
def test_a_value_that_is_none_is_refused(name, value, message):
    with pytest.raises(InvalidValueError, match=message):
        read({name: value}, KNOWN)


def test_an_unknown_option_is_refused_with_the_nearest():
    with pytest.raises(UnknownNameError, match="unknown option 'chunks'; did you mean 'chunk'"):
        read({"chunks": "1"}, KNOWN)
