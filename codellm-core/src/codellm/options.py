"""The `-o key=value` options of a backend: what each takes, and what a user wrote."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import attrs

from codellm.errors import InvalidValueError, UnknownNameError

T = TypeVar("T")


@attrs.frozen
class Option(Generic[T]):
    """An option: what it `takes`, as the end of the sentence "option NAME is …", and the value that a text means.

    `parse` raises ValueError for a text that the option does not take.
    """

    default: T
    takes: str
    parse: Callable[[str], T]


def read(options: Mapping[str, str], known: Mapping[str, Option[Any]]) -> dict[str, Any]:
    """The value of every option of `known`.

    Raises:
        UnknownNameError: no such option.
        InvalidValueError: a value that the option does not take.
    """
    values = {name: option.default for name, option in known.items()}
    for name, text in options.items():
        if name not in known:
            raise UnknownNameError("option", name, known)
        try:
            values[name] = known[name].parse(text)
        except ValueError as error:
            raise InvalidValueError(f"option {name} is {known[name].takes}, not {text!r}") from error
    return values


def choice(default: str, *others: str) -> Option[str]:
    """One of several words."""
    words = (default, *others)
    return Option(default, f"one of {', '.join(words)}", lambda text: words[words.index(text)])


def switch(on: str, off: str, *, default: bool) -> Option[bool]:
    """One of two words."""
    words = (off, on)
    return Option(default, f"one of {on}, {off}", lambda text: bool(words.index(text)))


def count(default: T, what: str, least: int, most: int) -> Option[int | T]:
    """A whole number of `what`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise ValueError(text)
        return int(text)

    return Option(default, f"a number of {what} from {least} to {most}", parse)


def amount(default: T, what: str) -> Option[float | T]:
    """A finite number of `what` above zero."""

    def parse(text: str) -> float:
        if not 0 < (value := float(text)) < math.inf:
            raise ValueError(text)
        return value

    return Option(default, f"{what} above 0", parse)
