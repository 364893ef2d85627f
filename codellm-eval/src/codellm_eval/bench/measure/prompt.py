"""Prompts for timing: random tokens, none given twice, so that no cache of an earlier prompt can help; or a task's."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from codellm.errors import BackendError, InvalidValueError

if TYPE_CHECKING:
    from codellm.tokenizer import Tokenizer


def check_task(name: str) -> None:
    """See that HumanEval has the task.

    Raises:
        InvalidValueError: it has none of that name.
        ProblemsError: HumanEval's problems are not installed.
    """
    from codellm_eval.humaneval.problems import load_problems

    if name not in (known := load_problems()):
        first, *_, last = known
        raise InvalidValueError(f"HumanEval has no task {name!r}; they are {first} to {last}")


def task_prompt(tokenizer: Tokenizer, name: str) -> list[int]:
    """The prompt of HumanEval's task `name`, as `codellm eval humaneval` gives it."""
    from codellm_eval.humaneval.completion import model_prompt
    from codellm_eval.humaneval.problems import load_problems

    return tokenizer.prompt_ids(model_prompt(load_problems()[name].prompt))


class RandomPrompts:
    """Draws prompts of ordinary tokens, seeded.

    A cache of keys and values can only be reused for a prompt that begins like an earlier one. So each prompt begins
    with a token that no earlier prompt began with, which leaves no common prefix, not even of length one (only a
    vocabulary smaller than the count of prompts starts over). Special tokens are left out: a backend may treat them
    apart.

    Raises:
        BackendError: the vocabulary has no ordinary token.
    """

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        self._random = random.Random(seed)
        self._ids = [id for id in range(tokenizer.vocab_size) if tokenizer.token_bytes(id)]
        if not self._ids:
            raise BackendError("the vocabulary has no ordinary token to make a prompt of")
        self._first: list[int] = []

    def draw(self, length: int) -> list[int]:
        """A prompt of `length` token ids."""
        if not self._first:
            self._first = self._random.sample(self._ids, len(self._ids))
        return [self._first.pop(), *self._random.choices(self._ids, k=length - 1)]
