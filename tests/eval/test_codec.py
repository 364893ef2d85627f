"""Values through the codec: the same on the other side, of exact builtin types, whatever a message holds."""

import datetime as dt
import json
import math
import struct
from collections import Counter, OrderedDict, defaultdict, deque
from fractions import Fraction
from types import FunctionType
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codellm_eval.judge.harness.channel import Refused
from codellm_eval.judge.harness.codec import MAX_DEPTH, Decoder, Encoder
from codellm_eval.judge.harness.handles import Handles
from codellm_eval.judge.harness.library import FORMS, Named, form_of


class Pair(NamedTuple):
    """One whose field hides a method of the tuple."""

    count: Any
    y: Any


ATOMS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers() | st.binary()
    | st.text(st.characters(codec=None)) | st.just(...) | st.just(NotImplemented)
    | st.sampled_from([int, str, list, type, type(None)]) | st.integers().map(lambda n: n << 200)
    | st.fractions() | st.decimals() | st.dates() | st.timedeltas()
    | st.datetimes(timezones=st.just(dt.UTC) | st.none()) | st.times()
)  # fmt: skip
KEYS = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.tuples(st.integers(), st.text())
VALUES = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(KEYS, inner) | st.sets(KEYS)
        | st.frozensets(KEYS) | st.binary().map(bytearray)
        | st.integers(-9, 9).map(range) | st.dictionaries(KEYS, inner).map(dict.values)
        | st.builds(deque, st.lists(inner), st.none() | st.integers(0, 3))
        | st.dictionaries(KEYS, inner).map(OrderedDict)
        | st.dictionaries(KEYS, inner).map(lambda pairs: defaultdict(int, pairs)) | st.lists(KEYS).map(Counter)
        | st.builds(Pair, inner, inner)
    ),
    max_leaves=20,
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)
KINDS = st.sampled_from([*"ifcb.!tnaohg", "list", "tuple", "dict", "set", "frozenset", "bytearray", "range",
                         "slice", "keys", "values", "items", "callable", "iterator", "object", "0", "ff",
                         "int", "m", "u", "named", "P", "x,y", "x", "object sized iterable", "generator", "1/2", "NaN",
                         "7ff8000000000000", *FORMS])  # fmt: skip
NEAR = st.recursive(
    KINDS | st.integers(-2, 5) | st.none(),
    lambda inner: st.tuples(KINDS, inner).map(list) | st.tuples(KINDS, inner, inner).map(list) | st.lists(inner),
    max_leaves=12,
)
EXACT = {type(None), bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range, slice,
         type(...), type(NotImplemented), type, type({}.keys()), type({}.values()), type({}.items()),
         Named}  # fmt: skip
"""Beside the classes of the library that `FORMS` names."""


class Stand:
    """What stands for an object of the other side."""


def handles(*, trusted=False):
    return Handles(lambda kind, number: Stand(), trusted=trusted)


def sent(value):
    """The value as the other side gets it, through JSON."""
    encoder = Encoder(handles())
    made = encoder.encode(value)
    nodes, root = json.loads(json.dumps([encoder.nodes, made]))
    return Decoder(handles(trusted=True), nodes).decode(root)


def shown(value):
    """A value with its types and the bits of its floats; equal only for what nobody can tell apart."""
    if type(value) is float:
        return ("float", struct.pack(">d", value))
    if type(value) is complex:
        return ("complex", shown(value.real), shown(value.imag))
    if type(value) in {set, frozenset}:
        return (type(value), frozenset(map(shown, value)))
    if isinstance(value, dict):
        factory = getattr(value, "default_factory", None)
        return (type(value), factory, tuple((shown(key), shown(item)) for key, item in value.items()))
    if hasattr(value, "_fields"):
        return ("named", value._fields, tuple(map(shown, value)))
    if type(value) is deque:
        return (deque, value.maxlen, tuple(map(shown, value)))
    if type(value) in {list, tuple, type({}.values())}:
        return (type(value), tuple(map(shown, value)))
    return (type(value), value if type(value) in {bytes, str, type} else repr(value))


def types_in(value):
    yield type(value)
    if type(value) in {list, tuple, set, frozenset, deque, Named, type({}.values())}:
        for item in value:
            yield from types_in(item)
    if isinstance(value, dict):
        for pair in value.items():
            yield from types_in(pair)


@given(VALUES)
def test_values_arrive_as_they_were(value):
    assert shown(sent(value)) == shown(value)


@given(VALUES, st.sampled_from([int, float, str, bytes, list, tuple, dict, set, frozenset]), st.data())
def test_subclasses_arrive_as_their_bases_and_are_never_asked(value, base, data):
    def lie(self, *args):
        raise AssertionError("asked")

    names = ("__eq__", "__iter__", "__len__", "__getitem__", "__repr__", "__str__", "__int__", "__float__", "__bool__",
             "__reduce__", "items", "keys", "__getattribute__", "__contains__", "__index__", "__bytes__")  # fmt: skip
    plain = data.draw(VALUES.filter(lambda each: type(each) is base) | st.just(base()))
    hostile = type("Hostile", (base,), {**dict.fromkeys(names, lie), "__hash__": lambda self: 0})(plain)
    assert shown(sent([hostile, value])) == shown([plain, value])


def test_a_value_met_twice_arrives_once():
    inner = [1]
    first, second = sent([inner, {"a": inner}])
    assert first is second["a"]


