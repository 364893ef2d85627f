"""`-o key=value`: what is read of it, and how what cannot be is refused."""

import json

import pytest

from codellm.errors import InvalidValueError, UnknownNameError
from codellm.options import amount, choice, count, read, switch
from support.plugin_folder import codellm, install_plugin

KNOWN = {
    "mode": choice("slow", "fast"),
    "cache": switch("on", "off", default=True),
    "chunk": count(None, "tokens", 1, 64),
    "threshold": amount(6.0, "a size"),
}


def test_what_is_not_written_has_its_default():
    assert read({}, KNOWN) == {"mode": "slow", "cache": True, "chunk": None, "threshold": 6.0}


def test_what_is_written_is_read():
    written = {"mode": "fast", "cache": "off", "chunk": "64", "threshold": "0.5"}
    assert read(written, KNOWN) == {"mode": "fast", "cache": False, "chunk": 64, "threshold": 0.5}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mode", "Fast", "option mode is one of slow, fast, not 'Fast'"),
        ("cache", "true", "option cache is one of on, off, not 'true'"),
        ("chunk", "65", "option chunk is a number of tokens from 1 to 64, not '65'"),
        ("chunk", "-1", "not '-1'"),
        ("chunk", "\u00b2", "not"),
        ("threshold", "0", "option threshold is a size above 0, not '0'"),
        ("threshold", "nan", "not 'nan'"),
        ("threshold", "inf", "not 'inf'"),
        ("threshold", "six", "not 'six'"),
    ],
)
def test_a_value_that_is_none_is_refused(name, value, message):
    with pytest.raises(InvalidValueError, match=message):
        read({name: value}, KNOWN)


def test_an_unknown_option_is_refused_with_the_nearest():
    with pytest.raises(UnknownNameError, match="unknown option 'chunks'; did you mean 'chunk'"):
        read({"chunks": "1"}, KNOWN)


def test_an_option_of_some_schemes_is_known_to_those_alone():
    known = {**KNOWN, "scale": amount(1.0, "a scale", schemes=("int4", "int3"))}
    assert read({"scale": "2"}, known, "int4")["scale"] == 2.0
    for scheme in (None, "int8"):
        assert "scale" not in read({}, known, scheme)
        with pytest.raises(UnknownNameError, match="unknown option 'scale'"):
            read({"scale": "2"}, known, scheme)


GUEST = """
from codellm import Backend, hookimpl
from codellm.options import choice, count

class Guest(Backend):
    name, formats = "guest", frozenset({"guest"})
    options = {
        "depth": count(None, "layers", 1, 9, otherwise="all", help="How many layers are computed."),
        "mode": choice("slow", "fast", schemes=("g4", "g2")),
    }
    def load(self, spec, source): raise NotImplementedError

class Plain(Backend):
    name, formats = "plain", frozenset({"guest"})
    def load(self, spec, source): raise NotImplementedError

@hookimpl
def codellm_backends(): return [Guest(), Plain()]
"""


def test_the_options_of_any_backend_are_listed(tmp_path):
    install_plugin(tmp_path, "guest", GUEST)
    listed = codellm("backends", "guest", "--format", "json", path=tmp_path)
    assert json.loads(listed.stdout) == [
        {
            "option": "depth",
            "takes": "a number of layers from 1 to 9",
            "default": "all",
            "schemes": "",
            "help": "How many layers are computed.",
        },
        {"option": "mode", "takes": "one of slow, fast", "default": "slow", "schemes": "g2 g4", "help": ""},
    ]
    assert "one of slow, fast" in codellm("backends", "guest", path=tmp_path).stdout
    plain = codellm("backends", "plain", path=tmp_path)
    assert (plain.returncode, plain.stdout, plain.stderr) == (0, "", "plain has no options of its own\n")
    unknown = codellm("backends", "gust", path=tmp_path)
    assert unknown.returncode == 1
    assert "unknown backend 'gust'; did you mean 'guest'?" in unknown.stderr
