"""What is asked of every row: sizes, prompts, and what is made of the repeats."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codellm.errors import BackendError, ContextLengthError, InvalidValueError
from codellm.tokenizer import Tokenizer
from codellm_eval.bench.ask.plan import Plan
from codellm_eval.bench.measure.prompt import RandomPrompts
from codellm_eval.stats.repeats import Repeats


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


@given(st.integers(4, 3000), st.integers(2, 3000))
def test_growth_curves_fit_and_end_at_the_context(context, new):
    plan = Plan(new_tokens=new, growth=True).fit(context)
    assert plan.fit(context) == plan
    assert len(set(plan.workloads)) == len(plan.workloads)
    assert plan.context_length <= context
    assert max(each.context_length for each in plan.alone) == context
    assert [each.batch_size for each in plan.together] == [1, 2, 4, 8]
    assert {*plan.alone, *plan.together} == {*plan.workloads}


def lists(prompt=(512,), new=(128,), batch=(1,), context=(0,)):
    plan = Plan.of_lists(prompt_tokens=prompt, new_tokens=new, batch_sizes=batch, contexts=context)
    return [str(each) for each in plan.workloads]


def test_lists_are_combined_as_llama_bench_does():
    assert lists() == []
    assert lists(prompt=(128, 512)) == ["pp512"]
    assert lists(context=(512,)) == ["pp512 @ d512", "tg128 @ d512"]
    assert lists(batch=(1, 4)) == ["pp512", "pp512 b4", "tg128", "tg128 b4"]
    assert len(lists(prompt=(64, 64, 128), new=(8, 16), batch=(1, 2), context=(0, 32))) == 16


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ({"prompt": (0,)}, "prompt_tokens must be at least 1"),
        ({"prompt": (5, 0)}, "tokens must be at least 1"),
        ({"new": (8, 1)}, "new_tokens must be at least 2"),
        ({"batch": (0,)}, "batch_size must be at least 1"),
        ({"context": (-1,)}, "context must be at least 0"),
        ({"prompt": (1 << 40,)}, "prompt_tokens must be at most 2147483647"),
    ],
)
def test_sizes_that_cannot_be_measured_are_refused(sizes, says):
    with pytest.raises(InvalidValueError, match=says):
        lists(**sizes)