@pytest.mark.parametrize("value", [object(), lambda: 0, Stand(), iter([]), len, ValueError(), Stand, print, [].append])
def test_what_cannot_travel_stays_and_something_stands_for_it(value):
    arrived = sent([value, value])
    assert type(arrived[0]) is Stand
    assert arrived[0] is arrived[1]
    assert arrived[0] != value


def test_a_loop_and_a_nest_have_an_end():
    loop = [1]
    loop.append({"me": loop})
    assert type(sent(loop)[1]["me"]) is Stand
    nest = []
    for _ in range(MAX_DEPTH + 2):
        nest = [nest]
    with pytest.raises(Refused, match="nested"):
        sent(nest)
    nodes = [["list"], *(["list", ["n", number]] for number in range(MAX_DEPTH + 5))]
    with pytest.raises(Refused, match="nested"):
        Decoder(handles(), nodes)
    with pytest.raises(Refused, match="items"):
        Decoder(handles(), [["list", 0], *(["list", ["n", number], ["n", number]] for number in range(40))])


@settings(max_examples=500)
@given(JSON | NEAR, JSON | NEAR)
def test_any_message_is_a_plain_value_or_refused(nodes, value):
    try:
        decoded = Decoder(handles(trusted=True), nodes).decode(value)
    except Refused:
        return
    assert {kind for kind in types_in(decoded) if not form_of(kind)} <= EXACT | {Stand}


@settings(max_examples=500)
@given(st.lists(NEAR), NEAR)
def test_a_message_nearly_right_is_a_plain_value_or_refused(nodes, value):
    try:
        decoded = Decoder(handles(trusted=True), [["list", 1], ["dict", "a", ["n", 0]], *nodes]).decode(value)
    except Refused:
        return
    assert {kind for kind in types_in(decoded) if not form_of(kind)} <= EXACT | {Stand}


def test_only_the_trusted_side_names_the_library():
    encoder = Encoder(handles(trusted=True))
    for value in (len, math.gcd, str.upper, eval, open, exec):
        made = encoder.encode(value)
        assert made[0] == "g"
        assert Decoder(handles(), []).decode(made) is value
        with pytest.raises(Refused):
            Decoder(handles(trusted=True), []).decode(made)
    assert encoder.encode(handles)[:2] == ["o", "callable"]
    assert isinstance(handles, FunctionType)


def round_trip(value):
    """What the sender gets back of what the receiver was given and sent home, in another message."""
    ours, theirs = handles(trusted=True), handles()
    encoder = Encoder(ours)
    there = Decoder(theirs, encoder.nodes).decode(made) if (made := encoder.encode(value)) else None
    back = Encoder(theirs)
    home = back.encode(there)
    return Decoder(ours, *json.loads(json.dumps([back.nodes]))).decode(home)


def test_a_nan_keeps_its_identity_on_its_way_there_and_back_and_its_bits():
    first, second = struct.unpack(">dd", bytes.fromhex("7ff80000000000007ff800000000beef"))
    theirs = math.nan
    a, b, (c, d) = round_trip([first, second, (first, theirs)])
    assert a is first
    assert b is second
    assert c is first
    assert d is theirs
    arrived = sent([first, first, second])
    assert arrived[0] is arrived[1] is not first
    assert struct.pack(">d", arrived[2]).hex() == "7ff800000000beef"


@pytest.mark.parametrize(
    "node",
    [["named", "P", "x", 1, 2], ["named", "P", "x,x", 1, 2], ["named", "P", "_x", 1], ["named", "P", "", 1],
     ["named", "P"], ["named", "a b", "x", 1], ["named", 1, "x", 1], ["fractions.Fraction", 1, 0],
     ["fractions.Fraction", "1/2", 1],
     ["decimal.Decimal", "x"], ["decimal.Decimal", 1], ["datetime.date", 0, 1, 1], ["datetime.date", "2020", 1, 1],
     ["datetime.datetime", 2020, 1, 1, 0, 0, 0, 0, 7, 0], ["datetime.timezone", 3], ["collections.deque", -1],
     ["collections.Counter", 1], ["collections.defaultdict", 3], ["collections.defaultdict"], ["array.array", "q", 3],
     ["collections.UserList", 3], ["types.SimpleNamespace", 3], ["builtins.memoryview", "a"], ["builtins.open", "/"],
     ["collections.OrderedDict", 1, 2, 3], ["types.MappingProxyType", None], ["collections.ChainMap", 1]],
)  # fmt: skip
def test_parts_that_make_no_value_of_their_class_are_refused(node):
    with pytest.raises(Refused):
        Decoder(handles(trusted=True), [node])


@pytest.mark.parametrize(
    "kind", ["", "objects", "object bad", "object  sized", "object " * 99, "callable sized", None, 3]
)
def test_an_object_of_no_known_kind_is_refused(kind):
    with pytest.raises(Refused):
        Decoder(handles(trusted=True), []).decode(["o", kind, 0])


def test_a_number_that_is_no_nan_is_refused_as_one():
    for bits in (struct.pack(">d", 1.5).hex(), "", "zz", 3):
        with pytest.raises(Refused):
            Decoder(handles(trusted=True), []).decode(["u", 0, bits])


def test_subclasses_of_the_librarys_classes_arrive_as_these():
    mine = [type("Mine", (base,), {"__eq__": lambda self, other: True, "__hash__": None})(*args)
            for base, args in ((deque, ([1],)), (Counter, ("a",)), (OrderedDict, ()), (Fraction, (1, 2)))]  # fmt: skip
    assert [type(each) for each in sent(mine)] == [deque, Counter, OrderedDict, Fraction]
