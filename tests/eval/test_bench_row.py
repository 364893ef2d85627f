"""Rows as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codellm.errors import InvalidValueError
from codellm_eval.bench.ask.job import Job
from codellm_eval.bench.ask.plan import Plan
from codellm_eval.bench.ask.row import Row

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]*", fullmatch=True)
KEYS = st.from_regex(r"[A-Za-z][A-Za-z0-9_]*", fullmatch=True)
VALUES = st.text(st.characters(exclude_characters=",\0", exclude_categories=["Zs", "Zl", "Zp", "Cc", "Cs"]), min_size=1)
COUNTS = ("threads", "batch_size", "context_length")


@given(NAMES, st.none() | NAMES, st.dictionaries(KEYS.filter(lambda key: key not in COUNTS), VALUES))
def test_a_row_and_its_text_are_inverse(backend, scheme, options):
    row = Row(backend, scheme, options)
    assert Row.parse(str(row)) == row
    assert hash(Row.parse(str(row))) == hash(row)


@given(st.text(max_size=40))
def test_any_text_is_a_row_or_refused(text):
    try:
        row = Row.parse(text)
    except InvalidValueError:
        return
    assert Row.parse(str(row)) == row


@pytest.mark.parametrize(
    "text",
    ["", ":q4_0", "a b", "llama-cpp:q4_0:", "llama-cpp:q4_0:threads", "llama-cpp:q4_0:=3", "llama-cpp:q4_0:threads=",
     "llama-cpp:q4_0:threads=0", "llama-cpp:q4_0:threads=two", "llama-cpp:q4_0:threads=1,threads=2",
     "llama-cpp:q4_0:batch-size=1,batch_size=2", "llama-cpp:q4_0:a=1,", "llama-cpp:q4/0"],
)  # fmt: skip
def test_what_is_no_row_is_refused(text):
    with pytest.raises(InvalidValueError):
        Row.parse(text)


def test_known_keys_become_fields_of_the_spec_and_others_options():
    row = Row.parse("llama-cpp:q4_k_m:threads=4,batch-size=2,dtype=float32,device=cpu,repack=no,url=a:b=c")
    spec = row.spec("codellm-demo", threads=1, options={"mmap": "yes"})
    assert (spec.backend, spec.scheme, spec.threads, spec.batch_size) == ("llama-cpp", "q4_k_m", 4, 2)
    assert (spec.dtype, spec.device) == ("float32", "cpu")
    assert spec.options == {"mmap": "yes", "repack": "no", "url": "a:b=c"}


def test_a_row_without_a_scheme():
    assert str(Row.parse("transformers-cuda")) == "transformers-cuda"
    assert str(Row.parse("transformers-cuda::dtype=bfloat16")) == "transformers-cuda::dtype=bfloat16"
    assert Row.parse("transformers-cuda:").scheme is None


def test_slugs_are_file_names():
    assert Row.parse("llama-cpp:q4_0:path=a/b c").slug == "llama-cpp-q4_0-path=a-b-c"


@pytest.mark.parametrize(
    ("row", "options"), [("llama-cpp:q8_0:prefix_cache=64", {}), ("llama-cpp", {"prefix_cache": "1"})]
)
def test_no_row_is_measured_with_a_prefix_cache(row, options):
    job = Job(row=Row.parse(row), model="codellm-demo", plan=Plan(), options=options)
    with pytest.raises(InvalidValueError, match="with prefix_cache a prompt is not computed whole"):
        job.spec()


def test_a_row_runs_without_a_prefix_cache():
    from codellm_cpu.llama.options import Options

    spec = Job(row=Row.parse("llama-cpp"), model="codellm-demo", plan=Plan()).spec()
    assert Options.parse(spec.options).prefix_cache == 0
