"""What a benchmark finds out about itself: each check on a backend that lies in just that way."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codellm.errors import BackendError
from codellm_eval.bench.ask.plan import Plan
from codellm_eval.bench.measure import clock
from codellm_eval.bench.records.checks import doubts
from codellm_eval.bench.show.cells import for_people
from codellm_eval.bench.show.notes import notes
from codellm_eval.bench.show.table import render
from codellm_eval.stats.repeats import Repeats
from support.bench_toy import bench, rows
from support.recorded import record


def warnings(one):
    return {doubt.name: doubt.text for doubt in doubts(one)}


def warned(workdir, fault, **sizes):
    [row] = rows(workdir, "--no-quality", "--repeats", "4", "--row", f"toy:int8:fault={fault}", **sizes)
    assert row["error"] is None
    return row["warnings"] or ""


def test_a_backend_that_keeps_prompts_is_found_out(workdir):
    assert "this backend keeps what it computed" in warned(workdir, "remembers")


def test_one_that_computes_a_repeated_prompt_again_is_not(workdir):
    assert "keeps what it computed" not in warned(workdir, "slow")


def test_tokens_that_are_held_back_are_found_out(workdir):
    assert "computed ahead and given out late" in warned(workdir, "late", sizes=["--new-tokens", "32"])


def test_a_backend_that_gets_slower_is_found_out(workdir):
    found = warned(workdir, "tires")
    assert "from its first repeats to its last it changed" in found
    assert "TTFT by +" in found
    assert "pp32 by -" in found


def test_a_clock_of_coarse_steps_fails_the_row(workdir):
    done = bench(workdir, "--no-quality", "--row", "toy:int8:fault=coarse", code=1)
    assert "by a clock that moves in steps of 2 ms" in " ".join(done.stdout.split())


def test_warnings_stand_under_the_table(workdir):
    done = bench(workdir, "--no-quality", "--row", "toy:int8:fault=remembers")
    assert "! toy:int8:fault=remembers: a prompt given twice took" in " ".join(done.stdout.split())


def test_this_clock_is_fine():
    assert 0 < clock.resolution() < 1e-5


def test_a_clock_that_stands_still_ends():
    assert clock.resolution(lambda: 5.0) == clock.PATIENCE


@given(st.floats(1e-9, 1e-2), st.lists(st.floats(0, 10), min_size=1))
def test_a_time_is_at_least_a_hundred_steps(step, seconds):
    if min(seconds) >= 101 * step:
        clock.check(step, seconds)
    elif min(seconds) <= 99 * step:
        with pytest.raises(BackendError):
            clock.check(step, seconds)


FALLING = Repeats((100.0, 99.0, 90.0, 80.0, 79.0))


def test_drift_is_told_only_where_first_and_last_repeats_do_not_mix():
    assert warnings(record(decode=FALLING))["drift"].startswith(
        "from its first repeats to its last it changed: tg128 by -20 %"
    )
    assert warnings(record(decode=Repeats((100.0, 80.0, 90.0, 99.0, 79.0)))) == {}
    assert warnings(record(decode=Repeats((100.0, 99.0, 97.0, 95.0, 94.0)))) == {}
    assert warnings(record(decode=Repeats((100.0, 50.0, 20.0)))) == {}  # too few to tell


@given(st.lists(st.floats(99, 104), min_size=1, max_size=9))
def test_a_steady_row_has_no_warning(values):
    steady = Repeats(tuple(values))
    assert warnings(record(decode=steady, prefill=steady, ttft=steady, tpot=steady)) == {}


def test_one_repeat_that_computed_the_prompt_again_acquits():
    assert "prompt_cache" in warnings(record(repeated_prompt=Repeats((0.1, 0.5, 0.3))))
    assert "prompt_cache" not in warnings(record(repeated_prompt=Repeats((0.1, 0.9, 0.3))))
    assert "prompt_cache" not in warnings(record(repeated_prompt=Repeats((0.1,))))  # which may be chance


def test_the_first_of_few_tokens_is_a_large_share_anyway():
    share = Repeats((0.9,))
    assert "held_back" in warnings(record(first_share=share))
    assert "held_back" not in warnings(record(first_share=share, plan=Plan(new_tokens=4)))


def test_a_row_that_failed_is_not_judged():
    failed = attrs.evolve(record(), error="gone", plan=None, decode=FALLING)
    assert warnings(failed) == {}
    assert not any("changed" in note for note in notes([failed], Plan(), None))


def test_the_figures_in_doubt_are_marked():
    cells = for_people(record(repeated_prompt=Repeats((0.1, 0.1)), decode=FALLING))
    marked = {column for column, (figure, _) in cells.items() if figure.startswith("!")}
    assert marked == {"pp", "ttft", "tg"}
    assert render([record(decode=FALLING)], Plan(), [], "table").count("!") == 1
