"""Running sequences on a model as core does, watched: a backend that never ends its run fails instead of hanging."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from collections.abc import Sequence as Seq
from typing import Any

import pytest

from codellm.errors import CodellmError
from codellm.generation import complete
from codellm.hookspec import hookimpl
from codellm.model import Model
from codellm.result import Result
from codellm.sampling import SamplingParams
from codellm.sequence import Sequence, Token

PROMPTS = (
    "def add(a, b):\n",
    "import os\nimport sys\n\n",
    "class Stack:\n    def push(self, item):\n        self.items.append(item)\n\n    def pop(self):\n",
    "for i in range(10):\n    print(",
    "x",
    "# the first prime numbers\nprimes = [2, 3, 5, 7, 11, 13, 17, 19, 23, ",
)
"""Of different lengths, so that a batch of them is ragged."""
TEXTS = (
    *PROMPTS,
    "naïve 🙂 été",
    "a = 'ß→日本'  # 👩‍💻",
    "\tif x:\r\n\t\treturn  None   \n\n\n",
    " leading and trailing ",
    "# <|endoftext|> </s> <fim_prefix> are text",
)
"""What a tokenizer must give back byte for byte."""


def sequence(model: Model, prompt: str | Seq[int], index: int = 0, **params: Any) -> Sequence:
    """A sequence that ends after `max_tokens`, by default 12, and not before."""
    ids = model.tokenizer.prompt_ids(prompt) if isinstance(prompt, str) else list(prompt)
    return Sequence(
        index=index, prompt_ids=ids, params=SamplingParams(**{"max_tokens": 12, "ignore_eos": True} | params)
    )


def steps(model: Model, sequences: Iterable[Sequence | None]) -> Generator[list[Token], None, None]:
    """`model.run`, watched."""
    return watched(model, model.run(sequences))


def drive(model: Model, sequences: Iterable[Sequence | None]) -> dict[Sequence, list[Token]]:
    """Run `sequences` to their end → the tokens of each that counted."""
    found: dict[Sequence, list[Token]] = {}
    for tokens in steps(model, sequences):
        take(tokens, found)
    return found


def take(tokens: list[Token], found: dict[Sequence, list[Token]]) -> None:
    """What core does with a step's tokens: count them, and finish who has enough."""
    for token in tokens:
        one = token.sequence
        if not one.finished:
            one.token_ids.append(token.id)
            found.setdefault(one, []).append(token)
            one.finished = len(one.token_ids) >= one.params.max_tokens


def result_of(model: Model, one: Sequence) -> Result:
    """What core makes of one sequence."""
    results = [event.result for event in complete(model, [one]) if event.result is not None]
    return results[0]  # the run has ended by now; taking the first as it comes would drop it


def watched(model: Model, steps: Iterator[list[Token]]) -> Generator[list[Token], None, None]:
    """`steps`, until they bring nothing for longer than a prompt as long as the context could take."""
    idle, limit = 0, model.info.context_length + 100
    try:
        for tokens in steps:
            idle = 0 if any(not token.sequence.finished for token in tokens) else idle + 1
            if idle > limit:
                # no Exception, so that core does not wrap it
                pytest.fail(
                    f"run() does not end: {limit} yields in a row brought no token of an unfinished sequence. A run "
                    "drops sequences whose `finished` is set, and ends when none is left and its iterable is exhausted."
                )
            yield tokens
    finally:
        if isinstance(steps, Generator):
            steps.close()


@hookimpl(wrapper=True)
def codellm_generate(model: Model) -> Generator[None, Any, Any]:
    """Watch what `generate` and `stream` run, too."""
    found = yield
    return watched(model, found)


def error_of(call: Callable[[], object]) -> Exception | None:
    """What `call` raises."""
    try:
        call()
    except Exception as error:
        return error
    return None


def told(error: Exception | None) -> str:
    """An error, or none, for a message."""
    return "no error" if error is None else f"{type(error).__name__}: {error}"


def is_ours(error: Exception | None) -> bool:
    """Whether there is no error, or one that codellm names."""
    return error is None or isinstance(error, CodellmError)
