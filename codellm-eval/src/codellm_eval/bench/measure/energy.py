"""Joules of each generated token."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs

from codellm.errors import MachineError
from codellm_eval.bench.ask.plan import Plan
from codellm_eval.bench.measure.prompt import RandomPrompts
from codellm_eval.bench.measure.requests import request
from codellm_eval.stats.repeats import Repeats

if TYPE_CHECKING:
    from codellm.model import Model
    from codellm_eval.bench.measure.meter import Meter

WINDOWS = 3
SECONDS = 1.0
"""The least that one window lasts."""
PERIODS = 30
"""The least of the counter's periods that one window lasts, so that its ends are off by 3 % at most."""


@attrs.frozen
class Energy:
    """What decoding one sequence takes of what `source` counts, the idle share not subtracted."""

    joules_per_token: Repeats
    energy_source: str


def measure_energy(model: Model, plan: Plan, meter: Meter, seconds: float = SECONDS) -> Energy:
    """Run requests of tg in windows of at least `seconds` and PERIODS each, and of one request.

    Raises:
        MachineError: the counter is gone, or stands still.
        BackendError: the model lied about its tokens.
    """
    prompts = RandomPrompts(model.tokenizer, plan.seed)
    request(model, prompts.draw(1), plan.new_tokens)
    least = max(seconds, PERIODS * meter.period)
    windows = [_window(model, plan, meter, prompts, least) for _ in range(WINDOWS)]
    if min(windows) <= 0:
        raise MachineError(f"{meter.name} did not move while tokens were generated, so it counts nothing here")
    return Energy(Repeats(tuple(windows)), meter.name)


def _window(model: Model, plan: Plan, meter: Meter, prompts: RandomPrompts, least: float) -> float:
    """Joules of a token, over at least so many seconds."""
    tokens, start, before = 0, time.perf_counter(), meter.joules()
    while not tokens or time.perf_counter() - start < least:
        request(model, prompts.draw(1), plan.new_tokens)
        tokens += plan.new_tokens
    return (meter.joules() - before) / tokens
