"""Tasks from canonical solutions, put to models with and without fill-in-the-middle tokens."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codellm import ByteTokenizer, ModelInfo, Token
from codellm.errors import NoFimError
from codellm.fim import FimIds
from codellm_eval.humaneval.infilling import TASKS, Infilling, infilling_tasks
from codellm_eval.humaneval.problems import load_problems
from codellm_eval.humaneval.samples import Sample
from codellm_eval.humaneval.sampling import generate, sampling
from codellm_eval.humaneval.scoring import judge_samples, score
from codellm_eval.judge.limits import Limits
from codellm_eval.judge.problem import Problem
from codellm_eval.judge.sandbox import sandbox_status
from eval.commandline import error_line, evaluate, needs_sandbox, oracle_workdir
from eval.oracle import Oracle

PROBLEMS = load_problems()
FIRST = dict(itertools.islice(PROBLEMS.items(), 3))


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    return oracle_workdir(tmp_path, monkeypatch)


def whole(problem):
    return problem.prompt + problem.canonical_solution + problem.suffix


@pytest.mark.parametrize(("kind", "count"), [("single-line", 1033), ("multi-line", 5815)])
def test_there_are_as_many_tasks_as_were_published_and_each_is_its_problem_in_three_pieces(kind, count):
    tasks = infilling_tasks(PROBLEMS, kind)
    assert len(tasks) == count
    for task_id, task in tasks.items():
        assert task_id == task.task_id
        assert task_id.startswith(f"{TASKS[kind]}/{task.origin}/L")
        assert whole(task) == whole(PROBLEMS[task.origin])
        assert task.prompt.startswith(PROBLEMS[task.origin].prompt)


def test_the_pieces_are_whole_lines():
    tasks = infilling_tasks(FIRST, "single-line")
    task = tasks["SingleLineInfilling/HumanEval/0/L1"]
    assert task.canonical_solution == "        for idx2, elem2 in enumerate(numbers):\n"
    assert task.prompt.endswith('"""\n    for idx, elem in enumerate(numbers):\n')
    assert task.suffix.startswith("            if idx != idx2:\n")
    blank = "SingleLineInfilling/HumanEval/0/L6"  # the line before the last return
    assert PROBLEMS["HumanEval/0"].canonical_solution.split("\n")[6] == ""
    assert blank not in tasks
    spans = infilling_tasks(FIRST, "multi-line")
    assert spans["MultiLineInfilling/HumanEval/0/L5_L7"].canonical_solution == (
        "                    return True\n\n    return False\n"
    )


lines = st.lists(st.sampled_from(["    x = 1", "", "  ", "\x0c", "    y\r", "    s = '\u2028'"]))


