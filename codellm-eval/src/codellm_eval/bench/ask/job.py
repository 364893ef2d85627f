"""What the process of one row is told to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import attrs

from codellm.errors import InvalidValueError
from codellm_eval.bench.ask.plan import Plan
from codellm_eval.bench.ask.row import Row, refuse_cache

if TYPE_CHECKING:
    from codellm.spec import LoadSpec


def _positive(_: object, attribute: attrs.Attribute[int], value: int | None) -> None:
    if value is not None and value < 1:
        raise InvalidValueError(f"{attribute.name} must be at least 1, not {value}")


@attrs.frozen(kw_only=True)
class QualityPlan:
    """What of the model's quality is measured, the same for every row."""

    text_bytes: int = attrs.field(default=65536, validator=_positive)
    """Bytes of the held-out corpus that bits per byte are told of."""
    divergence_tokens: int = attrs.field(default=2048, validator=_positive)
    """Tokens of it at which whole distributions are compared; `divergence` says what they take on disk."""
    allow_code_execution: bool = False
    limit: int | None = attrs.field(default=None, validator=_positive)
    """HumanEval tasks; None for all 164."""
    max_tokens: int = attrs.field(default=512, validator=_positive)
    batch_size: int = attrs.field(default=16, validator=_positive)
    """Sequences generated together for HumanEval."""


@attrs.frozen(kw_only=True)
class Job:
    """Everything that a row's process needs; it goes to it as JSON."""

    row: Row
    model: str
    plan: Plan
    stage: Literal["prepare", "measure"] = "measure"
    threads: int | None = None
    device: str | None = None
    options: Mapping[str, str] = attrs.field(factory=dict)
    bandwidths: Mapping[str, float] = attrs.field(factory=dict)
    """Bytes per second, already measured by an earlier row, by `backend@device`: one limit for all its rows."""
    quality: QualityPlan | None = None
    """None leaves quality out."""
    samples: str | None = None
    """File for HumanEval's completions and verdicts; None keeps none."""
    reference: Row | None = None
    """The row that the others are compared with; it is measured before them."""
    reference_folder: str | None = None
    """Where it leaves what they are compared with; None where there are no others."""

    @property
    def is_reference(self) -> bool:
        """Whether this row is the one that the others are compared with."""
        return self.row == self.reference

    def spec(self) -> LoadSpec:
        """What to load.

        Raises:
            InvalidValueError: a field is out of its range, or prompts would not be computed whole.
        """
        spec = self.row.spec(self.model, threads=self.threads, device=self.device, options=self.options)
        refuse_cache(spec, self.row)
        return spec
