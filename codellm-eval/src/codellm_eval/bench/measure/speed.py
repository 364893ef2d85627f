"""The speed of a loaded model, one sequence at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import attrs

from codellm_eval.bench.ask.plan import Plan
from codellm_eval.bench.measure import clock
from codellm_eval.bench.measure.prompt import RandomPrompts
from codellm_eval.bench.measure.requests import request
from codellm_eval.stats.repeats import Repeats

if TYPE_CHECKING:
    from codellm.model import Model
    from codellm.result import Result

AGAIN = 3
"""Prompts of pp that are given a second time."""
WARM_UP = 8
"""New tokens of a warm-up whose request takes a minute and more on a laptop."""


@attrs.frozen(kw_only=True)
class Speed:
    """Rates in tokens per second, times in seconds."""

    prefill: Repeats
    """pp: tokens of the prompt / TTFT."""
    decode: Repeats
    """tg: 1 / TPOT after a prompt of one token."""
    ttft: Repeats
    tpot: Repeats
    request: Repeats
    """The whole request."""
    itl_p50: Repeats
    """The median of each request's gaps between tokens; 0 where most tokens come several in a step."""
    itl_p95: Repeats
    repeated_prompt: Repeats
    """The TTFT of a prompt given again over that of its first time: near 1 where nothing is kept of it."""
    first_share: Repeats | None
    """The share of a tg request's time before its first token; None where there is no such request."""
    clock_resolution: float
    """Seconds."""


def measure_speed(model: Model, plan: Plan, progress: Callable[[str], None] = lambda phase: None) -> Speed:
    """Run `plan`: for each of its requests a warm-up that does not count, then the repeats.

    The three kinds of request take turns, so that a slow minute of the machine falls on all of them. Some prompts of pp
    are given a second time at once, which counts for `repeated_prompt` alone.

    Raises:
        BackendError: the model lied about its tokens, all of them came at once, or too fast for the clock.
    """
    prompts = RandomPrompts(model.tokenizer, plan.seed)

    def prefill(repeat: int) -> tuple[Result, Result | None]:
        prompt = prompts.draw(plan.prompt_tokens)
        return request(model, prompt, 1), request(model, prompt, 1) if repeat < AGAIN else None

    def decode() -> Result:
        return request(model, prompts.draw(1), plan.new_tokens)

    def typical() -> Result:
        return request(model, prompts.draw(plan.request_tokens), plan.new_tokens)

    progress("warm-up")
    prefill(AGAIN)
    decode()
    typical()
    taken: list[tuple[tuple[Result, Result | None], Result, Result]] = []
    for repeat in range(plan.repeats):
        progress(f"speed {repeat + 1}/{plan.repeats}")
        taken.append((prefill(repeat), decode(), typical()))

    pairs, decodes, requests = zip(*taken, strict=True)
    prefills = [first for first, _ in pairs]
    step = clock.resolution()
    clock.check(step, map(_seconds, (*prefills, *decodes, *requests)))
    return Speed(
        prefill=Repeats.of_times("prefill", [each.timing.ttft for each in prefills]).map(
            lambda seconds: plan.prompt_tokens / seconds
        ),
        decode=Repeats.of_times("decoding", [each.timing.tpot for each in decodes]).map(lambda seconds: 1 / seconds),
        **_latencies(requests),
        repeated_prompt=Repeats(tuple(_ttft(again) / _ttft(first) for first, again in pairs if again is not None)),
        first_share=Repeats(tuple(_ttft(each) / _seconds(each) for each in decodes)),
        clock_resolution=step,
    )


def measure_task(
    model: Model, plan: Plan, prompt: list[int], progress: Callable[[str], None] = lambda phase: None
) -> Speed:
    """Run the one request of a `plan` with a task, after a short warm-up with another prompt of its length.

    Raises:
        BackendError: see `measure_speed`.
    """
    progress("warm-up")
    request(model, RandomPrompts(model.tokenizer, plan.seed).draw(len(prompt)), min(WARM_UP, plan.new_tokens))
    requests = []
    for repeat in range(plan.repeats):
        progress(f"request {repeat + 1}/{plan.repeats}")
        requests.append(request(model, prompt, plan.new_tokens))
    first, *again = requests
    step = clock.resolution()
    clock.check(step, map(_seconds, requests))
    latencies = _latencies(requests)
    return Speed(
        prefill=latencies["ttft"].map(lambda seconds: len(prompt) / seconds),
        decode=latencies["tpot"].map(lambda seconds: 1 / seconds),
        **latencies,
        repeated_prompt=Repeats(tuple(_ttft(each) / _ttft(first) for each in again or [first])),
        first_share=None,
        clock_resolution=step,
    )


def _latencies(requests: Sequence[Result]) -> dict[str, Repeats]:
    """What is told of whole requests, by the names of Speed's fields."""
    return {
        "ttft": Repeats.of_times("the first token", [each.timing.ttft for each in requests]),
        "tpot": Repeats.of_times("a token", [each.timing.tpot for each in requests]),
        "request": Repeats.of_times("a request", [_seconds(each) for each in requests]),
        "itl_p50": _percentile(requests, 50),
        "itl_p95": _percentile(requests, 95),
    }


def _seconds(result: Result) -> float:
    """Seconds from the start to the last token."""
    return result.timing.token_times[-1] - result.timing.start


def _ttft(result: Result) -> float:
    """Seconds to the first token of a result that has one."""
    return result.timing.token_times[0] - result.timing.start


def _percentile(results: Sequence[Result], percent: float) -> Repeats:
    """The percentile of the gaps between the tokens of each of `results`, linear between two gaps."""
    import numpy as np

    return Repeats(tuple(float(np.percentile(each.timing.itl, percent)) for each in results))