@given(lines.map("\n".join), st.sampled_from(list(TASKS)))
def test_any_solution_is_taken_apart_and_back_together(solution, kind):
    problem = Problem("a", "def f():\n", "f", solution, "")
    tasks = infilling_tasks({"a": problem}, kind)
    filled = sum(bool(line.strip()) for line in solution.split("\n"))
    assert len(tasks) == (filled if kind == "single-line" else filled * (filled + 1) // 2)
    for task in tasks.values():
        assert whole(task) == whole(problem)
        first, *_, last = task.canonical_solution.removesuffix("\n").split("\n") * 2
        assert first.strip()
        assert last.strip()


def test_a_bounded_choice_of_spans_is_the_same_every_time():
    every = infilling_tasks(FIRST, "multi-line")
    some = infilling_tasks(FIRST, "multi-line", 4)
    assert some == infilling_tasks(dict(reversed(FIRST.items())), "multi-line", 4)
    assert [sum(task.origin == origin for task in some.values()) for origin in FIRST] == [
        min(4, sum(task.origin == origin for task in every.values())) for origin in FIRST
    ]
    assert [task for task in every if task in some] == list(some)


@needs_sandbox
def test_canonical_lines_pass_and_their_absence_does_not():
    tasks = infilling_tasks(FIRST, "multi-line", 6)
    right = [Sample(task_id=task, completion=problem.canonical_solution) for task, problem in tasks.items()]
    wrong = [Sample(task_id=task, completion="    raise ValueError\n", index=1) for task in tasks]
    sandbox = sandbox_status().require()
    judged = judge_samples(right + wrong, tasks, sandbox=sandbox, limits=Limits(), workers=2)
    found = score(judged, {task: problem.origin for task, problem in tasks.items()})
    assert (found.problems, found.pass_at) == (len(tasks), {1: 0.5})


class FimTokenizer(ByteTokenizer):
    vocab_size = 260
    fim = FimIds(prefix=257, suffix=258, middle=259)


class Filler(Oracle):
    """Puts back what was there, told by what it reads between its tokens."""

    def __init__(self, tasks):
        self.tokenizer = FimTokenizer()
        self.middles = {(task.prompt, task.suffix): task.canonical_solution for task in tasks.values()}
        self.info = ModelInfo(
            backend="filler", architecture="Filler", parameters=0, weight_bytes=0, context_length=4096, batch_size=1
        )

    def run(self, sequences):
        with self.claim():
            for sequence in sequences:
                ids = sequence.prompt_ids
                cut = ids.index(258)
                assert (ids[0], ids[-1]) == (257, 259)
                text = self.middles[bytes(ids[1:cut]).decode(), bytes(ids[cut + 1 : -1]).decode()]
                yield [Token(id, sequence) for id in (*text.encode(), 256)]


def test_a_model_that_fills_in_rightly_gives_the_canonical_lines():
    tasks = infilling_tasks(FIRST, "multi-line")
    samples = list(generate(Filler(tasks), tasks.values(), sampling(), form=Infilling()))
    assert {sample.task_id: sample.completion for sample in samples} == {
        task: problem.canonical_solution for task, problem in tasks.items()
    }


def test_a_model_without_the_tokens_is_refused_in_one_line(workdir):
    with pytest.raises(NoFimError):
        list(generate(Oracle(), FIRST.values(), sampling(), form=Infilling()))
    line = error_line(evaluate(workdir, "infilling", "-m", "model", "-b", "oracle", "--output", "out", code=1))
    assert line == (
        "codellm: model: the tokenizer has no fill-in-the-middle tokens; use a model that was trained to infill"
    )
    assert not (workdir / "out").exists()


@needs_sandbox
def test_the_bundled_model_infills_and_the_run_goes_on_where_it_stopped(workdir):
    args = ["infilling", "--limit", "2", "--task", "multi-line", "--spans", "3", "--max-tokens", "32", "--threads", "1"]
    args += ["--output", "out", "--format", "json"]
    evaluate(workdir, *args)
    samples = workdir / "out" / "samples.jsonl"
    text = samples.read_text()
    samples.write_text("".join(text.splitlines(keepends=True)[:-2]))
    done = evaluate(workdir, *args, "--allow-code-execution")
    [row] = json.loads(done.stdout)
    assert "out has 4 of 6 samples already" in done.stderr
    # tasks of one problem share the computation of their beginning, which depends on who came before
    kept, now = text.splitlines()[:-2], samples.read_text().splitlines()
    assert now[:4] == kept
    assert sorted(json.loads(line)["task_id"] for line in now) == sorted(
        json.loads(line)["task_id"] for line in text.splitlines()
    )
    assert (row["task"], row["problems"], row["samples"]) == ("multi-line", 6, 6)
    assert 0 <= row["pass@1"] <= 1
    other = error_line(evaluate(workdir, *[arg if arg != "3" else "2" for arg in args], code=1))
    assert "spans was 3 and is 2" in other
    assert "holds no run of `codellm eval humaneval`" in error_line(
        evaluate(workdir, "humaneval", "--rescore", "out", code=1)
    )
