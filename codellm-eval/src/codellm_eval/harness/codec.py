"""Python values as JSON and back, by exact builtin types, so that an answer can be compared but never acts.

A message is `[nodes, value]`. Nodes are the containers, children first, so that a list met twice arrives as one and no
message can loop. A value is null, a bool, a string, a small integer, or one of

    ["i", hex]  ["f", bits]  ["c", bits, bits]  ["b", hex]  ["."] (...)  ["!"] (NotImplemented)  ["t", name] (a type)
    ["n", k]  the k-th node of this message
    ["a", k]  the k-th node of the request that this message answers: the receiver's own object
    ["o", kind, id]  an object of the sender that cannot travel; it stays behind under this number
    ["h", id]  an object of the receiver that comes home
    ["g", module, name]  something of Python's library, from the trusted side only: `open` or `eval` as an argument must
                         not let the program open or evaluate anything on that side

Subclasses travel as their builtin base, read by the base's own methods, so nothing that a class overrides is called.
Floats travel as their eight bytes: nan, -0.0 and the last digit survive.
"""

from __future__ import annotations

import importlib
import struct
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .channel import Refused

MAX_DEPTH = 100
"""Of nesting: comparing or freeing much deeper values overflows the C stack of the receiver."""
MAX_ITEMS = 10_000_000
"""Of a value when what it shares is counted each time that a walk over it would meet it."""
_SMALL = 1 << 53
_TYPES: dict[str, type[Any]] = {}
for _type in (
    bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range, slice, object, type,
    type(None), type(...), type(NotImplemented),
):  # fmt: skip
    _TYPES[_type.__name__] = _type
_VIEWS: dict[str, Callable[[dict[Any, Any]], Any]] = {"keys": dict.keys, "values": dict.values, "items": dict.items}
_VIEW_KINDS = {type(view({})): name for name, view in _VIEWS.items()}
_ITERABLES: tuple[Iterable[Any], ...] = ([], (), "", b"", {}, {}.values(), {}.items(), set(), range(0), range(1 << 70))
_ITERATORS = {
    *(type(iter(iterable)) for iterable in _ITERABLES), type(reversed([])), type(iter(int, 0)),
    types.GeneratorType, enumerate, filter, map, reversed, zip,
}  # fmt: skip
_mro = type.__dict__["__mro__"].__get__
_name = type.__dict__["__name__"].__get__


class Handles:
    """Objects that stay on their side of the channel, by number, in both directions.

    `proxy(kind, number)` makes what stands here for an object of the other side. Only the `trusted` side may name
    functions of the library, which then run on the other one.
    """

    def __init__(self, proxy: Callable[[str, int], Any], *, trusted: bool) -> None:
        self.trusted = trusted
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
        if type(number) is not int or kind not in {"callable", "iterator", "object"}:
            raise Refused("an object of no known kind")
        if number not in self._theirs:
            proxy = self._theirs[number] = self._proxy(kind, number)
            self._homes[id(proxy)] = number
        return self._theirs[number]


