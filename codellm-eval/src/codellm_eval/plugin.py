"""What codellm-eval brings to codellm. It only registers: everything heavy is imported when it is called."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from codellm.hookspec import hookimpl

if TYPE_CHECKING:
    from codellm.finding import Finding


@hookimpl
def codellm_doctor() -> Iterable[Finding]:
    """Whether code that a model wrote can be judged here."""
    from codellm.finding import Finding
    from codellm_eval.judge.sandbox import sandbox_status

    status = sandbox_status()
    if status.sandbox is None:
        return (Finding(topic="sandbox", value=f"none: {status.reason}", ok=False, remedy=status.remedy),)
    value = f"level {status.sandbox.level} of A to C, code runs as {status.sandbox.user}"
    if status.reason:  # a level that works is no fault, but what keeps from a better one is worth telling
        value += f"; no better one: {status.reason}"
    return (Finding(topic="sandbox", value=value, remedy=status.remedy),)
