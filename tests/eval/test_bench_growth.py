"""Further workloads: batches, contexts, other sizes."""

import pytest

from codellm.errors import BackendError
from codellm.result import Result, Timing
from codellm_eval.bench.ask.plan import Plan
from codellm_eval.bench.ask.workload import Workload
from codellm_eval.bench.measure.growth import measure_growth
from support.bench_toy import rows
from support.script_model import ScriptModel

NEW = 5


class Timed(ScriptModel):
    """Gives the times that it is told: for each sequence of a batch, by its index, those of its tokens."""

    def __init__(self, times, **how):
        super().__init__(**how)
        self.times = times

    def generate_batch(self, prompts, params):
        return [
            Result("", (1,) * params.max_tokens, "length", Timing(0.0, self.times(index, prompt, params), 1e9))
            for index, prompt in enumerate(prompts)
        ]


def rate(times, **workload):
    plan = Plan(repeats=1)
    asked = Workload(**workload)
    found = measure_growth(Timed(times, slots=asked.batch_size, context=4096), [asked], plan)
    return found.points[0].rate.median if found.points else found.faults


def test_a_batch_counts_what_all_sequences_give():
    def together(index, prompt, params):
        return tuple(1.0 + step for step in range(params.max_tokens))

    assert rate(together, kind="tg", tokens=NEW, batch_size=4) == pytest.approx(4.0)
    assert rate(together, kind="tg", tokens=NEW) == pytest.approx(1.0)


def test_sequences_that_run_one_after_the_other_are_no_batch():
    def in_turn(index, prompt, params):
        return tuple(1.0 + index * params.max_tokens + step for step in range(params.max_tokens))

    assert rate(in_turn, kind="tg", tokens=NEW, batch_size=4) == pytest.approx(1.0)


def test_the_prefill_of_a_batch_ends_with_its_last_sequence():
    assert rate(lambda index, prompt, _: (index + 1.0,), kind="pp", tokens=64, batch_size=4) == pytest.approx(64.0)


def test_the_context_itself_is_no_part_of_a_prefill():
    quadratic = rate(lambda _, prompt, __: (len(prompt) ** 2 / 100,), kind="pp", tokens=10, context=30)
    assert quadratic == pytest.approx(10 / (16 - 9))


def test_a_difference_that_is_none_gives_no_rate():
    [fault] = rate(lambda *_: (1.0,), kind="pp", tokens=10, context=30)
    assert fault.startswith("pp10 @ d30: a prompt of 30 tokens took as long as one of 10 more")
    [fault] = rate(lambda _, __, params: (1.0,) * params.max_tokens, kind="tg", tokens=NEW)
    assert fault.startswith("tg5: all tokens came at once")


def test_a_workload_without_a_rate_leaves_the_others():
    model = Timed(lambda _, __, params: tuple(map(float, range(params.max_tokens))), context=4096)
    given_up, kept = Workload(kind="pp", tokens=10, context=30), Workload(kind="tg", tokens=3)
    found = measure_growth(model, [given_up, kept], Plan(repeats=2))
    assert [point.workload for point in found.points] == [kept]
    assert found.points[0].rate.values == (1.0, 1.0)
    assert len(found.faults) == 1


def test_a_long_context_is_not_warmed_up():
    given = []

    def times(_, prompt, params):
        given.append(len(prompt))
        return tuple(map(float, range(params.max_tokens)))

    asked = [Workload(kind="tg", tokens=NEW, context=size) for size in (1000, 100, 10)]
    measure_growth(Timed(times, context=4096), asked, Plan(repeats=2))
    assert given == [10, 1000, 100, 10, 1000, 100, 10]


def test_a_model_with_too_few_slots_is_not_told_as_a_batch():
    with pytest.raises(BackendError, match="runs 2 sequences together, not 4"):
        measure_growth(ScriptModel(slots=2), [Workload(kind="tg", tokens=2, batch_size=4)], Plan())


def test_growth_with_batch_and_context(workdir):
    [row] = rows(workdir, "--no-quality", "--growth", "--row", "toy:int8")
    for key in ("b1", "b2", "b4", "b8"):
        assert row[f"tg8_d0_{key}_tokens_per_second"] > 0
    for key in ("d128", "d512", "d1016"):
        assert row[f"tg8_{key}_b1_tokens_per_second"] > 0
        assert row[f"tg8_{key}_b1_tokens_per_second_spread"] >= 0


def test_lists_of_sizes(workdir):
    [row] = rows(
        workdir, "--no-quality", "--prompt-tokens", "16,24", "--new-tokens", "4", "--new-tokens", "6",
        "--context", "0,64", "--row", "toy:int8",
    )  # fmt: skip
    assert (row["pp_tokens"], row["tg_tokens"]) == (32, 8)  # the first ones, of SMALL
    for key in ("pp16_d0", "pp24_d0", "tg4_d0", "tg6_d0", "tg8_d64", "tg6_d64"):
        assert row[f"{key}_b1_tokens_per_second"] > 0
    # a difference of two times of the toy may be none
    assert (row["pp16_d64_b1_tokens_per_second"] is None) <= ("pp16 @ d64" in (row["points_reason"] or ""))


def test_what_does_not_fit_leaves_the_rest_of_the_row(workdir):
    [row] = rows(workdir, "--no-quality", "--batch-size", "1,2", "--row", "toy:int8:fault=narrow")
    assert row["error"] is None
    assert "runs 1 sequences together, not 2" in row["points_reason"]


def test_what_is_too_short_for_the_clock_has_no_rate():
    def hasty(index, prompt, params):
        return tuple(1.0 + 1e-9 * step for step in range(params.max_tokens))

    [fault] = rate(hasty, kind="tg", tokens=NEW)
    assert "by a clock that moves in steps of" in fault
