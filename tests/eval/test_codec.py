"""Values through the codec: the same on the other side, of exact builtin types, whatever a message holds."""

import json
import math
import struct
from types import FunctionType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codellm_eval.harness.channel import Refused
from codellm_eval.harness.codec import MAX_DEPTH, Decoder, Encoder, Handles

ATOMS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers() | st.binary()
    | st.text(st.characters(codec=None)) | st.just(...) | st.just(NotImplemented)
    | st.sampled_from([int, str, list, type, type(None)]) | st.integers().map(lambda n: n << 200)
)  # fmt: skip
KEYS = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.tuples(st.integers(), st.text())
VALUES = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(KEYS, inner) | st.sets(KEYS)
        | st.frozensets(KEYS) | st.binary().map(bytearray)
        | st.integers(-9, 9).map(range) | st.dictionaries(KEYS, inner).map(dict.values)
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
                         "int"])  # fmt: skip
NEAR = st.recursive(
    KINDS | st.integers(-2, 5) | st.none(),
    lambda inner: st.tuples(KINDS, inner).map(list) | st.tuples(KINDS, inner, inner).map(list) | st.lists(inner),
    max_leaves=12,
)
EXACT = {type(None), bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range, slice,
         type(...), type(NotImplemented), type, type({}.keys()), type({}.values()), type({}.items())}  # fmt: skip


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
    if type(value) is dict:
        return (dict, tuple((shown(key), shown(item)) for key, item in value.items()))
    if type(value) in {list, tuple, type({}.values())}:
        return (type(value), tuple(map(shown, value)))
    return (type(value), repr(value) if type(value) in {range, bytearray} else value)


def types_in(value):
    yield type(value)
    if type(value) in {list, tuple, set, frozenset, type({}.values())}:
        for item in value:
            yield from types_in(item)
    if type(value) is dict:
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
    assert set(types_in(decoded)) <= EXACT | {Stand}


@settings(max_examples=500)
@given(st.lists(NEAR), NEAR)
def test_a_message_nearly_right_is_a_plain_value_or_refused(nodes, value):
    try:
        decoded = Decoder(handles(trusted=True), [["list", 1], ["dict", "a", ["n", 0]], *nodes]).decode(value)
    except Refused:
        return
    assert set(types_in(decoded)) <= EXACT | {Stand}


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
