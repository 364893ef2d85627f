"""Values of Python's library that are data: how each is taken apart, and made again on the other side.

They are read by the methods of their own class, never by those of a subclass, and made as that class. A class is looked
up only where its module was imported: no value of it exists otherwise, and an import would cost every program.
"""

from __future__ import annotations

import importlib
import sys
from collections import ChainMap, Counter, OrderedDict, UserDict, UserList, UserString, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple, Self, cast

_Pairs = Iterable[tuple[Any, Any]]


class Form(NamedTuple):
    """How a class travels."""

    parts: Callable[[Any], Iterable[Any]]
    """What a value is made of, as values that travel themselves."""
    make: Callable[..., Any]
    """The value of such parts. Raises TypeError, ValueError or ArithmeticError where they are none of it."""


class Named(tuple[Any, ...]):  # noqa: SLOT001 - a tuple has room for none, and its fields need some
    """What arrives of a named tuple: equal to what the tuple equals, and its fields can be read."""

    _name: str
    _fields: tuple[str, ...]

    def __new__(cls, name: str, fields: tuple[str, ...], items: Iterable[Any]) -> Self:
        """Raises ValueError: a field is no name, stands twice, or has no item."""
        made = super().__new__(cls, items)
        if len(fields) != len(made) or len(set(fields)) != len(fields) or not all(map(_is_field, (name, *fields))):
            raise ValueError("a named tuple without names")
        made.__dict__.update(zip(fields, made, strict=True))
        made._name, made._fields = name, fields
        return made

    def __repr__(self) -> str:
        return f"{self._name}({', '.join(f'{name}={item!r}' for name, item in self._asdict().items())})"

    def _asdict(self) -> dict[str, Any]:
        return dict(zip(self._fields, self, strict=True))

    def _replace(self, **changes: Any) -> Named:
        items = {**self._asdict(), **changes}
        if len(items) != len(self):
            raise ValueError(f"Got unexpected field names: {list(changes)!r}")
        return Named(self._name, self._fields, items.values())


def names(value: tuple[Any, ...], kind: type) -> tuple[str, str] | None:
    """The name and the fields, with commas between them, of a named tuple; None where it is no such tuple."""
    if kind is Named:
        kept = cast(Named, value)
        return kept._name, ",".join(kept._fields)
    name, fields = kind.__name__, getattr(kind, "_fields", None)
    if type(fields) is not tuple or not fields or len(fields) != tuple.__len__(value):
        return None
    if not all(type(field) is str and _is_field(field) for field in (name, *fields)):
        return None
    return name, ",".join(fields)


def named(name: Any, fields: Any, *items: Any) -> Named:
    """The named tuple of `names`. Raises ValueError or TypeError: they are none."""
    return Named(_text(name), tuple(_text(fields).split(",")), items)


def form_of(kind: type) -> str | None:
    """The key in `FORMS` of a class that is in the library; None where it is not, or no value of it is data."""
    if kind is MappingProxyType:  # whose own name is that of no module
        return "types.MappingProxyType"
    key = f"{kind.__module__}.{kind.__name__}"
    if key not in FORMS:
        return None
    module = sys.modules.get(kind.__module__)
    return key if module is not None and getattr(module, kind.__name__, None) is kind else None


def _is_field(name: str) -> bool:
    return name.isidentifier() and not name.startswith("_")


def _class(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError("no text")
    return value


def _number(value: Any) -> int:
    if type(value) is not int:
        raise TypeError("no whole number")
    return value


def _flat(pairs: _Pairs) -> Iterator[Any]:
    for pair in pairs:
        yield from pair


def _paired(parts: tuple[Any, ...]) -> _Pairs:
    return zip(parts[::2], parts[1::2], strict=True)


def _counter(*parts: Any) -> Counter[Any]:
    made: Counter[Any] = Counter()
    dict.update(made, _paired(parts))
    return made


def _of(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"no {kind.__name__}")
    return value


def _moment(name: str, *parts: Any) -> Any:
    *numbers, zone, fold = parts
    return _class("datetime", name)(*map(_number, numbers), tzinfo=zone, fold=_number(fold))


FORMS: dict[str, Form] = {
    "collections.deque": Form(
        lambda value: (value.maxlen, *deque.__iter__(value)), lambda most, *items: deque(items, most)
    ),
    "collections.OrderedDict": Form(
        lambda value: _flat(OrderedDict.items(value)), lambda *parts: OrderedDict(_paired(parts))
    ),
    "collections.Counter": Form(lambda value: _flat(dict.items(value)), _counter),
    "collections.defaultdict": Form(
        lambda value: (value.default_factory, *_flat(dict.items(value))),
        lambda factory, *parts: defaultdict(factory, _paired(parts)),
    ),
    "collections.ChainMap": Form(lambda value: value.maps, lambda *maps: ChainMap(*(_of(dict, each) for each in maps))),
    "collections.UserList": Form(lambda value: (value.data,), lambda data: UserList(_of(list, data))),
    "collections.UserDict": Form(lambda value: (value.data,), lambda data: UserDict(_of(dict, data))),
    "collections.UserString": Form(lambda value: (value.data,), lambda data: UserString(_text(data))),
    "types.SimpleNamespace": Form(
        lambda value: (dict(vars(value)),), lambda fields: SimpleNamespace(**_of(dict, fields))
    ),
    "types.MappingProxyType": Form(lambda value: (dict(value),), lambda data: MappingProxyType(_of(dict, data))),
    "builtins.memoryview": Form(
        lambda value: (memoryview.tobytes(value),), lambda data: memoryview(_of(bytes, data))
    ),
    "array.array": Form(
        lambda value: (value.typecode, list(value)),
        lambda code, items: _class("array", "array")(_text(code), _of(list, items)),
    ),
    "fractions.Fraction": Form(
        lambda value: (value.numerator, value.denominator),
        lambda above, below: _class("fractions", "Fraction")(_number(above), _number(below)),
    ),
    "decimal.Decimal": Form(
        lambda value: (_class("decimal", "Decimal").__str__(value),),
        lambda digits: _class("decimal", "Decimal")(_text(digits)),
    ),
    "datetime.timedelta": Form(
        lambda value: (value.days, value.seconds, value.microseconds),
        lambda *numbers: _class("datetime", "timedelta")(*map(_number, numbers)),
    ),
    "datetime.date": Form(
        lambda value: (value.year, value.month, value.day),
        lambda *numbers: _class("datetime", "date")(*map(_number, numbers)),
    ),
    "datetime.timezone": Form(
        lambda value: (value.utcoffset(None),),
        lambda offset: _class("datetime", "timezone")(_of(_class("datetime", "timedelta"), offset)),
    ),
    "datetime.time": Form(
        lambda value: (value.hour, value.minute, value.second, value.microsecond, value.tzinfo, value.fold),
        lambda *parts: _moment("time", *parts),
    ),
    "datetime.datetime": Form(
        lambda value: (value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond,
                       value.tzinfo, value.fold),
        lambda *parts: _moment("datetime", *parts),
    ),
}  # fmt: skip


def is_data(value: Any, kind: type) -> bool:
    """Whether all that a value of a form's class is made of travels: not a time zone by rules, for instance."""
    if kind.__module__ != "datetime" or kind.__name__ not in {"time", "datetime"}:
        return True
    return value.tzinfo is None or type(value.tzinfo) is _class("datetime", "timezone")
