"""Python values as JSON and back, by exact builtin types, so that an answer can be compared but never acts.

A message is `[nodes, value]`. Nodes are the containers, children first, so that a list met twice arrives as one and no
message can loop. A value is null, a bool, a string, a small integer, or one of

    ["i", hex]  ["f", bits]  ["c", bits, bits]  ["b", hex]  ["."] (...)  ["!"] (NotImplemented)  ["t", name] (a type)
    ["m"]  math.nan  ["u", id, bits]  another nan, under its number: containers that hold the very same nan are equal
    ["n", k]  the k-th node of this message
    ["a", k]  the k-th node of the request that this message answers: the receiver's own object
    ["o", kind, id]  an object of the sender that cannot travel; it stays behind under this number
    ["h", id]  an object of the receiver that comes home
    ["g", module, name]  something of Python's library, from the trusted side only: `open` or `eval` as an argument must
                         not let the program open or evaluate anything on that side

Subclasses travel as their base, a builtin or one of `library`, read by the base's own methods, so nothing that a class
overrides is called; a named tuple travels with the names of its fields. Floats travel as their eight bytes: nan, -0.0
and the last digit survive.
"""

from __future__ import annotations

import importlib
import math
import struct
import sys
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any

from .channel import Refused
from .handles import WHOLE_KINDS, Handles, kind_of
from .library import FORMS, form_of, is_data, named, names

MAX_DEPTH = 100
"""Of nesting: comparing or freeing much deeper values overflows the C stack of the receiver."""
MAX_ITEMS = 10_000_000
"""Of a value when what it shares is counted each time that a walk over it would meet it."""
_SMALL = 1 << 53
_NAN = math.nan
"""That of the library, which program and test have in common."""
_TYPES: dict[str, type[Any]] = {}
for _type in (
    bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range, slice, object, type,
    type(None), type(...), type(NotImplemented),
):  # fmt: skip
    _TYPES[_type.__name__] = _type
_VIEWS: dict[str, Callable[[dict[Any, Any]], Any]] = {"keys": dict.keys, "values": dict.values, "items": dict.items}
_VIEW_KINDS = {type(view({})): name for name, view in _VIEWS.items()}
_FUNCTIONS = {types.FunctionType, types.BuiltinFunctionType, types.MethodType}
_ITERATING = {"builtins", "itertools", "collections", "_collections", "functools"}
"""Modules whose iterators iterate themselves, and are nothing else."""
_mro = type.__dict__["__mro__"].__get__
_name = type.__dict__["__name__"].__get__


class Encoder:
    """A message in the making. `known` maps the ids of objects from the request to their nodes there."""

    def __init__(self, handles: Handles, known: dict[int, int] | None = None) -> None:
        self.nodes: list[list[Any]] = []
        self.sent: dict[int, Any] = {}
        """What each node was made of, for the other side to change it, or to send it back."""
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
            return self._float(value)
        if id(value) in self._known:
            return ["a", self._known[id(value)]]
        if id(value) in self._seen:  # an unfinished one is met again inside itself: a loop, which cannot travel
            return self._seen[id(value)] or ["o", "object", self._handles.lend(value)]
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
            if form_of(base):
                if is_data(value, base):
                    return self._node(value, base, depth)
                break
        return self._single(value, kind)

    def _single(self, value: Any, kind: type) -> Any:
        """What both sides have, by its name; anything else stays."""
        if value is ...:
            return ["."]
        if value is NotImplemented:
            return ["!"]
        if isinstance(value, type) and _TYPES.get(_name(value)) is value:
            return ["t", _name(value)]
        if self._handles.trusted and (named := _by_name(value)) is not None:
            return named
        told = _kind(kind)
        if told not in WHOLE_KINDS:
            self._handles.kept.add(_name(kind))
        return ["o", told, self._handles.lend(value)]

    def _float(self, value: float) -> list[Any]:
        bits = struct.pack(">d", value).hex()
        if not math.isnan(value):
            return ["f", bits]
        home = self._handles.home(value)
        if home is not None:
            return ["h", home]
        return ["m"] if value is _NAN else ["u", self._handles.lend(value), bits]

    def _node(self, value: Any, base: type, depth: int) -> Any:
        self.nodes.append(self._taken_apart(value, base, depth))
        number = len(self.nodes) - 1
        self.sent[number] = value
        return ["n", number]

    def _taken_apart(self, value: Any, base: type, depth: int) -> list[Any]:
        if base in _VIEW_KINDS:
            return [_VIEW_KINDS[base], *self._items(list(value), depth)]
        if base is tuple and type(value) is not tuple and (told := names(value, type(value))) is not None:
            return ["named", *told, *self._items(tuple.__iter__(value), depth)]
        if base in _CONTAINERS:
            return [base.__name__, *_CONTAINERS[base](self, value, depth)]
        form = str(form_of(base))
        return [form, *self._items(FORMS[form].parts(value), depth)]

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
MUTABLE = {list, dict, set, bytearray, deque, OrderedDict, Counter, defaultdict}


def _parts(value: complex) -> tuple[float, float]:
    number = complex.__complex__(value)
    return number.real, number.imag


class Decoder:
    """A message being read. `arguments` are the sender's nodes of the request that it answers."""

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
        if type(node) is not list or not node or type(node[0]) is not str or node[0] not in _KNOWN:
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
            elif node[0] in FORMS:
                made = FORMS[node[0]].make(*(self.decode(part) for part in node[1:]))
            else:
                made = _MAKERS[node[0]]([self.decode(part) for part in node[1:]])
        except (TypeError, ValueError, IndexError, ArithmeticError) as error:  # an unhashable key for instance
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


def _kind(kind: type) -> str:
    """How an object that stays is told of: `Handles` says which kinds there are."""
    mro = _mro(kind)
    if kind in _FUNCTIONS:
        return "callable"
    if kind is types.GeneratorType:
        return "generator"
    told = kind_of(mro)
    return "iterator" if " iterator" in told and kind.__module__ in _ITERATING else told


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
    "m": lambda decoder: _NAN,
    "u": lambda decoder, number, bits: decoder._handles.borrow_nan(number, bits),
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
    "named": lambda parts: named(*parts),
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
_KNOWN = {*_MAKERS, *FORMS}
