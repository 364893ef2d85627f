"""Objects that stay on their side of the channel, by number, in both directions."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

from .channel import Refused

WHOLE_KINDS = {"callable", "iterator", "generator"}
"""Functions, iterators and generators of Python's own, which have nothing of a class that a program wrote."""
FEATURES = {
    "callable": "__call__",
    "iterable": "__iter__",
    "iterator": "__next__",
    "sized": "__len__",
    "subscriptable": "__getitem__",
    "truth": "__bool__",
}
"""What an object can be asked for beside its attributes, and the method of its class that makes it so."""
_OBJECT = "object"
_MAX_KIND = 100


class Handles:
    """What is lent and borrowed. `proxy(kind, number)` makes what stands here for an object of the other side.

    A kind is one of `WHOLE_KINDS`, or `object` and which of the `FEATURES` its class has. Only the `trusted` side may
    name functions of the library, which then run on the other one.
    """

    def __init__(self, proxy: Callable[[str, int], Any], *, trusted: bool) -> None:
        self.trusted = trusted
        self.kept: set[str] = set()
        """The names of the classes of which objects were lent."""
        self._proxy = proxy
        self._mine: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._theirs: dict[int, Any] = {}
        self._homes: dict[int, int] = {}

    def lend(self, value: Any) -> int:
        """The number under which the other side may speak of `value`, which is kept alive for that."""
        number = self._numbers.setdefault(id(value), len(self._mine))
        if number == len(self._mine):
            self._mine.append(value)
        return number

    def own(self, number: Any) -> Any:
        """What was lent under `number`.

        Raises:
            Refused: nothing was.
        """
        if type(number) is not int or not 0 <= number < len(self._mine):
            raise Refused("an object that was never lent")
        return self._mine[number]

    def home(self, value: Any) -> int | None:
        """The number on the other side, where `value` stands for an object there."""
        number = self._homes.get(id(value))
        return number if number is not None and self._theirs[number] is value else None

    def borrow(self, kind: Any, number: Any) -> Any:
        """What stands for the other side's `number`, the same object each time.

        Raises:
            Refused: the kind is unknown.
        """
        if type(number) is not int or type(kind) is not str or not _is_kind(kind):
            raise Refused("an object of no known kind")
        return self._borrowed(number, lambda: self._proxy(kind, number))

    def borrow_nan(self, number: Any, bits: str) -> Any:
        """A nan of the other side, the same object each time: containers are equal that hold one and the same nan.

        Raises:
            Refused: it is another float.
        """
        nan: float = struct.unpack(">d", bytes.fromhex(bits))[0]
        if type(number) is not int or not math.isnan(nan):
            raise Refused("a nan of no known kind")
        return self._borrowed(number, lambda: nan)

    def _borrowed(self, number: int, make: Callable[[], Any]) -> Any:
        if number not in self._theirs:
            made = self._theirs[number] = make()
            self._homes[id(made)] = number
        return self._theirs[number]


def kind_of(mro: tuple[type, ...]) -> str:
    """The kind of an object whose class is of no interest otherwise."""
    found = [word for word, method in FEATURES.items() if _has(mro, method)]
    return " ".join([_OBJECT, *found])


def _has(mro: tuple[type, ...], method: str) -> bool:
    """Whether a class has a method; one that is set to None says that it has not."""
    return next((base.__dict__[method] is not None for base in mro if method in base.__dict__), False)


def _is_kind(kind: str) -> bool:
    if kind in WHOLE_KINDS:
        return True
    first, *words = kind[:_MAX_KIND].split(" ")
    return first == _OBJECT and all(word in FEATURES for word in words)
