"""The prompt of an infill: what is cut where, and which files stand before it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codellm.errors import NoFimError
from codellm.fim import TEMPLATES, find_fim
from codellm.serve.body import Body
from codellm.serve.infill import Around, infill_ids
from codellm.serve.llamacpp import Wanted
from codellm.serve.refusal import Refusal
from support.script_model import FIM, ScriptModel

PREFIX, SUFFIX, MIDDLE, FILE = FIM.values()


def tried(work):
    """What it gives and None, or None and the refusal."""
    try:
        return work(), None
    except Refusal as refusal:
        return None, refusal


def asked(context=64, **fields):
    body = Body(json.dumps(fields).encode())
    return Around.of(body), Wanted.of(body, context, temperature=0.0)


def ids_of(context=64, **fields):
    around, wanted = asked(context, **fields)
    return infill_ids(ScriptModel(context=context), around, wanted.params.max_tokens)


def test_what_is_short_stands_whole():
    ids = ids_of(input_prefix="ab", prompt="c", input_suffix="de", n_predict=4)
    assert ids == [PREFIX, *b"abc", SUFFIX, *b"de", MIDDLE]


def test_what_is_long_is_cut_at_its_far_ends():
    ids = ids_of(input_prefix="a" * 500 + "bc", input_suffix="gh" + "f" * 500, n_predict=9)
    cut = ids.index(SUFFIX)
    assert len(ids) == 64 - 9
    assert (ids[cut - 2 : cut], ids[cut + 1 : cut + 3]) == ([*b"bc"], [*b"gh"])
    assert (cut - 1, len(ids) - cut - 2) == (39, 13)
    assert len(ids_of(input_prefix="a" * 500, n_predict=9)) == 64 - 9
    assert len(ids_of(input_suffix="a" * 500, n_predict=9)) == 64 - 9
    assert len(ids_of(input_prefix="a" * 500, n_predict=-1)) == 32


def test_files_stand_before_it_whole_and_the_last_first():
    files = [{"filename": f"{name}.py", "text": name * 8} for name in "abc"]
    ids = ids_of(input_prefix="x", input_suffix="y", n_predict=17, input_extra=files)
    assert ids == [FILE, *b"b.py\nbbbbbbbb", FILE, *b"c.py\ncccccccc", FILE, PREFIX, ord("x"), SUFFIX, ord("y"), MIDDLE]
    assert ids_of(input_prefix="a" * 500, input_extra=files, n_predict=9)[0] == PREFIX


@given(
    context=st.integers(8, 200),
    n_predict=st.integers(-1, 300),
    prefix=st.text(alphabet="aé\n", max_size=400),
    suffix=st.text(alphabet="aé\n", max_size=400),
    files=st.lists(st.text(alphabet="aé", max_size=80), max_size=4),
)
def test_it_always_fits_and_keeps_what_is_near(context, n_predict, prefix, suffix, files):
    extra = [{"filename": "f", "text": text} for text in files]
    ids = ids_of(context, input_prefix=prefix, input_suffix=suffix, n_predict=n_predict, input_extra=extra)
    encode = ScriptModel().tokenizer.encode
    assert len(ids) < context
    begin, cut = ids.index(PREFIX), ids.index(SUFFIX)
    assert ids[-1] == MIDDLE
    assert encode(prefix)[-(cut - begin - 1) or len(ids) :] == ids[begin + 1 : cut]
    assert encode(suffix)[: len(ids) - cut - 2] == ids[cut + 1 : -1]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.family)
def test_the_token_between_files_is_that_of_the_family(template):
    words = {text: id for id, text in enumerate([template.prefix, template.suffix, template.middle, *template.eot])}
    assert find_fim(words.get).file == (None if template.file is None else words[template.file])


def test_a_model_without_marks_cannot():
    model = ScriptModel()
    model.tokenizer.special_id = lambda token: None
    with pytest.raises(NoFimError):
        infill_ids(model, Around(prefix="a", suffix=""), 1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.sampled_from([
    "input_prefix", "input_suffix", "prompt", "input_extra", "n_predict", "stop", "temperature", "top_p", "top_k",
    "min_p", "seed", "t_max_predict_ms", "t_max_prompt_ms", "n_indent", "repeat_penalty",
    "response_fields", "ignore_eos", "stream", "n_probs", "lora",
])  # fmt: skip


@given(st.dictionaries(FIELDS, JSON, max_size=4))
def test_any_fields_are_taken_or_refused_by_name(fields):
    found, refusal = tried(lambda: asked(**fields))
    if refusal is None:
        around, wanted = found
        assert isinstance(around.prefix, str)
        assert wanted.params.max_tokens >= 1
    else:
        assert refusal.status == 400
        assert refusal.param in fields or refusal.code == "invalid_json"


@given(st.binary(max_size=40))
def test_any_bytes_are_a_body_or_refused(data):
    found, refusal = tried(lambda: Body(data))
    assert found is not None or refusal.code == "invalid_json"
