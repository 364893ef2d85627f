"""The main job on the bundled model, with few tokens and tasks: what `nox -s demo` runs in full."""

import json
import os
import shutil
from pathlib import Path

import pytest

from support.plugin_folder import codellm

QUICK = (
    "--repeats", "1", "--prompt-tokens", "32", "--new-tokens", "8", "--limit", "3", "--max-tokens", "48",
    "--quality-bytes", "4096", "--threads", "1",
)  # fmt: skip
"""One thread: the models are so small that several would only wait for each other."""
SCHEMES = ["f16", "bf16", "q8_0", "q4_0", "q4_k_m", "q4_k_s"]


def bench(folder, *more, **env):
    done = codellm("bench", "--allow-code-execution", *QUICK, "--output", str(folder), *more, **env)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_every_column_of_every_row_is_filled(tmp_path):
    done = bench(tmp_path / "results", "--growth", "--format", "jsonl")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    rows = [row for row in rows if row["backend"] == "llama-cpp"]  # torch brings rows of its own where it is installed
    for row in rows:
        del row["warnings"]  # those of a busy machine
        assert (row["joules_per_token"] is None) == bool(row["joules_per_token_reason"])
        for key in ("joules_per_token", "joules_per_token_spread", "energy_source"):
            del row[key]  # few machines tell
    assert [row["scheme"] for row in rows] == SCHEMES
    compared = {key for key, value in rows[0].items() if value is None and rows[1][key] is not None}
    assert compared == {
        "reference", "bits_per_byte_difference", "canonical_bits_per_byte_difference", "greedy_agreement",
        "kl_divergence_nats", "top1_agreement", "divergence_tokens", "pass_at_1_gained", "pass_at_1_lost",
    }  # fmt: skip
    of_many = ("_low", "_high", "probability")  # three tasks have no interval
    for number, row in enumerate(rows):
        assert row["error"] is None
        empty = {
            key for key, value in row.items() if value is None and not key.endswith(("_reason", "error", *of_many))
        }
        assert {key for key in empty if "device" not in key} == (set() if number else compared), row["scheme"]
        assert 0.3 < row["bits_per_byte"] < 1.5
        assert 0.3 < row["canonical_bits_per_byte"] < 1.5
    for row in rows[1:]:
        near = row["scheme"] in ("bf16", "q8_0")
        assert row["greedy_agreement"] > (0.95 if near else 0.7)
        assert row["kl_divergence_nats"] < (0.01 if near else 0.6)
        assert row["top1_agreement"] > (0.95 if near else 0.6)
    assert {path.name for path in (tmp_path / "results").iterdir()} >= {"table.md", "rows.jsonl", "manifest.json"}
    manifest = json.loads((tmp_path / "results" / "manifest.json").read_text())
    assert manifest["packages"]["codellm-core"]
    assert all(model["sha256"] for model in manifest["models"])


def test_without_bubblewrap_programs_are_isolated_otherwise_or_not_run(tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in os.environ["PATH"].split(os.pathsep):
        for program in Path(name).glob("*") if Path(name).is_dir() else ():
            if program.name != "bwrap" and not (tools / program.name).exists():
                (tools / program.name).symlink_to(program)
    assert shutil.which("bwrap", path=str(tools)) is None
    quick = ("--row", "llama-cpp:q8_0", "--format", "json")
    [weaker] = json.loads(bench(tmp_path / "weaker", *quick, PATH=str(tools)).stdout)
    assert weaker["pass_at_1"] is not None
    assert weaker["isolation"] == "C"
    done = bench(tmp_path / "results", *quick, PATH=str(tools), CODELLM_ISOLATION="AB")
    [row] = json.loads(done.stdout)
    assert row["error"] is None
    assert row["pass_at_1"] is None
    assert row["isolation"] is None
    assert "bubblewrap" in row["pass_at_1_reason"]
    assert row["bits_per_byte"] is not None
    shown = bench(tmp_path / "again", *quick[:2], PATH=str(tools), CODELLM_ISOLATION="AB").stdout
    assert "install bubblewrap" in shown


@pytest.mark.parametrize("format_", ["table", "md", "csv"])
def test_each_format_names_the_protocol_and_the_row(tmp_path, format_):
    shown = bench(tmp_path / "results", "--row", "llama-cpp:q4_0", "--format", format_).stdout
    assert "llama-cpp:q4_0" in shown
    assert "pp32" in shown or "pp" in shown
