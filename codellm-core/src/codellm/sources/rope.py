"""The rotary embedding that a config.json asks for.

Source of the kinds and their fields: transformers, modeling_rope_utils.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from codellm.errors import ModelFileError

if TYPE_CHECKING:
    import numpy.typing as npt


@attrs.frozen(kw_only=True)
class Rope:
    """Base and scaling. `kind` is "default", "linear" (`factor`) or "llama3" (all fields)."""

    theta: float
    kind: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_length: float = 8192.0

    def divisors(self, head: int) -> npt.NDArray[np.float32]:
        """What scaling divides each frequency of a head of `head` values by: float32 [head / 2].

        Of "llama3", waves shorter than the original context over `high_freq_factor` stay, waves longer than it over
        `low_freq_factor` are stretched by `factor`, and those between are blended.
        """
        frequencies = self.theta ** (-np.arange(0, head, 2) / head)
        if self.kind == "linear":
            return np.full(frequencies.shape, self.factor, np.float32)
        if self.kind == "llama3":
            turns = self.original_length * frequencies / (2 * math.pi)
            blend = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
            kept = np.clip(blend, 0.0, 1.0)
            return (1 / (kept + (1 - kept) / self.factor)).astype(np.float32)
        return np.ones(frequencies.shape, np.float32)


def read_rope(config: Mapping[str, Any], kinds: tuple[str, ...], where: str) -> Rope:
    """The rope of a config.json: `rope_parameters` in what transformers 5 writes, two fields before.

    Raises:
        ModelFileError: a field is no positive number, the scaling is none of `kinds`, or only a part of a head turns.
    """
    parameters = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(parameters, Mapping):
        raise ModelFileError(f"{where}: rope_parameters is {parameters!r}, not an object")
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if kind not in kinds:
        raise ModelFileError(f"{where}: rope type {kind!r} is not supported; known: {', '.join(kinds)}")
    fields = {**config, **parameters}
    if fields.get("partial_rotary_factor") not in (None, 1, 1.0):
        raise ModelFileError(f"{where}: partial_rotary_factor {fields['partial_rotary_factor']!r} is not supported")

    def number(field: str, default: float | None) -> float:
        value = fields.get(field, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
            raise ModelFileError(f"{where}: {field} is {value!r}, not a positive number")
        return float(value)

    theta = number("rope_theta", 10000.0)
    if kind == "linear":
        return Rope(theta=theta, kind=kind, factor=number("factor", None))
    if kind == "llama3":
        rope = Rope(
            theta=theta,
            kind=kind,
            factor=number("factor", None),
            low_freq_factor=number("low_freq_factor", None),
            high_freq_factor=number("high_freq_factor", None),
            original_length=number("original_max_position_embeddings", None),
        )
        if rope.low_freq_factor >= rope.high_freq_factor:
            raise ModelFileError(f"{where}: low_freq_factor is not below high_freq_factor")
        return rope
    return Rope(theta=theta)
