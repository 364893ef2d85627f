"""The `-o key=value` options of a backend: what each takes, and what a user wrote."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

import attrs

from codellm.errors import InvalidValueError, UnknownNameError

T = TypeVar("T")


@attrs.frozen
class Option(Generic[T]):
    """An option: what it `takes`, as the end of the sentence "option NAME is …", and the value that a text means.

    `parse` raises ValueError for a text that the option does not take. `otherwise` says what holds where a user says
    nothing, in a text that the option takes or in words, and `help` what the option does. `schemes` are those that it
    belongs to, none where it belongs to all.
    """

    default: T
    takes: str
    parse: Callable[[str], T]
    otherwise: str = ""
    help: str = ""
    schemes: frozenset[str] = frozenset()

    def fits(self, scheme: str | None) -> bool:
        """Whether it may be given where weights are in `scheme`; None: in their own precision."""
        return not self.schemes or scheme in self.schemes

    def takes_text(self, text: str) -> bool:
        """Whether a user may say `text`."""
        try:
            self.parse(text)
        except ValueError:
            return False
        return True


def read(options: Mapping[str, str], known: Mapping[str, Option[Any]], scheme: str | None = None) -> dict[str, Any]:
    """The value of every option of `known` that fits `scheme`.

    Raises:
        UnknownNameError: no such option.
        InvalidValueError: a value that the option does not take.
    """
    known = {name: option for name, option in known.items() if option.fits(scheme)}
    values = {name: option.default for name, option in known.items()}
    for name, text in options.items():
        if name not in known:
            raise UnknownNameError("option", name, known)
        try:
            values[name] = known[name].parse(text)
        except ValueError as error:
            raise InvalidValueError(f"option {name} is {known[name].takes}, not {text!r}") from error
    return values


def choice(default: str, *others: str, help: str = "", schemes: Iterable[str] = ()) -> Option[str]:
    """One of several words."""
    words = (default, *others)
    return Option(
        default, f"one of {', '.join(words)}", lambda text: words[words.index(text)], default, help, frozenset(schemes)
    )


def switch(on: str, off: str, *, default: bool, help: str = "", schemes: Iterable[str] = ()) -> Option[bool]:
    """One of two words."""
    words = (off, on)
    return Option(
        default,
        f"one of {on}, {off}",
        lambda text: bool(words.index(text)),
        words[default],
        help,
        frozenset(schemes),
    )


def count(
    default: T, what: str, least: int, most: int, *, otherwise: str | None = None, help: str = ""
) -> Option[int | T]:
    """A whole number of `what`; where the default is none, `otherwise` says what holds."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise ValueError(text)
        return int(text)

    takes = f"a number of {what} from {least} to {most}"
    return Option(default, takes, parse, str(default) if otherwise is None else otherwise, help)


def amount(
    default: T, what: str, *, otherwise: str | None = None, help: str = "", schemes: Iterable[str] = ()
) -> Option[float | T]:
    """A finite number of `what` above zero; where the default is none, `otherwise` says what holds."""

    def parse(text: str) -> float:
        if not 0 < (value := float(text)) < math.inf:
            raise ValueError(text)
        return value

    told = str(default) if otherwise is None else otherwise
    return Option(default, f"{what} above 0", parse, told, help, frozenset(schemes))
