"""Infilling tasks from canonical solutions: lines are taken out, and a model puts back what belongs between the rest.

The single-line and multi-line tasks of Fried et al. 2022, "InCoder", with which Bavarian et al. 2022, "Efficient
Training of Language Models to Fill in the Middle", measure: every line that is not blank, and every span of lines that
begins and ends with one. HumanEval gives 1033 and 5815 of them, as many as openai/human-eval-infilling holds.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import attrs

from codellm_eval.judge.problem import Problem

if TYPE_CHECKING:
    from codellm.tokenizer import Tokenizer

TASKS: Mapping[str, str] = {"single-line": "SingleLineInfilling", "multi-line": "MultiLineInfilling"}
"""The kinds of tasks by name, with what their ids begin with."""


def infilling_tasks(problems: Mapping[str, Problem], kind: str, most: int | None = None) -> dict[str, Problem]:
    """The tasks of a kind of `TASKS`, by their ids, in order; of each problem at most `most`.

    An id names the lines that are missing, counted from 0 in the canonical solution. Where there are more spans than
    `most`, they are drawn from all of the problem's, the same ones every time.
    """
    tasks: dict[str, Problem] = {}
    for problem in problems.values():
        spans = list(_spans(problem.canonical_solution, single=kind == "single-line"))
        if most is not None and len(spans) > most:
            spans = sorted(random.Random(problem.task_id).sample(spans, most))
        for first, last in spans:
            lines = f"L{first}" if kind == "single-line" else f"L{first}_L{last}"
            task = _without(problem, first, last, f"{TASKS[kind]}/{problem.task_id}/{lines}")
            tasks[task.task_id] = task
    return tasks


def _spans(solution: str, *, single: bool) -> Iterator[tuple[int, int]]:
    """First and last line of each span."""
    filled = [number for number, line in enumerate(_lines(solution)) if line.strip()]
    pairs = itertools.combinations_with_replacement(filled, 2)
    return ((first, last) for first, last in pairs if first == last or not single)


def _without(problem: Problem, first: int, last: int, task_id: str) -> Problem:
    lines = _lines(problem.canonical_solution)
    before, middle, after = lines[:first], lines[first : last + 1], lines[last + 1 :]
    return attrs.evolve(
        problem,
        task_id=task_id,
        prompt=problem.prompt + "".join(before),
        canonical_solution="".join(middle),
        suffix="".join(after),
        origin=problem.task_id,
    )


def _lines(text: str) -> list[str]:
    """The lines with their ends; only a newline ends one."""
    pieces = text.split("\n")
    return [f"{piece}\n" for piece in pieces[:-1]] + [piece for piece in pieces[-1:] if piece]


@attrs.frozen
class Infilling:
    """A model fills in by its fill-in-the-middle tokens, and all that it writes until it ends the middle is judged."""

    @property
    def ends(self) -> tuple[str, ...]:
        """Strings that end the middle: none, the model says itself where it is whole, with a token."""
        return ()

    def prompt(self, problem: Problem, tokenizer: Tokenizer) -> list[int]:
        """Prefix and suffix between the model's fill-in-the-middle tokens.

        Raises:
            NoFimError: it has none.
        """
        return tokenizer.infill_ids(problem.prompt, problem.suffix)

    def completion(self, problem: Problem, raw: str) -> str:
        """Take all of it."""
        return raw
