"""The quality of a row: figures where they can be had, reasons where they cannot."""

import json
import math
import subprocess
from unittest.mock import create_autospec

import attrs
import pytest

from codellm.spec import LoadSpec
from codellm_eval.bench.ask.job import QualityPlan
from codellm_eval.bench.measure.humaneval import HumanEval
from codellm_eval.bench.process.pipe import Report
from codellm_eval.errors import SandboxError
from codellm_eval.humaneval.problems import load_problems
from codellm_eval.judge.sandbox import sandbox_status
from support.bench_toy import COMMAND, SMALL, bench, environment, rows


def test_dummy_weights_show_no_quality(workdir):
    done = bench(workdir, "--row", "toy:int8", "--format", "md", model="dummy:tiny")
    [row] = [line for line in done.stdout.split("\n\n")[1].splitlines() if line.startswith("| toy:int8")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[-2:] == ["dummy", "dummy"]
    assert float(cells[1]) > 0
    assert "quality" not in done.stdout.split("- ")[0]  # no table of its own
    assert "bits/byte, canonical, KL, top-1, pass@1: dummy weights are random" in done.stdout


def test_quality_that_fails_leaves_the_speed(workdir):
    broken, died = rows(workdir, "--row", "toy:int8:fault=no-score", "--row", "toy:int8:fault=crash-late")
    for row, reason in ((broken, "scoring is broken"), (died, "killed by SIGABRT in the phase")):
        assert row["error"] is None
        assert row["tg_tokens_per_second"] > 0
        assert row["bits_per_byte"] is None
        assert reason in row["bits_per_byte_reason"]


def test_bits_per_byte_of_a_uniform_model(workdir):
    [row] = rows(workdir, "--quality-bytes", "2000", "--row", "toy:int8")
    assert row["bits_per_byte"] == pytest.approx(8.0056, rel=2e-3)  # log2(257), each byte a token
    assert row["perplexity"] == pytest.approx(257, rel=1e-6)


def test_rows_are_compared_with_the_first(workdir):
    first, second = rows(workdir, "--limit", "6", "--row", "toy:int8", "--row", "toy:int4")
    assert (first["reference"], second["reference"]) == (None, "toy:int8")
    for row in (first, second):
        assert row["bits_per_byte_protocol"] == "document, window 1024, stride 512"
        assert (row["canonical_tasks"], row["canonical_reason"]) == (6, None)
        bits = row["canonical_nats"] / math.log(2) / row["canonical_tokens"]  # a token is a byte
        assert row["canonical_bits_per_byte"] == pytest.approx(bits)
    assert [first[key] for key in ("greedy_agreement", "kl_divergence_nats", "top1_agreement")] == [None] * 3
    # the two compute the same
    assert (second["greedy_agreement"], second["top1_agreement"]) == (1, 1)
    assert abs(second["kl_divergence_nats"]) < 1e-6
    assert second["divergence_tokens"] == 2048
    for key in ("bits_per_byte_difference", "canonical_bits_per_byte_difference"):
        assert [second[f"{key}{end}"] for end in ("", "_low", "_high")] == [0, 0, 0]
    assert not list((workdir / "out").glob(".reference*"))
    kept = [json.loads(line) for line in (workdir / "out" / "rows.jsonl").read_text().splitlines()]
    assert [task["name"] for task in kept[1]["canonical"]] == [f"HumanEval/{n}" for n in range(6)]
    assert all(task["agreed"] == task["tokens"] for task in kept[1]["canonical"])
    assert sum(document["bytes"] for document in kept[1]["documents"]) == kept[1]["scored_bytes"]
    assert kept[1]["against"]["bits"]["units"] == kept[1]["scored_documents"]


def test_another_reference_is_measured_first(workdir):
    done = bench(workdir, "--limit", "2", "--row", "toy:int8", "--row", "toy:int4", "--reference", "toy:int4")
    assert "quality against toy:int4; bits/byte: document, window 1024, stride 512; canonical" in " ".join(
        done.stdout.split()
    )
    kept = [json.loads(line)["row"] for line in (workdir / "out" / "rows.jsonl").read_text().splitlines()]
    assert kept == ["toy:int4", "toy:int8"]
    done = bench(workdir, "--row", "toy:int8", "--reference", "toy:int4", code=1)
    assert "unknown row for --reference 'toy:int4'" in done.stderr


def test_a_reference_that_failed_leaves_reasons(workdir):
    _, second = rows(workdir, "--limit", "2", "--row", "toy:int8:fault=load", "--row", "toy:int4")
    assert second["divergence_reason"] == "the reference row has left no distributions to compare with"
    assert second["canonical_bits_per_byte"] > 0
    assert [second[key] for key in ("reference", "greedy_agreement", "bits_per_byte_difference")] == [None] * 3


def test_one_row_alone_is_compared_with_nothing(workdir):
    done = bench(workdir, "--limit", "2", "--row", "toy:int8")
    head = next(line for line in done.stdout.splitlines() if "canonical" in line and line.startswith("row"))
    assert head.split() == ["row", "document", "canonical", "pass@1"]
    assert "≈" not in done.stdout


def test_without_permission_the_cell_says_what_to_add(workdir):
    done = bench(workdir, "--row", "toy:int8", "--quality-bytes", "2000")
    assert "--allow-code-execution" in done.stdout


def test_pass_at_1_with_its_completions_kept(workdir):
    from codellm_eval.judge.sandbox import sandbox_status

    if not sandbox_status().ok:
        pytest.skip(sandbox_status().reason)
    [row] = rows(workdir, "--row", "toy:int8", "--allow-code-execution", "--limit", "3", "--max-tokens", "8")
    assert (row["pass_at_1"], row["passed"], row["tasks"]) == (0, 0, 3)
    kept = [json.loads(line) for line in (workdir / "out" / "samples-toy-int8.jsonl").read_text().splitlines()]
    assert [line["task_id"] for line in kept] == ["HumanEval/0", "HumanEval/1", "HumanEval/2"]
    assert not any(line["passed"] for line in kept)


def test_without_bubblewrap_the_cell_says_how_to_get_it(workdir):
    path = workdir / "bin"
    path.mkdir()
    done = subprocess.run(
        [*COMMAND, "-m", "model", *SMALL, "--row", "toy:int8", "--quality-bytes", "2000", "--allow-code-execution",
         "--output", "out"],
        cwd=workdir,
        env={**environment(workdir), "PATH": str(path), "CODELLM_ISOLATION": "A"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    row = done.stdout.split("\n\n")[1].splitlines()[3:]
    assert [line.split()[-1] for line in row] == ["apt-get", "install", "bubblewrap"]
    assert "install bubblewrap" in " ".join(done.stdout.split())


def test_no_row_is_judged_where_a_canonical_solution_fails(tmp_path):
    problem = attrs.evolve(next(iter(load_problems().values())), canonical_solution="    return 'wrong'\n")
    sandbox = sandbox_status().require()
    report = create_autospec(Report, instance=True)  # the way to a parent, which is not there
    with pytest.raises(SandboxError, match="no model is judged; first HumanEval/0: failed"):
        HumanEval(QualityPlan(), {problem.task_id: problem}, sandbox).measure(
            LoadSpec(model="never loaded"), report, tmp_path / "samples.jsonl"
        )
    assert not list(tmp_path.iterdir())
