"""A problem: what a program is asked for, and the test that tells whether it does it."""

from __future__ import annotations

import attrs


@attrs.frozen
class Problem:
    """A problem: what the model writes stands between `prompt` and `suffix`, and `test` defines `check(candidate)`.

    HumanEval's prompts end in a newline after the docstring, and it has no suffixes. An infilling task has, and its
    `origin` is the task id of the problem that it was made from.
    """

    task_id: str
    prompt: str
    entry_point: str
    canonical_solution: str
    test: str
    suffix: str = ""
    origin: str = ""
