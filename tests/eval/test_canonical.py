import numpy as np
import pytest

from codellm.errors import BackendError, InputError
from codellm_eval.errors import DummyModelError
from codellm_eval.humaneval.completion import model_prompt
from codellm_eval.humaneval.problems import load_problems
from codellm_eval.perplexity.canonical import score_solutions
from codellm_eval.perplexity.scored import bits_per_byte
from support.bigram import Bigram

PROBLEMS = list(load_problems().values())[:6]


def by_hand(problem):
    """The bytes of a problem from the last of the prompt on."""
    prompt = model_prompt(problem.prompt)
    return prompt[-1:].encode() + (problem.prompt + problem.canonical_solution)[len(prompt) :].encode()


def test_a_solution_is_scored_from_the_end_of_the_prompt_on():
    model = Bigram()
    found = score_solutions(model, PROBLEMS)
    for problem, each in zip(PROBLEMS, found.each, strict=True):
        data = list(by_hand(problem))
        assert (each.name, each.bytes, each.tokens) == (problem.task_id, len(data) - 1, len(data) - 1)
        assert each.nll == pytest.approx(-float(model.table[data[:-1], data[1:]].sum(dtype=float)), rel=1e-5)
        assert each.agreed is None
        assert list(found.greedy[each.name]) == model.table[data[:-1]].argmax(axis=1).tolist()
    nats = sum(each.nll for each in found.each)
    assert bits_per_byte(found.each) == pytest.approx(nats / np.log(2) / sum(each.bytes for each in found.each))


def test_agreement_counts_places_of_one_likeliest_token():
    reference, other = Bigram(), Bigram(noise=0.5)
    theirs = score_solutions(reference, PROBLEMS).greedy
    assert all(each.agreed == each.tokens for each in score_solutions(reference, PROBLEMS, theirs).each)
    for problem, each in zip(PROBLEMS, score_solutions(other, PROBLEMS, theirs).each, strict=True):
        before = list(by_hand(problem))[:-1]
        alike = reference.table[before].argmax(axis=1) == other.table[before].argmax(axis=1)
        assert each.agreed == alike.sum()
        assert 0 < each.agreed < each.tokens


def test_what_the_reference_cut_otherwise_is_not_paired():
    theirs = {PROBLEMS[0].task_id: [1, 2, 3]}
    assert [each.agreed for each in score_solutions(Bigram(), PROBLEMS, theirs).each] == [None] * len(PROBLEMS)


def test_tasks_longer_than_the_context_are_left_out():
    sizes = {problem.task_id: len((problem.prompt + problem.canonical_solution).encode()) for problem in PROBLEMS}
    context = sorted(sizes.values())[2]
    found = score_solutions(Bigram(context=context), PROBLEMS)
    assert {each.name for each in found.each} == {task for task, size in sizes.items() if size - 1 <= context}
    with pytest.raises(InputError, match="no task fits the context of 16"):
        score_solutions(Bigram(context=16), PROBLEMS)


def test_dummy_weights_have_no_probability_worth_telling():
    with pytest.raises(DummyModelError, match="random"):
        score_solutions(Bigram(dummy=True), PROBLEMS)


def test_nan_and_missing_rows_are_the_backends_fault():
    model = Bigram()
    model.table[:] = np.nan
    with pytest.raises(BackendError, match="'bigram' computed NaN"):
        score_solutions(model, PROBLEMS)
    model = Bigram()
    model.distributions = lambda ids, start: iter([model.table[:1]])
    with pytest.raises(BackendError, match="gave 1 distributions for"):
        score_solutions(model, PROBLEMS)


def test_progress_counts_tasks():
    calls = []
    score_solutions(Bigram(), PROBLEMS, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 6) for done in range(1, 7)]
