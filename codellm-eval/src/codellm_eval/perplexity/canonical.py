"""The probability of HumanEval's canonical solutions, and what a model would have written in their place.

pass@1 of a small model is a handful of tasks; this says something of every task, and needs no sandbox.

The protocol `canonical`: of each task the prompt is given as for generation (`model_prompt`), and the text that follows
it, through the canonical solution, is encoded by itself and scored. Bits per byte are -log2 of its probability over its
UTF-8 bytes.

Greedy agreement is the share of those tokens before which two rows have the same likeliest token, the lowest id of
equals, each given the canonical solution up to there. Two completions written freely would tell less: after a near tie
that fell the other way everything differs, whatever the two models think of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from codellm.errors import InputError
from codellm_eval.errors import refuse_dummy
from codellm_eval.humaneval.completion import model_prompt
from codellm_eval.perplexity.scored import Scored

if TYPE_CHECKING:
    from codellm.model import Model
    from codellm.tokenizer import Tokenizer
    from codellm_eval.judge.problem import Problem

Progress = Callable[[int, int], None]
Greedy = Mapping[str, Sequence[int]]
"""By task: the likeliest token before each token of the canonical solution."""


@attrs.frozen
class Solutions:
    """What a row makes of the tasks that fit its context; `agreed` of each is counted where a reference was given."""

    each: tuple[Scored, ...]
    greedy: Greedy


def score_solutions(
    model: Model,
    problems: Iterable[Problem],
    reference: Greedy | None = None,
    progress: Progress | None = None,
) -> Solutions:
    """Score the canonical solution of each problem that fits the context.

    Raises:
        DummyModelError: the weights are random.
        InputError: no problem fits the context.
        BackendError: the model computed NaN, or other than one distribution for each token.
    """
    refuse_dummy(model.info.dummy, "the probability of solutions")
    tasks = [(problem, *_encode(model.tokenizer, problem)) for problem in problems]
    fitting = [task for task in tasks if len(task[1]) + len(task[2]) - 1 <= model.info.context_length]
    if not fitting:
        raise InputError(f"no task fits the context of {model.info.context_length} tokens; load with a longer one")
    each, greedy = [], {}
    for done, (problem, prompt, solution) in enumerate(fitting, 1):
        nll, likeliest = _score(model, prompt, solution)
        theirs = reference.get(problem.task_id) if reference is not None else None
        greedy[problem.task_id] = likeliest
        each.append(
            Scored(
                name=problem.task_id,
                bytes=len(_solution(problem).encode()),
                tokens=len(solution),
                nll=nll,
                agreed=None if theirs is None else _agreed(likeliest, theirs),
            )
        )
        if progress is not None:
            progress(done, len(fitting))
    return Solutions(tuple(each), greedy)


def _encode(tokenizer: Tokenizer, problem: Problem) -> tuple[list[int], list[int]]:
    return tokenizer.prompt_ids(model_prompt(problem.prompt)), tokenizer.encode(_solution(problem))


def _solution(problem: Problem) -> str:
    """What follows the prompt that the model is given."""
    return problem.prompt[len(model_prompt(problem.prompt)) :] + problem.canonical_solution


def _score(model: Model, prompt: list[int], solution: list[int]) -> tuple[float, list[int]]:
    """Score -ln p of `solution` after `prompt`, and the likeliest token before each of its tokens."""
    from codellm.asking import distributions

    targets = iter(solution)
    terms: list[float] = []
    likeliest: list[int] = []
    for block in distributions(model, [*prompt, *solution][:-1], len(prompt) - 1):
        likeliest += map(int, block.argmax(axis=1))
        terms += [-float(row[target]) for row, target in zip(block, targets, strict=False)]
    return math.fsum(terms), likeliest


def _agreed(mine: Sequence[int], theirs: Sequence[int]) -> int | None:
    """How many tokens agree; None where the two models cut the solution otherwise, so that there is nothing to pair."""
    return sum(one == other for one, other in zip(mine, theirs, strict=True)) if len(mine) == len(theirs) else None
