"""The rotary embedding that a config.json asks for.

Source of the kinds, their fields and defaults: transformers, modeling_rope_utils.py.
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
    """Base and scaling of the rotary embedding.

    `rope_type` is "default", "linear" (`factor`), "llama3" (`factor`, the factors of low and high frequencies,
    `original_context_length`) or "yarn" (`factor`, the betas, `truncate`, `original_context_length`).
    `attention_factor` multiplies cosines and sines. "dynamic" reads as "default": it scales only past
    `max_position_embeddings`, by the length of what runs, and nothing here goes past.
    """

    theta: float
    rope_type: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context_length: float = 8192.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float = 1.0

    @property
    def reach(self) -> int:
        """Tokens that the scaling stretches the original context to; 0 where it does not tell."""
        return int(self.factor * self.original_context_length) if self.rope_type == "yarn" else 0

    def freq_factors(self, head_dim: int) -> npt.NDArray[np.float32]:
        """What scaling divides each frequency of a head of `head_dim` values by: float32 [head_dim / 2].

        Of "llama3", waves shorter than the original context over `high_freq_factor` stay, waves longer than it over
        `low_freq_factor` are stretched by `factor`, and those between are blended. Of "yarn" (Peng et al. 2023), those
        that turn `beta_fast` times and more in the original context stay, those that turn `beta_slow` times and less
        are stretched, and the blend between runs along the number of the frequency.
        """
        inv_freq: npt.NDArray[np.float64] = self.theta ** (-np.arange(0, head_dim, 2) / head_dim)
        if self.rope_type == "linear":
            return np.full(inv_freq.shape, self.factor, np.float32)
        if self.rope_type == "llama3":
            turns = self.original_context_length * inv_freq / (2 * math.pi)
            blend = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        elif self.rope_type == "yarn":
            first, last = self._correction_range(head_dim)
            blend = 1 - (np.arange(0, head_dim, 2) / 2 - first) / (last - first)
        else:
            return np.ones(inv_freq.shape, np.float32)
        kept = np.clip(blend, 0.0, 1.0)
        return (1 / (kept + (1 - kept) / self.factor)).astype(np.float32)

    def _correction_range(self, head_dim: int) -> tuple[float, float]:
        """The numbers of the frequencies of "yarn" between which the blend runs."""

        def number(turns: float) -> float:
            wavelength = self.original_context_length / (turns * 2 * math.pi)
            return head_dim * math.log(wavelength) / (2 * math.log(self.theta))

        first, last = number(self.beta_fast), number(self.beta_slow)
        if self.truncate:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, head_dim - 1)
        return first, last if last != first else last + 0.001


def read_rope(config: Mapping[str, Any], kinds: tuple[str, ...], where: str) -> Rope:
    """The rope of a config.json: `rope_parameters` in what transformers 5 writes, `rope_scaling` and a base before.

    Raises:
        ModelFileError: a field is no positive number, the scaling is none of `kinds` or differs by layer, or only a
            part of a head turns.
    """
    parameters = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if not isinstance(parameters, Mapping):
        raise ModelFileError(f"{where}: rope_parameters is {parameters!r}, not an object")
    layered = next((name for name, value in parameters.items() if isinstance(value, Mapping)), None)
    if layered is not None:
        raise ModelFileError(f"{where}: rope_parameters differ by layer ({layered!r}), which is not supported")
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if kind not in kinds:
        raise ModelFileError(f"{where}: rope type {kind!r} is not supported; known: {', '.join(kinds)}")
    fields = _Fields({**config, **parameters}, where)
    if fields.values.get("partial_rotary_factor") not in (None, 1, 1.0):
        raise ModelFileError(
            f"{where}: partial_rotary_factor {fields.values['partial_rotary_factor']!r} is not supported"
        )
    theta = fields.number("rope_theta", 10000.0)
    if kind in ("default", "dynamic"):
        return Rope(theta=theta)
    factor = fields.number("factor")
    if kind == "linear":
        return Rope(theta=theta, rope_type=kind, factor=factor)
    # beside the scaling it counts more than within; where it stands nowhere, it is the model's own context
    original = {**fields.values, **config}.get("original_max_position_embeddings")
    if original is None:
        original = config.get("max_position_embeddings")
    length = _Fields({"original_max_position_embeddings": original}, where).number("original_max_position_embeddings")
    return (_llama3 if kind == "llama3" else _yarn)(fields, theta, factor, length)


@attrs.frozen
class _Fields:
    """The fields of a rope; `where` names their file."""

    values: Mapping[str, Any]
    where: str

    def number(self, field: str, default: float | None = None) -> float:
        """A positive number; null is none."""
        value = default if self.values.get(field) is None else self.values[field]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
            raise ModelFileError(f"{self.where}: {field} is {value!r}, not a positive number")
        return float(value)


def _llama3(fields: _Fields, theta: float, factor: float, length: float) -> Rope:
    rope = Rope(
        theta=theta,
        rope_type="llama3",
        factor=factor,
        low_freq_factor=fields.number("low_freq_factor"),
        high_freq_factor=fields.number("high_freq_factor"),
        original_context_length=length,
    )
    if rope.low_freq_factor >= rope.high_freq_factor:
        raise ModelFileError(f"{fields.where}: low_freq_factor is not below high_freq_factor")
    return rope


def _yarn(fields: _Fields, theta: float, factor: float, length: float) -> Rope:
    """Read what "yarn" has; without `attention_factor`, cos and sin grow with the logarithm of the stretch."""
    if theta <= 1:
        raise ModelFileError(f"{fields.where}: rope_theta {theta:g} is not above 1, as yarn needs it")
    truncate = fields.values.get("truncate", True)
    if not isinstance(truncate, bool):
        raise ModelFileError(f"{fields.where}: truncate is {truncate!r}, neither true nor false")
    given, scale, all_dim = (fields.values.get(name) for name in ("attention_factor", "mscale", "mscale_all_dim"))
    if given is not None:
        attention_factor = fields.number("attention_factor")
    elif scale and all_dim:
        one, all_dims = fields.number("mscale"), fields.number("mscale_all_dim")
        attention_factor = yarn_mscale(factor, one) / yarn_mscale(factor, all_dims)
    else:
        attention_factor = yarn_mscale(factor)
    return Rope(
        theta=theta,
        rope_type="yarn",
        factor=factor,
        original_context_length=length,
        beta_fast=fields.number("beta_fast", 32.0),
        beta_slow=fields.number("beta_slow", 1.0),
        truncate=truncate,
        attention_factor=attention_factor,
    )


def yarn_mscale(factor: float, scale: float = 1.0) -> float:
    """What "yarn" multiplies cosines and sines by for a stretch by `factor`: its paper's equation 22, times `scale`."""
    return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0
