"""Patterns of rows, expanded over the backends of a registry that no plugin filled."""

import pytest

from codellm.backend import Availability, Backend
from codellm.errors import InvalidValueError
from codellm.plugins.registry import Registry
from codellm.scheme import Scheme
from codellm_eval.bench.ask.pattern import is_pattern, matching_rows
from support.bench_toy import bench, rows


def backend(name, *schemes, formats=("safetensors",), reason=""):
    return type(
        "Some", (Backend,),
        {
            "name": name, "formats": frozenset(formats), "load": None,
            "availability": lambda self: Availability(not reason, reason, "buy some"),
            "schemes": lambda self: tuple(Scheme(name=each, bits=8, applies="load") for each in schemes),
        },
    )()  # fmt: skip


BACKENDS = (
    backend("one", "q8_0", "q4_0", "q4_k_m"),
    backend("other", "q8_0", "int8"),
    backend("absent", "q8_0", reason="no such hardware"),
    backend("foreign", "q8_0", formats=("tape",)),
)
REGISTRY = Registry({each.name: each for each in BACKENDS}, {}, {}, {})


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("one:q4*", ["one:q4_0", "one:q4_k_m"]),
        ("*:q8_0", ["one:q8_0", "other:q8_0"]),
        ("o*", ["one", "other"]),
        ("o?[e]:*_0", ["one:q8_0", "one:q4_0"]),
        ("*:int?:threads=2,batch-size=3", ["other:int8:threads=2,batch_size=3"]),
        ("*::threads=2", ["one::threads=2", "other::threads=2"]),
        ("x*:*", []),
    ],
)
def test_a_pattern_matches(pattern, expected):
    assert [str(row) for row in matching_rows(REGISTRY, "safetensors", pattern).rows] == expected


def test_what_cannot_run_here_is_named_and_left_out():
    found = matching_rows(REGISTRY, "safetensors", "*:q8_0")
    assert found.left_out == ("absent: no such hardware; buy some", "foreign: takes tape, not safetensors")
    assert matching_rows(REGISTRY, "safetensors", "o*:*").left_out == ()


def test_only_backend_and_scheme_have_patterns():
    assert is_pattern("*:a")
    assert is_pattern("a:[bc]")
    assert not is_pattern("llama-cpp:q4_0:path=*")


def test_options_of_a_pattern_are_those_of_a_row():
    with pytest.raises(InvalidValueError):
        matching_rows(REGISTRY, "safetensors", "*:*:threads=no")


def test_patterns_on_the_command_line(workdir):
    found = rows(workdir, "--no-quality", "--repeats", "1", "--row", "toy:int4", "--row", "to*:int*")
    assert [row["row"] for row in found] == ["toy:int4", "toy:int8"]
    refused = bench(workdir, "--row", "toy:q9*", code=2).stderr
    assert "'toy:q9*' matches nothing" in refused
    assert "toy:int8, toy:int4" in refused
