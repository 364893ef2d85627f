"""`codellm bench` from the command line to its table, on a small real backend that a plugin brings."""

import csv
import io
import json
import subprocess
import sys
import textwrap

import pytest

from support.bench_toy import COMMAND, bench, environment, rows


def test_one_row_has_every_figure(workdir):
    [row] = rows(workdir, "--row", "toy:int8:threads=3")
    assert row["row"] == "toy:int8:threads=3"
    assert row["error"] is None
    assert (row["threads"], row["scheme"], row["weight_bytes"]) == (3, "int8", 1_000_000)
    assert (row["pp_tokens"], row["tg_tokens"], row["repeats"]) == (32, 8, 2)
    assert row["peak_host_bytes"] == 20_000_000
    for key in ("pp_tokens_per_second", "tg_tokens_per_second", "ttft_seconds", "tpot_seconds"):
        assert row[key] > 0
        assert row[f"{key}_spread"] >= 0
    assert row["limit_share"] == pytest.approx(1e6 * row["tg_tokens_per_second"] / 1e9)
    assert 1000 < row["tg_tokens_per_second"] < 10_000  # the toy sleeps 0.1 ms a token


def test_default_rows_are_those_of_available_backends(workdir):
    done = bench(workdir, "--no-quality", "--format", "jsonl")
    names = [json.loads(line)["row"] for line in done.stdout.splitlines()]
    toys = [name for name in names if name.startswith("toy")]
    assert toys == ["toy", "toy:int8", "toy:int4"]
    assert not any(name.startswith("absent") for name in names)
    assert "left out: absent: no such hardware; buy some" in done.stderr


def test_no_prompt_begins_like_an_earlier_one(workdir):
    [row] = rows(workdir, "--no-quality", "--repeats", "20", "--row", "toy:int8:fault=cached")
    assert row["error"] is None


def test_sizes_shrink_to_the_context_and_the_table_says_so(workdir):
    done = bench(workdir, "--no-quality", "--row", "toy:int8:context_length=16")
    text = " ".join(done.stdout.split())
    assert "its context is 16, so it measured pp15, tg8 and a request of 8+8 tokens" in text


def test_the_table_fits_80_columns_and_names_its_protocol(workdir):
    done = bench(workdir, "--row", "toy:int8", "--row", "toy:int4", "--no-quality")
    assert max(map(len, done.stdout.splitlines())) <= 80
    title, _, head = done.stdout.splitlines()[:3]
    assert title == "model: pp32 tg8 request128+8, one sequence, greedy, median of 2"
    assert head.split() == ["row", "size", "pp32", "tg8", "TTFT", "TPOT", "limit", "peak", "bits/", "pass@1"]
    assert "median of 2" in " ".join(done.stdout.split())
    assert "±" in done.stdout


def test_csv_holds_what_jsonl_holds(workdir):
    done = bench(workdir, "--format", "csv", "--no-quality", "--row", "toy:int8")
    [row] = csv.DictReader(io.StringIO(done.stdout))
    assert row["row"] == "toy:int8"
    assert float(row["tg_tokens_per_second"]) > 0
    assert float(row["tg_tokens_per_second_spread"]) >= 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--row", "toi:int8"], "did you mean 'toy'"),
        (["--row", "toy:int9"], "did you mean 'int8'"),
        (["--row", "toy:int8:threads=no"], "threads must be a whole number"),
        (["--row", "toy:int8", "--row", "toy:int8"], "given twice"),
        (["--row", "toy:int8", "--repeats", "0"], "repeats must be at least 1"),
        (["--row", "toy:int8", "--new-tokens", "1"], "new_tokens must be at least 2"),
        (["--row", "toy:int8", "--limit", "0"], "limit must be at least 1"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is(workdir, arguments, says):
    done = subprocess.run(
        [*COMMAND, "-m", "model", *arguments],
        cwd=workdir, env=environment(workdir), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode in {1, 2}
    assert says in done.stderr
    assert not (workdir / "results").exists()


def test_llama_cpp_rows_of_every_scheme(workdir):
    """The real backend, on a model with no file: six rows, each measured, none with a figure of quality."""
    pytest.importorskip("llama_cpp")
    schemes = ("f16", "bf16", "q8_0", "q4_0", "q4_k_m", "q4_k_s")
    named = (part for scheme in schemes for part in ("--row", f"llama-cpp:{scheme}:threads=1"))
    found = rows(workdir, "--repeats", "1", *named, model="dummy:tiny")
    assert [row["scheme"] for row in found] == list(schemes)
    for row in found:
        assert row["error"] is None
        assert row["dummy"]
        assert min(row["limit_share"], row["pp_tokens_per_second"], row["peak_host_bytes"]) > 0
        assert row["bits_per_byte"] is None
        assert row["pass_at_1"] is None
    weights = {row["scheme"]: row["weight_bytes"] for row in found}
    assert weights["f16"] > weights["q8_0"] > weights["q4_0"]
    assert len({row["bandwidth_bytes_per_second"] for row in found}) == 1  # one limit for all rows


def test_help_is_quick(workdir):
    code = """
        import sys
        from codellm.cli import main
        main(["bench", "--help"])
        heavy = {"numpy", "cattrs", "tabulate", "rich", "psutil", "tokenizers"} & set(sys.modules)
        sys.exit(f"imported {heavy}" if heavy else 0)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=environment(workdir), check=True, timeout=60)
