"""The option `prefix_cache`: who has it is served with it, and nobody else is asked for it."""

from __future__ import annotations

from typing import Any

import pytest

from codellm import options
from codellm.backend import Backend
from codellm.errors import InvalidValueError
from codellm.loading import with_defaults
from codellm.prefix_cache import CONVERSING, MOST, prefix_cache, room
from codellm.spec import LoadSpec

OPTION = prefix_cache("")


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("64", 64), ("auto", None)])
def test_a_size_or_auto(text, value):
    assert options.read({"prefix_cache": text}, {"prefix_cache": OPTION}) == {"prefix_cache": value}


@pytest.mark.parametrize("text", ["-1", "1.5", "much", "", str(1 + (1 << 20))])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InvalidValueError, match="option prefix_cache is a number of MiB from 0 to 1048576, or auto"):
        options.read({"prefix_cache": text}, {"prefix_cache": OPTION})


def test_room():
    assert room(0, 1 << 40) is None
    assert room(3, -5) == 3 << 20
    assert [room(None, spare) for spare in (-5, 800, 1 << 40)] == [0, 100, MOST]


def given(known: dict[str, Any], **said: str) -> dict[str, str]:
    """What a backend with the options `known` is given in a conversation."""

    class Known(Backend):
        name, formats, options = "known", frozenset({"gguf"}), known

        def load(self, spec: LoadSpec, source: Any) -> Any: ...

    return dict(with_defaults(LoadSpec(model="any", options=said), Known(), CONVERSING).options)


def test_a_backend_with_the_option_is_given_it():
    assert given({"prefix_cache": OPTION}) == {"prefix_cache": "auto"}
    assert given({"prefix_cache": OPTION, "other": OPTION}, other="1") == {"prefix_cache": "auto", "other": "1"}


@pytest.mark.parametrize("text", ["0", "64"])
def test_what_a_user_says_holds(text):
    assert given({"prefix_cache": OPTION}, prefix_cache=text) == {"prefix_cache": text}


def test_a_backend_without_it_is_not_given_it():
    assert given({}) == {}
    assert given({"prefix_cache": options.count(0, "MiB", 0, 9)}) == {}  # it does not know `auto`
