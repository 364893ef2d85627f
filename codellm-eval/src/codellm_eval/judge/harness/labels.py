"""What the processes say of a check: the outcomes that a verdict may have, and two words between checker and worker."""

from __future__ import annotations

import enum


class Label(enum.StrEnum):
    """What `codellm_eval.judge.judge.Outcome` holds, and what becomes one of them or no verdict at all."""

    PASSED = "passed"
    FAILED = "failed"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    CRASH = "crash"
    REFUSED = "refused"
    GONE = "gone"
    """The candidate has left the channel: how it ended says which of the others it is."""
    BROKEN = "broken"
    """The checker cannot be limited, which says nothing of the program."""


INSIDE = (Label.GONE, Label.BROKEN)
"""Labels that no verdict has."""
