"""The quality of a row: figures where they can be had, reasons where they cannot."""

import json
import subprocess

import pytest

from support.bench_place import COMMAND, SMALL, bench, environment, rows


def test_dummy_weights_show_no_quality(place):
    done = bench(place, "--row", "toy:int8", "--format", "md", model="dummy:tiny")
    [row] = [line for line in done.stdout.split("\n\n")[1].splitlines() if line.startswith("| toy:int8")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[-2:] == ["dummy", "dummy"]
    assert float(cells[1]) > 0


def test_quality_that_fails_leaves_the_speed(place):
    broken, died = rows(place, "--row", "toy:int8:fault=no-score", "--row", "toy:int8:fault=crash-late")
    for row, reason in ((broken, "scoring is broken"), (died, "killed by SIGABRT in the phase")):
        assert row["error"] is None
        assert row["tg_tokens_per_second"] > 0
        assert row["bits_per_byte"] is None
        assert reason in row["bits_per_byte_reason"]


def test_bits_per_byte_of_a_uniform_model(place):
    [row] = rows(place, "--quality-bytes", "2000", "--row", "toy:int8")
    assert row["bits_per_byte"] == pytest.approx(8.0056, rel=2e-3)  # log2(257), each byte a token


def test_without_permission_the_cell_says_what_to_add(place):
    done = bench(place, "--row", "toy:int8", "--quality-bytes", "2000")
    assert "--allow-code-execution" in done.stdout


def test_pass_at_1_with_its_completions_kept(place):
    from codellm_eval.sandbox import sandbox_status

    if not sandbox_status().ok:
        pytest.skip(sandbox_status().reason)
    [row] = rows(place, "--row", "toy:int8", "--allow-code-execution", "--limit", "3", "--max-tokens", "8")
    assert (row["pass_at_1"], row["passed"], row["tasks"]) == (0, 0, 3)
    kept = [json.loads(line) for line in (place / "out" / "samples-toy-int8.jsonl").read_text().splitlines()]
    assert [line["task_id"] for line in kept] == ["HumanEval/0", "HumanEval/1", "HumanEval/2"]
    assert not any(line["passed"] for line in kept)


def test_without_bubblewrap_the_cell_says_how_to_get_it(place):
    path = place / "bin"
    path.mkdir()
    done = subprocess.run(
        [*COMMAND, "-m", "model", *SMALL, "--row", "toy:int8", "--quality-bytes", "2000", "--allow-code-execution",
         "--output", "out"],
        cwd=place,
        env={**environment(place), "PATH": str(path), "CODELLM_ISOLATION": "A"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    row = done.stdout.split("\n\n")[1].splitlines()[3:]
    assert [line.split()[-1] for line in row] == ["apt-get", "install", "bubblewrap"]
    assert "install bubblewrap" in " ".join(done.stdout.split())
