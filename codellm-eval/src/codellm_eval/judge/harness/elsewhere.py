"""What stands for an object of the other side, and asks it there for what is asked of it here.

Nothing is asked that would let an object judge what it is compared with: it is equal to itself alone, it has no
arithmetic and no order, and whether it contains something is found out here, by iterating it.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Generator
from typing import Any, Protocol

from .handles import FEATURES

MAX_PIECE = 1024
"""Items of an iterator that are asked for at once."""
_SINGLES = 64
"""Items that are asked for one by one, as in one process; from then on an eighth of what there was."""
_SHOWN = "<an object that stays in its process>"


class Asker(Protocol):
    """What asks the other side about its object number `target`."""

    def call(self, target: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What calling it gives."""

    def ask_of(self, target: int, what: str, *args: Any) -> Any:
        """What the operation `what` of `peer.OPERATIONS` gives."""

    def next_of(self, target: int, most: int) -> tuple[Any, ...]:
        """Its next items, from one to `most`; none at its end."""


def stand_in(asker: Asker, kind: str, number: int, *, attributes: bool) -> Any:
    """What stands for the object `number` of a kind of `handles`; with `attributes` where those may be read."""
    if kind == "callable":
        return lambda *args, **kwargs: asker.call(number, args, kwargs)
    if kind == "generator":
        return _generate(asker, number)
    if kind == "iterator":
        return _ITERATORS[attributes](asker, number)
    return _class(frozenset(kind.split(" ")[1:]), attributes)(asker, number)


class Elsewhere:
    """An object that stays on the other side. Its own attributes bear names that no program gives."""

    __slots__ = ("elsewhere_asker", "elsewhere_number")

    def __init__(self, asker: Asker, number: int) -> None:
        self.elsewhere_asker, self.elsewhere_number = asker, number

    def __repr__(self) -> str:
        return _SHOWN


class _Operations(Elsewhere):
    """Operations that can be asked for; a class for objects of one kind takes the methods that theirs has."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.elsewhere_asker.call(self.elsewhere_number, args, kwargs)

    def __iter__(self) -> Any:
        return self.elsewhere_asker.ask_of(self.elsewhere_number, "iter")

    def __next__(self) -> Any:
        return _first(self.elsewhere_asker.next_of(self.elsewhere_number, 1))

    def __len__(self) -> Any:
        return self.elsewhere_asker.ask_of(self.elsewhere_number, "len")

    def __getitem__(self, key: Any) -> Any:
        return self.elsewhere_asker.ask_of(self.elsewhere_number, "item", key)

    def __bool__(self) -> Any:
        return self.elsewhere_asker.ask_of(self.elsewhere_number, "bool")

    def __getattr__(self, name: str) -> Any:
        return self.elsewhere_asker.ask_of(self.elsewhere_number, "get", name)

    def __str__(self) -> Any:
        return self.elsewhere_asker.ask_of(self.elsewhere_number, "str")

    def __repr__(self) -> Any:
        return self.elsewhere_asker.ask_of(self.elsewhere_number, "repr")


_SHOWING = ("__getattr__", "__str__", "__repr__")


@functools.cache
def _class(features: frozenset[str], attributes: bool) -> type[Elsewhere]:
    """Class of objects with these of `FEATURES`: no method that theirs has not, so that `callable` tells the truth."""
    methods = [FEATURES[feature] for feature in features] + list(_SHOWING if attributes else ())
    return type(
        Elsewhere.__name__, (Elsewhere,), {"__slots__": (), **{name: vars(_Operations)[name] for name in methods}}
    )


class _Iterator(Elsewhere):
    """An iterator of Python's own: iterating it is asking for its next items, several at a time after a while."""

    __slots__ = ("elsewhere_items", "elsewhere_taken")

    def __init__(self, asker: Asker, number: int) -> None:
        super().__init__(asker, number)
        self.elsewhere_items: deque[Any] = deque()
        self.elsewhere_taken = 0

    def __iter__(self) -> _Iterator:
        return self

    def __next__(self) -> Any:
        if not self.elsewhere_items:
            most = 1 if self.elsewhere_taken < _SINGLES else min(self.elsewhere_taken // 8, MAX_PIECE)
            self.elsewhere_items.extend(self.elsewhere_asker.next_of(self.elsewhere_number, most))
        if not self.elsewhere_items:
            raise StopIteration
        self.elsewhere_taken += 1
        return self.elsewhere_items.popleft()


class _OpenIterator(_Iterator):
    """Iterator likewise, with its attributes."""

    __slots__ = ()
    __getattr__, __str__, __repr__ = (vars(_Operations)[name] for name in _SHOWING)


_ITERATORS = (_Iterator, _OpenIterator)


def _generate(asker: Asker, number: int) -> Generator[Any, Any, Any]:
    """A generator that goes on as that of the other side does, which takes what is sent."""
    items, sent = _Iterator(asker, number), None
    while True:
        try:
            item = next(items) if sent is None else asker.ask_of(number, "send", sent)
        except StopIteration as end:
            return end.value
        sent = yield item


def _first(items: tuple[Any, ...]) -> Any:
    if not items:
        raise StopIteration
    return items[0]
