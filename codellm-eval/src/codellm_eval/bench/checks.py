"""What of a row's own measurements speaks against its figures. The figures stay, with the reason beside them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from codellm_eval.bench.record import Record
from codellm_eval.bench.stats import Repeats

CACHED = 0.6
"""A prompt given again keeps at least this share of its time where nothing is remembered, in one repeat at least."""
HELD_BACK = 0.5
"""The share of a tg request's time before its first token, from which on the others came too fast after it."""
FEW = 16
"""New tokens below which that share says nothing: the first of two is half of them."""
DRIFT = 0.1
"""How much the first repeats may differ from the last."""


def warnings(record: Record) -> dict[str, str]:
    """By the name of the check what it found, in one sentence; empty where nothing is wrong."""
    found = {"prompt_cache": _prompt_cache(record), "held_back": _held_back(record), "drift": _drift(record)}
    return {name: text for name, text in found.items() if text}


def _prompt_cache(record: Record) -> str | None:
    again = record.repeated_prompt
    if again is None or max(again.values) >= CACHED:
        return None
    return (
        f"a prompt given twice took {100 * again.median:.0f} % of its time the second time, so this backend keeps what "
        "it computed; the figures are of prompts that it never saw, and a user's may be better"
    )


def _held_back(record: Record) -> str | None:
    share, plan = record.first_share, record.plan
    if share is None or plan is None or plan.new_tokens < FEW or share.median <= HELD_BACK:
        return None
    return (
        f"{100 * share.median:.0f} % of the time of {plan.new_tokens} tokens passed before the first of them, after a "
        "prompt of one: either a request has a slow start, or tokens are computed ahead and given out late, and then "
        f"tg{plan.new_tokens}, TPOT and ITL are no speed of decoding"
    )


def _drift(record: Record) -> str | None:
    plan = record.plan
    if plan is None:
        return None
    drifts = [
        f"{name} by {100 * change:+.0f} %"
        for name, repeats in (
            (f"pp{plan.prompt_tokens}", record.prefill),
            (f"tg{plan.new_tokens}", record.decode),
            ("TTFT", record.ttft),
            ("TPOT", record.tpot),
        )
        for change in _changes(repeats)
    ]
    if not drifts:
        return None
    return (
        f"from its first repeats to its last it changed: {', '.join(drifts)}; the machine got warm, something else "
        "began or ceased to use it, or the backend gets slower; measure again, with more --repeats"
    )


def _changes(repeats: Repeats | None) -> Iterator[float]:
    """The change from the first half of `repeats` to the last, where it is beyond DRIFT and their values do not mix."""
    half = len(repeats.values) // 2 if repeats is not None else 0
    if repeats is None or half < 2:
        return
    first, last = repeats.values[:half], repeats.values[-half:]
    change = statistics.median(last) / statistics.median(first) - 1
    if abs(change) > DRIFT and (max(first) < min(last) or max(last) < min(first)):
        yield change