class Encoder:
    """One message in the making. `known` maps the ids of objects from the request to their nodes there."""

    def __init__(self, handles: Handles, known: dict[int, int] | None = None) -> None:
        self.nodes: list[list[Any]] = []
        self.containers: dict[int, Any] = {}
        """Mutable containers by their node, for the other side's changes to them."""
        self._handles = handles
        self._known = known or {}
        self._seen: dict[int, Any] = {}
        self._alive: list[Any] = []

    def encode(self, value: Any, depth: int = 0) -> Any:
        """The value's JSON; its containers are added to `nodes`.

        Raises:
            Refused: it is nested too deeply.
        """
        kind = type(value)
        if value is None or kind is bool or kind is str:
            return value
        if kind is int:
            return value if -_SMALL < value < _SMALL else ["i", format(value, "x")]
        if kind is float:
            return ["f", struct.pack(">d", value).hex()]
        if id(value) in self._known:
            return ["a", self._known[id(value)]]
        if id(value) in self._seen:  # an unfinished one is met again inside itself: a loop, which cannot travel
            return self._seen[id(value)] or self._stay("object", value)
        return self._compound(value, kind, depth)

    def contents(self, value: Any) -> Any:
        """A fresh node with what a mutable container of the request holds now."""
        return self._node(value, type(value), 0)

    def _compound(self, value: Any, kind: type, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise Refused(f"a value nested more than {MAX_DEPTH} deep")
        home = self._handles.home(value)
        if home is not None:
            return ["h", home]
        self._alive.append(value)
        self._seen[id(value)] = None
        made = self._seen[id(value)] = self._travel(value, kind, depth)
        return made

    def _travel(self, value: Any, kind: type, depth: int) -> Any:
        for base in _mro(kind):
            if base in _SCALARS:
                return _SCALARS[base](self, value)
            if base in _CONTAINERS or base in _VIEW_KINDS:
                return self._node(value, base, depth)
        if value is ...:
            return ["."]
        if value is NotImplemented:
            return ["!"]
        if isinstance(value, type) and _TYPES.get(_name(value)) is value:
            return ["t", _name(value)]
        if self._handles.trusted and (named := _by_name(value)) is not None:
            return named
        if kind in _ITERATORS:
            return self._stay("iterator", value)
        return self._stay("callable" if callable(value) else "object", value)

    def _stay(self, kind: str, value: Any) -> Any:
        return ["o", kind, self._handles.lend(value)]

    def _node(self, value: Any, base: type, depth: int) -> Any:
        if base in _VIEW_KINDS:
            node = [_VIEW_KINDS[base], *self._items(list(value), depth)]
        else:
            node = [base.__name__, *_CONTAINERS[base](self, value, depth)]
        self.nodes.append(node)
        number = len(self.nodes) - 1
        if base in MUTABLE:
            self.containers[number] = value
        return ["n", number]

    def _items(self, items: Any, depth: int) -> list[Any]:
        return [self.encode(item, depth + 1) for item in items]


def _pairs(encoder: Encoder, value: dict[Any, Any], depth: int) -> list[Any]:
    return [encoder.encode(part, depth + 1) for pair in dict.items(value) for part in pair]


_SCALARS: dict[type, Callable[[Encoder, Any], Any]] = {
    int: lambda encoder, value: encoder.encode(int.__int__(value)),
    float: lambda encoder, value: encoder.encode(float.__float__(value)),
    str: lambda encoder, value: str.__str__(value),
    bytes: lambda encoder, value: ["b", bytes.hex(value)],
    complex: lambda encoder, value: ["c", *(struct.pack(">d", part).hex() for part in _parts(value))],
}
_CONTAINERS: dict[type, Callable[[Encoder, Any, int], list[Any]]] = {
    list: lambda encoder, value, depth: encoder._items(list.__iter__(value), depth),
    tuple: lambda encoder, value, depth: encoder._items(tuple.__iter__(value), depth),
    set: lambda encoder, value, depth: encoder._items(set.__iter__(value), depth),
    frozenset: lambda encoder, value, depth: encoder._items(frozenset.__iter__(value), depth),
    dict: _pairs,
    bytearray: lambda encoder, value, depth: [bytes(bytearray.__iter__(value)).hex()],
    range: lambda encoder, value, depth: encoder._items((value.start, value.stop, value.step), depth),
    slice: lambda encoder, value, depth: encoder._items((value.start, value.stop, value.step), depth),
}
MUTABLE = {list, dict, set, bytearray}


def _parts(value: complex) -> tuple[float, float]:
    number = complex.__complex__(value)
    return number.real, number.imag


class Decoder:
    """One message being read. `arguments` are the sender's nodes of the request that it answers."""

    def __init__(self, handles: Handles, nodes: Any, arguments: Mapping[int, Any] | None = None) -> None:
        self.made: list[Any] = []
        self._handles = handles
        self._arguments = arguments or {}
        self._sizes: list[tuple[int, int]] = []
        if type(nodes) is not list:
            raise Refused("a message without nodes")
        for node in nodes:
            self._add(node)

    def decode(self, value: Any) -> Any:
        """The value, of exact builtin types all through.

        Raises:
            Refused: it is none that an encoder makes.
        """
        kind = type(value)
        if value is None or kind is bool or kind is int or kind is str:
            return value
        if kind is not list or not value or type(value[0]) is not str or value[0] not in _READERS:
            raise Refused("a value of no known kind")
        try:
            return _READERS[value[0]](self, *value[1:])
        except (TypeError, ValueError, IndexError, KeyError, OverflowError, struct.error) as error:
            raise Refused("a malformed value") from error

    def _add(self, node: Any) -> None:
        if type(node) is not list or not node or type(node[0]) is not str or node[0] not in _MAKERS:
            raise Refused("a container of no known kind")
        depth, items = 1, 1
        for part in node[1:]:
            if type(part) is list and len(part) == 2 and part[0] == "n" and type(part[1]) is int:
                below, inner = self._sizes[part[1]] if 0 <= part[1] < len(self._sizes) else (0, 0)
                depth, items = max(depth, below + 1), items + inner
            items += 1
        if depth > MAX_DEPTH + 1 or items > MAX_ITEMS:
            raise Refused(f"a value nested more than {MAX_DEPTH} deep, or of more than {MAX_ITEMS} items")
        try:
            if node[0] == "bytearray":
                made: Any = bytearray(bytes.fromhex(node[1]))
            else:
                made = _MAKERS[node[0]]([self.decode(part) for part in node[1:]])
        except (TypeError, ValueError, IndexError) as error:  # an unhashable key for instance
            raise Refused("a malformed container") from error
        self._sizes.append((depth, items))
        self.made.append(made)

    def _node(self, number: Any) -> Any:
        if type(number) is not int or not 0 <= number < len(self.made):
            raise Refused("a container that is not there")
        return self.made[number]

    def _argument(self, number: Any) -> Any:
        return self._arguments[number]

    def _library(self, module: str, name: str) -> Any:
        if self._handles.trusted:
            raise Refused("a function of the library by its name")
        return _resolve(module, name)


def _pair_up(parts: list[Any]) -> dict[Any, Any]:
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _by_name(value: Any) -> list[Any] | None:
    """A function, method or class of the library; what a test defined or bound to an object has no name elsewhere."""
    module = getattr(getattr(value, "__objclass__", value), "__module__", None)
    name = getattr(value, "__qualname__", None)
    if type(module) is not str or type(name) is not str or module not in sys.stdlib_module_names | {"builtins"}:
        return None
    try:
        return ["g", module, name] if _resolve(module, name) is value else None
    except (AttributeError, ImportError):
        return None


def _resolve(module: str, name: str) -> Any:
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _double(bits: str) -> float:
    return float(struct.unpack(">d", bytes.fromhex(bits))[0])


_READERS: dict[str, Callable[..., Any]] = {
    "i": lambda decoder, digits: int(digits, 16),
    "f": lambda decoder, bits: _double(bits),
    "c": lambda decoder, real, imag: complex(_double(real), _double(imag)),
    "b": lambda decoder, digits: bytes.fromhex(digits),
    ".": lambda decoder: ...,
    "!": lambda decoder: NotImplemented,
    "t": lambda decoder, name: _TYPES[name],
    "n": Decoder._node,
    "a": Decoder._argument,
    "o": lambda decoder, kind, number: decoder._handles.borrow(kind, number),
    "h": lambda decoder, number: decoder._handles.own(number),
    "g": lambda decoder, module, name: decoder._library(module, name),
}
_MAKERS: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": _pair_up,
    "bytearray": bytearray,
    "range": lambda parts: range(*parts),
    "slice": lambda parts: slice(*parts),
    "keys": lambda parts: dict.fromkeys(parts).keys(),
    "values": lambda parts: dict(enumerate(parts)).values(),
    "items": lambda parts: dict(parts).items(),
}
