"""The speed of a loaded model, one sequence at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from codellm_eval.bench.plan import Plan
from codellm_eval.bench.prompt import RandomPrompts
from codellm_eval.bench.requests import request
from codellm_eval.bench.stats import Repeats

if TYPE_CHECKING:
    from codellm.model import Model
    from codellm.result import Result


@attrs.frozen(kw_only=True)
class Speed:
    """Rates in tokens per second, times in seconds."""

    prefill: Repeats
    """pp: tokens of the prompt / TTFT."""
    decode: Repeats
    """tg: 1 / TPOT after a prompt of one token."""
    ttft: Repeats
    tpot: Repeats
    itl_p50: Repeats
    """The median of each request's gaps between tokens; 0 where most tokens come several in a step."""
    itl_p95: Repeats


def measure_speed(model: Model, plan: Plan, progress: Callable[[str], None] = lambda phase: None) -> Speed:
    """Run `plan`: for each of its requests a warm-up that does not count, then the repeats.

    The three kinds of request take turns, so that a slow minute of the machine falls on all of them.

    Raises:
        BackendError: the model lied about its tokens, or all of them came at once.
    """
    prompts = RandomPrompts(model.tokenizer, plan.seed)

    def prefill() -> Result:
        return request(model, prompts.draw(plan.prompt_tokens), 1)

    def decode() -> Result:
        return request(model, prompts.draw(1), plan.new_tokens)

    def typical() -> Result:
        return request(model, prompts.draw(plan.request_tokens), plan.new_tokens)

    progress("warm-up")
    for kind in (prefill, decode, typical):
        kind()
    taken: list[tuple[Result, Result, Result]] = []
    for repeat in range(plan.repeats):
        progress(f"speed {repeat + 1}/{plan.repeats}")
        taken.append((prefill(), decode(), typical()))

    prefills, decodes, requests = zip(*taken, strict=True)
    return Speed(
        prefill=Repeats.of_times("prefill", [each.timing.ttft for each in prefills]).map(
            lambda seconds: plan.prompt_tokens / seconds
        ),
        decode=Repeats.of_times("decoding", [each.timing.tpot for each in decodes]).map(lambda seconds: 1 / seconds),
        ttft=Repeats.of_times("the first token", [each.timing.ttft for each in requests]),
        tpot=Repeats.of_times("a token", [each.timing.tpot for each in requests]),
        itl_p50=_percentile(requests, 50),
        itl_p95=_percentile(requests, 95),
    )


def _percentile(results: tuple[Result, ...], percent: float) -> Repeats:
    """The percentile of the gaps between the tokens of each of `results`, linear between two gaps."""
    import numpy as np

    return Repeats(tuple(float(np.percentile(each.timing.itl, percent)) for each in results))
