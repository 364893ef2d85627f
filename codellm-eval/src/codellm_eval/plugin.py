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
    from codellm_eval.judge.sandbox import sandbox_status

    return (sandbox_status().finding,)
