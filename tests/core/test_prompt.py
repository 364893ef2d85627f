"""What may be given to a model, and that a prompt which is none of it costs itself alone."""

import json
import subprocess
import sys

import numpy as np
import pytest

import codellm
from codellm import generation
from codellm.errors import BackendError, CodellmError, InvalidValueError
from codellm.tokenizer import ByteTokenizer
from support import script_model
from support.script_model import ScriptModel

PARAMS = codellm.SamplingParams(max_tokens=9)
HALF = json.loads(r'"y = \ud83d z"')
HALVES = [HALF, "\udc80", "a" * 1000 + "\udfff", "\ud800\ud800", "\udc00\ud800"]
"""Halves of UTF-16's pairs, as JSON and file names make them."""
NO_PROMPTS = [
    None, 3, 2.5, b"x", bytearray(b"x"), memoryview(b"x"), ["a"], [1.5], [True], [None], [[1]], {1: 2}, {1}, object(),
    np.array([1.5]), np.array(3), print, [1, "a"], "", (-1,), [10**9], [-(2**70)],
]  # fmt: skip


def named(prompt):
    """The name of a test's case, the same in every process: without where the prompt lies."""
    return repr(prompt).split(" at 0x")[0]


@pytest.fixture
def model():
    return ScriptModel("hello")


@pytest.mark.parametrize("text", HALVES, ids=ascii)
def test_half_a_character_fails_in_one_line_that_says_where(model, text):
    with pytest.raises(InvalidValueError, match=r"the prompt holds a lone surrogate, U\+D[89A-F]..") as error:
        model.generate(text, PARAMS)
    assert str(error.value).isprintable()
    with pytest.raises(InvalidValueError, match="lone surrogate"):
        model.stream(text, PARAMS)
    with pytest.raises(InvalidValueError, match="lone surrogate"):
        ByteTokenizer().encode(text)


def test_both_halves_together_are_a_character(model):
    assert model.generate(json.loads(r'"\ud83d\ude42"'), PARAMS).text == "hello"


@pytest.mark.parametrize("text", HALVES, ids=ascii)
def test_of_a_batch_that_request_alone_fails(model, text):
    results = model.generate_batch(["x = ", text, "z"], PARAMS)
    assert [(each.text, each.finish_reason) for each in results] == [("hello", "eos"), ("", "error"), ("hello", "eos")]
    assert isinstance(results[1].error, InvalidValueError)


@pytest.mark.parametrize("prompt", NO_PROMPTS, ids=named)
def test_what_is_no_prompt_fails_in_one_line(model, prompt):
    model.tokenizer.eos = None  # nothing to begin an empty text with
    for call in (model.generate, model.stream):
        with pytest.raises(InvalidValueError) as error:
            call(prompt, PARAMS)
        assert len(str(error.value)) < 200
        assert str(error.value).isprintable()
    results = model.generate_batch(["x", prompt, [120]], PARAMS)
    assert [each.finish_reason for each in results] == ["length", "error", "length"]
    assert isinstance(results[1].error, CodellmError)


@pytest.mark.parametrize(
    "prompt", [(1, 2), [np.int64(1), np.int32(2)], np.array([1, 2]), range(1, 3), iter([1, 2])], ids=named
)
def test_whole_numbers_of_any_kind_are_ids(model, prompt):
    assert generation.new_sequence(model, prompt, PARAMS).prompt_ids == [1, 2]


@pytest.mark.parametrize("prompts", ["abc", b"abc", None, 3], ids=repr)
def test_what_is_no_list_of_prompts_is_refused(model, prompts):
    with pytest.raises(InvalidValueError, match="generate_batch takes a list of prompts, not "):
        model.generate_batch(prompts, PARAMS)
    assert model.generate_batch([], PARAMS) == []


def test_equal_prompts_of_a_batch_are_samples_of_one_prompt_however_they_are_given(model):
    drawing = codellm.SamplingParams(max_tokens=30, temperature=100.0, seed=1, ignore_eos=True)
    ids = model.tokenizer.encode("x = 1")
    first, bad, second = model.generate_batch(["x = 1", HALF, ids], drawing)
    assert bad.finish_reason == "error"
    assert first.token_ids != second.token_ids
    again = model.generate_batch([ids, "x = 1"], drawing)
    assert [each.token_ids for each in again] == [first.token_ids, second.token_ids]


def test_a_tokenizer_that_fails_is_named_and_costs_its_own_prompt(model):
    class Failing(script_model.ByteTokenizer):
        def encode(self, text, special=False):
            if text == "bad":
                raise KeyError("no such piece")
            return super().encode(text, special)

    model.tokenizer = Failing()
    with pytest.raises(BackendError, match=r"backend 'script': its tokenizer failed on the prompt: .*no such piece"):
        model.generate("bad", PARAMS)
    assert [each.finish_reason for each in model.generate_batch(["x", "bad"], PARAMS)] == ["eos", "error"]


@pytest.mark.parametrize("side", ["prefix", "suffix"])
def test_half_a_character_around_a_middle_is_refused(model, side):
    with pytest.raises(InvalidValueError, match="lone surrogate"):
        model.tokenizer.infill_ids(**{"prefix": "a", "suffix": "b", side: HALF})


def test_a_stop_string_of_half_a_character_is_never_found(model):
    assert model.generate("x", codellm.SamplingParams(max_tokens=9, stop=HALVES)).text == "hello"


def test_an_argument_that_is_no_utf_8_is_one_line():
    done = subprocess.run([sys.executable, "-m", "codellm", "generate", b"x\xff"], capture_output=True, timeout=300)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"the prompt holds a lone surrogate, U+DCFF, after 1 characters" in done.stderr
    assert b"Traceback" not in done.stderr
