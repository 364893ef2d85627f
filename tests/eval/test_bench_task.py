"""`codellm bench --task`: one request with the prompt of a HumanEval task, as a study would time it."""

import pytest

from codellm_eval.bench.ask.plan import Plan
from codellm_eval.bench.records.checks import doubts
from codellm_eval.bench.records.folder import Folder
from codellm_eval.bench.show.quantity import quantities
from codellm_eval.bench.show.table import render
from codellm_eval.stats.repeats import Repeats
from support.bench_toy import bench, rows
from support.recorded import record

TASK = ["--task", "HumanEval/0", "--new-tokens", "20", "--repeats", "2", "--no-quality"]


def test_speeds_are_those_of_the_one_request(workdir):
    [row] = rows(workdir, "--row", "toy:int8", sizes=TASK)
    assert row["protocol"] == "HumanEval/0+20, one sequence, greedy, median of 2"
    count = row["request_prompt_tokens"]
    assert row["pp_tokens"] == count > 300  # a token a byte
    [kept] = Folder.read(workdir / "out").records
    for prefill, decode, ttft, tpot, whole in zip(
        *(part.values for part in (kept.prefill, kept.decode, kept.ttft, kept.tpot, kept.request)), strict=True
    ):
        assert (prefill, decode) == (pytest.approx(count / ttft), pytest.approx(1 / tpot))
        assert whole == pytest.approx(ttft + 19 * tpot)
    assert {"request HumanEval/0+20", "decode HumanEval/0+20"} <= quantities(kept).keys()
    assert (len(kept.request.values), kept.first_share, kept.points) == (2, None, ())


def test_its_table_tells_whole_seconds(workdir):
    head = bench(workdir, "--row", "toy:int8", sizes=TASK).stdout.splitlines()
    assert head[0] == "model: HumanEval/0+20, one sequence, greedy, median of 2"
    assert head[2].split()[:5] == ["row", "size", "prompt", "decode", "request"]


def test_an_unknown_task_is_refused_before_anything_runs(workdir):
    done = bench(workdir, "--row", "toy:int8", sizes=["--task", "HumanEval/164"], code=2)
    assert "HumanEval has no task 'HumanEval/164'; they are HumanEval/0 to HumanEval/163" in done.stderr


def test_a_prompt_that_does_not_fit_fails_the_row_and_is_not_cut(workdir):
    done = bench(workdir, "--row", "toy:int8:context_length=64", sizes=TASK, code=1)
    assert "does not fit the context of 64; take fewer --new-tokens" in " ".join(done.stdout.split())


def test_a_backend_that_keeps_the_prompt_is_found(workdir):
    [row] = rows(workdir, "--row", "toy:int8:fault=remembers", sizes=[*TASK, "--repeats", "3"])
    assert "the figures are mostly of that" in row["warnings"]


def test_a_doubt_of_the_prompt_marks_the_request_too():
    plan = Plan(task="HumanEval/0", new_tokens=20, repeats=3)
    kept = record(plan=plan, request=Repeats((1.0, 0.2, 0.2)), repeated_prompt=Repeats((0.2, 0.2)))
    assert [doubt.columns for doubt in doubts(kept)] == [("pp", "ttft", "request")]
    assert "!0.20" in render([kept], plan, [], "md")
