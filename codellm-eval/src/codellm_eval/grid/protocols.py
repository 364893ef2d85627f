"""The two ways to measure a cell: with the cache of keys and values, and as the study before this project did."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from codellm.errors import BackendError
from codellm_eval.bench.measure import clock
from codellm_eval.bench.measure.prompt import RandomPrompts
from codellm_eval.bench.measure.requests import requests
from codellm_eval.bench.records.checks import CACHED
from codellm_eval.grid.plan import LEAST_CHUNK, GridPlan, Size
from codellm_eval.stats.repeats import Repeats

if TYPE_CHECKING:
    from codellm.generation import Event
    from codellm.model import Model

Phase = Callable[[str], None]


def measure(
    model: Model, size: Size, plan: GridPlan, phase: Phase, resolution: Callable[[], float] = clock.resolution
) -> dict[str, Repeats]:
    """The figures of a cell, by the names of Cell's fields; `resolution` tells the smallest step of the clock.

    Raises:
        BackendError: the model lied about its tokens, its sequences do not run together, or what it did was too short
            for the clock.
        NotEnoughMemoryError: the memory does not suffice.
    """
    if model.info.batch_size < size.batch_size:
        raise BackendError(
            f"{model.info.backend} runs {model.info.batch_size} sequences together, not {size.batch_size}"
        )
    prompts = RandomPrompts(model.tokenizer, plan.seed)
    drawn = iter(lambda: [prompts.draw(size.context) for _ in range(size.batch_size)], None)
    figures = (cached if plan.protocol == "cached" else seed)(model, drawn, plan, plan.room(size), phase)
    step = resolution()
    for repeats in figures.values():
        clock.check(step, repeats.values)
    return figures


def cached(
    model: Model, batches: Iterator[list[list[int]]], plan: GridPlan, room: int, phase: Phase
) -> dict[str, Repeats]:
    """Measure prefill and decode, each of prompts of its own; the two take turns after a warm-up of both.

    They are apart since sequences that have their first token would generate while the prompts of others are computed.
    """
    phase("warm-up")
    _decode_seconds(model, next(batches), plan.new_tokens, room)
    prefill, decode = [], []
    for repeat in range(plan.repeats):
        phase(f"prefill {repeat + 1}/{plan.repeats}")
        prefill.append(_prefill_seconds(model, next(batches)))
        phase(f"decode {repeat + 1}/{plan.repeats}")
        decode.append(_decode_seconds(model, next(batches), plan.new_tokens, room))
    return {"prefill": Repeats(tuple(prefill)), "decode": Repeats(tuple(decode))}


def seed(model: Model, batches: Iterator[list[list[int]]], plan: GridPlan, _: int, phase: Phase) -> dict[str, Repeats]:
    """Measure each token by a pass over the prompt and all tokens before it; the warm-up is one pass.

    Raises:
        BackendError: later passes were so much faster that the model must have kept what the earlier ones computed.
    """
    phase("warm-up")
    _prefill_seconds(model, next(batches))
    runs = []
    for repeat in range(plan.repeats):
        phase(f"run {repeat + 1}/{plan.repeats}")
        runs.append(_passes(model, next(batches), plan.new_tokens))
    if all(statistics.median(later) < CACHED * first for first, *later in runs):
        raise BackendError(
            f"{model.info.backend} took less than {100 * CACHED:.0f} % of the first pass's time for the later ones, so "
            "it keeps what it computed, and the protocol seed is that of a model which does not"
        )
    return {"token": Repeats(tuple(sum(run) / len(run) for run in runs))}


def _prefill_seconds(model: Model, prompts: list[list[int]]) -> float:
    """Seconds from the start until every sequence has its first token."""
    results = requests(model, prompts, 1)
    return max(each.timing.token_times[0] for each in results) - results[0].timing.start


def _passes(model: Model, prompts: list[list[int]], count: int) -> list[float]:
    """Seconds of each of `count` passes, which give every sequence a token that the next pass begins with."""
    seconds = []
    for _ in range(count):
        results = requests(model, prompts, 1)
        seconds.append(max(each.timing.token_times[0] for each in results) - results[0].timing.start)
        prompts = [[*prompt, *result.token_ids] for prompt, result in zip(prompts, results, strict=True)]
    return seconds


def _decode_seconds(model: Model, prompts: list[list[int]], steps: int, room: int) -> float:
    """Seconds of a step: from when every sequence has its first token until each has `steps` more.

    Those that have theirs early go on meanwhile, each to at most `room` tokens: all run in every step that counts.

    Raises:
        BackendError: a sequence ended before.
    """
    from codellm.generation import complete, new_sequence
    from codellm.sampling import SamplingParams

    params = SamplingParams(max_tokens=room, ignore_eos=True)
    sequences = [new_sequence(model, prompt, params) for prompt in prompts]
    missing = dict.fromkeys(sequences, 1)
    begin: float | None = None
    with contextlib.closing(complete(model, sequences)) as events:
        for event in events:
            missing[event.sequence] -= 1
            if max(missing.values()) <= 0:
                now = time.perf_counter()
                if begin is not None:
                    return (now - begin) / steps
                begin, missing = now, dict.fromkeys(sequences, steps)
            _see_running(model, event)
    raise BackendError(f"{model.info.backend} ended its run before it gave {steps} tokens of each sequence")


def _see_running(model: Model, event: Event) -> None:
    result = event.result
    if result is None:
        return
    if result.error is not None:
        raise result.error
    raise BackendError(
        f"{model.info.backend}: a sequence was at its end after {len(result.token_ids)} tokens, before others had "
        "theirs, so they do not run together, and a time of a step would be none of a batch; where prompts are "
        f"computed in pieces of fewer than {LEAST_CHUNK} tokens, take larger ones"
    )
