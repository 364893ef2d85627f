"""Rows, statistics, plans, prompts and tables of `codellm bench`, without a process."""

import json

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codellm.errors import BackendError, ContextLengthError, InvalidValueError
from codellm.model import ModelInfo
from codellm.tokenizer import Tokenizer
from codellm_eval.bench.job import Job, QualityPlan
from codellm_eval.bench.notes import notes
from codellm_eval.bench.plan import Plan
from codellm_eval.bench.prompt import RandomPrompts
from codellm_eval.bench.record import Gap, Record, make_converter, merge
from codellm_eval.bench.row import Row
from codellm_eval.bench.stats import Repeats
from codellm_eval.bench.table import render

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


def test_median_and_spread():
    repeats = Repeats((10.0, 12.0, 11.0))
    assert repeats.median == 11
    assert repeats.spread == pytest.approx(1 / 11)
    assert Repeats((5.0,)).spread == 0


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=9))
def test_every_repeat_lies_within_the_spread(values):
    repeats = Repeats(tuple(values))
    reach = repeats.spread * repeats.median * (1 + 1e-9)
    assert all(abs(value - repeats.median) <= reach for value in values)


@pytest.mark.parametrize("value", [0.0, -1.0, None, float("nan"), float("inf")])
def test_a_time_that_is_none_gives_no_rate(value):
    with pytest.raises(BackendError):
        Repeats.of_times("prefill", [1.0, value])


@given(st.integers(4, 3000), st.integers(1, 3000), st.integers(2, 3000), st.integers(1, 3000))
def test_a_fitted_plan_fits(context, prompt, new, request):
    plan = Plan(prompt_tokens=prompt, new_tokens=new, request_tokens=request).fit(context)
    assert plan.prompt_tokens + 1 <= context
    assert 1 + plan.new_tokens <= context
    assert plan.request_tokens + plan.new_tokens <= context
    assert plan.fit(context) == plan


def test_a_plan_that_fits_is_left_alone_and_one_that_cannot_is_refused():
    assert Plan().fit(2048) == Plan()
    with pytest.raises(ContextLengthError):
        Plan().fit(3)


class Letters(Tokenizer):
    vocab_size, bos, eos, add_bos = 50, None, 7, False

    def encode(self, text, special=False):
        return []

    def token_bytes(self, id):
        return b"" if id == 7 else b"x"

    def special_id(self, token):
        return None


def test_prompts_share_no_beginning_and_hold_no_special_token():
    prompts = RandomPrompts(Letters(), 0)
    drawn = [prompts.draw(20) for _ in range(49)]
    assert len({prompt[0] for prompt in drawn}) == 49
    assert all(len(prompt) == 20 and 7 not in prompt for prompt in drawn)
    assert len(prompts.draw(5)) == 5  # the vocabulary is used up and starts over


def test_prompts_depend_on_the_seed_alone():
    first, second, other = (RandomPrompts(Letters(), seed).draw(30) for seed in (1, 1, 2))
    assert first == second != other


INFO = ModelInfo(
    backend="llama-cpp", architecture="starcoder2", parameters=1000, weight_bytes=14_345_000_000, context_length=2048,
    dtype="float16", scheme="q4_k_m", device="cpu", path="/m.gguf",
)  # fmt: skip


def record(row="llama-cpp:q4_k_m", **fields):
    return Record(
        row=Row.parse(row), model="m", plan=Plan(), info=INFO, prefill=Repeats((15000.0, 15100.0)),
        decode=Repeats((88.8, 99.9)), ttft=Repeats((12.345, 10.0)), tpot=Repeats((0.0123, 0.0125)),
        host_peak=15_012_000_000, device_peak=0, bandwidth=2e12, bits_per_byte=1.2345, pass_at_1=0.128, passed=21,
        tasks=164, seconds=10.0,
    ) if not fields else attrs.evolve(record(row), **fields)  # fmt: skip


def test_records_survive_json():
    converter = make_converter()
    one = record().with_gap("pass_at_1", Gap("a", "b"))
    text = json.dumps(converter.unstructure(one))
    assert converter.structure(json.loads(text), Record) == one
    job = Job(row=Row.parse("a:b:c=d"), model="m", plan=Plan(), quality=QualityPlan(), bandwidths={"a@b": 1.5})
    assert converter.structure(json.loads(json.dumps(converter.unstructure(job))), Job) == job


def test_what_a_process_reports_is_merged():
    converter = make_converter()
    blank = Record(row=Row.parse("a"), model="m")
    full = merge(blank, {"info": converter.unstructure(INFO), "prefill": [1, 2], "host_peak": 5}, converter)
    assert (full.info, full.prefill, full.host_peak) == (INFO, Repeats((1.0, 2.0)), 5)
    with pytest.raises(ValueError, match="no field rate"):
        merge(blank, {"rate": 5}, converter)


def test_the_widest_figures_of_a_7b_fit_80_columns():
    rows = [record(f"llama-cpp:{scheme}") for scheme in ("f16", "q8_0", "q4_k_m")]
    text = render(rows, Plan(), [], "table")
    assert max(map(len, text.splitlines())) <= 80
    assert "llama-cpp:q4_k_m" in text


def test_a_missing_sandbox_still_fits_80_columns():
    gap = Gap("apt-get install bubblewrap", "bubblewrap is not installed; apt-get install bubblewrap")
    rows = [record(pass_at_1=None, passed=None, tasks=None).with_gap("pass_at_1", gap)]
    text = render(rows, Plan(), notes(rows, Plan(), QualityPlan()), "table")
    assert max(map(len, text.splitlines())) <= 80
    shown = [line.split()[-1] for line in text.splitlines()[3:6]]
    assert shown == ["apt-get", "install", "bubblewrap"]


def test_a_reason_cannot_break_a_table():
    bad = record(error="one | two\nthree \x1b[31m", prefill=None, decode=None, ttft=None, tpot=None)
    for format in ("table", "md"):
        text = render([bad], Plan(), notes([bad], Plan(), None), format)
        assert "\x1b" not in text
        assert "failed" in text
    assert len(render([bad], Plan(), [], "md").strip().splitlines()) == 3


def test_limits_above_one_are_explained():
    fast = record(bandwidth=1e9)
    assert any("cache" in note for note in notes([fast], Plan(), None))
    assert not any("cache" in note for note in notes([record()], Plan(), None))


def test_a_disturbed_measurement_says_so():
    wild = record(decode=Repeats((10.0, 5.0, 11.0)))
    assert any("something else used the machine" in note for note in notes([wild], Plan(), None))
    assert not any("something else" in note for note in notes([record()], Plan(), None))


def test_a_reason_shared_by_all_rows_is_told_once():
    rows = [record(f"a:s{n}").with_gap("pass_at_1", Gap("x", "the reason")) for n in range(3)]
    rows = [one.with_gap("bits_per_byte", Gap("x", "the reason")) for one in rows]
    told = [note for note in notes(rows, Plan(), None) if "the reason" in note]
    assert told == ["pass@1, bits/byte: the reason"]
