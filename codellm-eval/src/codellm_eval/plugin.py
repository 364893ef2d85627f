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
    from codellm_eval.sandbox import sandbox_status

    status = sandbox_status()
    value = f"works, code runs as {status.sandbox.user}" if status.sandbox else f"none: {status.reason}"
    return (Finding(topic="sandbox", value=value, ok=status.ok, remedy=status.remedy),)
