"""What of a row's own measurements speaks against its figures. They stay, with a mark and the reason beside them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import attrs

from codellm_eval.bench.records import figures
from codellm_eval.bench.records.figure import Value
from codellm_eval.bench.records.figures import DECODE, PREFILL, REQUEST, TPOT, TTFT
from codellm_eval.bench.records.record import Record
from codellm_eval.stats.repeats import Repeats

CACHED = 0.6
"""A prompt given again keeps at least this share of its time where nothing is remembered, in one of several repeats."""
HELD_BACK = 0.5
"""The share of a tg request's time before its first token, from which on the others came too fast after it."""
FEW = 16
"""New tokens below which that share says nothing: the first of two is half of them."""
DRIFT = 0.1
"""How much the first repeats may differ from the last."""


@attrs.frozen
class Doubt:
    """What speaks against the figures in `columns` of the first table, in one sentence."""

    name: str
    text: str
    columns: tuple[str, ...]


def doubts(record: Record) -> list[Doubt]:
    """What the checks found; empty where nothing is wrong."""
    return [*_prompt_cache(record), *_held_back(record), *_drift(record)]


def _prompt_cache(record: Record) -> Iterator[Doubt]:
    again = record.repeated_prompt
    if again is not None and len(again.values) > 1 and max(again.values) < CACHED:
        asked = record.plan is not None and record.plan.task is not None
        told = "mostly of that" if asked else "of prompts that it never saw, and a user's may be better"
        text = (
            f"a prompt given twice took {100 * again.median:.0f} % of its time the second time, so this backend keeps "
            f"what it computed; the figures are {told}"
        )
        against = (PREFILL, TTFT, REQUEST) if asked else (PREFILL, TTFT)
        yield Doubt("prompt_cache", text, tuple(figure.key for figure in against))


def _held_back(record: Record) -> Iterator[Doubt]:
    share, plan = record.first_share, record.plan
    if share is not None and plan is not None and plan.new_tokens >= FEW and share.median > HELD_BACK:
        text = (
            f"{100 * share.median:.0f} % of the time of {plan.new_tokens} tokens passed before the first of them, "
            "after a prompt of one: either a request starts slowly, or tokens are computed ahead and given out late, "
            f"and then tg{plan.new_tokens}, TPOT and ITL are no speed of decoding"
        )
        yield Doubt("held_back", text, (DECODE.key, TPOT.key))


def _drift(record: Record) -> Iterator[Doubt]:
    plan = record.plan
    if plan is None:
        return
    found = {
        figure.key: f"{figure.head(plan)[0]} by {100 * change:+.0f} %"
        for figure in figures.FIGURES
        if figure.watched
        for change in _changes(figure.value(record))
    }
    if found:
        text = (
            f"from its first repeats to its last it changed: {', '.join(found.values())}; the machine got warm, "
            "something else began or ceased to use it, or the backend gets slower; measure again, with more --repeats"
        )
        yield Doubt("drift", text, tuple(found))


def _changes(repeats: Value) -> Iterator[float]:
    """The change from the first half of `repeats` to the last, where it is beyond DRIFT and their values do not mix."""
    half = len(repeats.values) // 2 if isinstance(repeats, Repeats) else 0
    if not isinstance(repeats, Repeats) or half < 2:
        return
    first, last = repeats.values[:half], repeats.values[-half:]
    change = statistics.median(last) / statistics.median(first) - 1
    if abs(change) > DRIFT and (max(first) < min(last) or max(last) < min(first)):
        yield change
