"""A part of the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from codellm.finding import Finding


@attrs.frozen(kw_only=True)
class Section:
    """What was found on one subject: `findings` for people, `facts` for programs, by their JSON key."""

    title: str
    findings: tuple[Finding, ...]
    facts: Mapping[str, Any]
