"""How many threads decode: found by a short measurement where the user names none, and kept for the machine.

A sequence alone is bound by memory, which a few cores often use up; more threads then only wait for each other. What a
core can read is one thing, what it can unpack on the way another: so the model's own decode is timed, and not a plain
read. Prompts and batches are bound by arithmetic, and always take every physical core.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from codellm.system import machine
from codellm.system.cache import Memo

_WORSE = 1.05
"""The fewest threads are taken whose step takes at most this many times the shortest."""
_SECONDS = 0.2
"""For each number of threads, or one step of a model that takes longer."""
_CALM = 0.85
"""The share of their processors that the threads must have had. Below it others were at work here, and what was
measured is theirs too: then it is not kept, and the physical cores are taken this time."""


def decode_threads(kind: str, most: int, measure: Callable[[int], int | None]) -> int:
    """The threads for one sequence of a model: as measured before with a model of the same `kind`, else now.

    `measure` finds them among at most so many, or gives None where it cannot tell.
    """
    memo, key = Memo("threads.json"), _key(kind, most)
    kept = memo.read().get(key, "")
    if kept.isdecimal() and 1 <= int(kept) <= most:
        return int(kept)
    chosen = measure(most) if most > 1 else None
    if chosen is None:
        return most
    memo.keep({key: str(chosen)})
    return chosen


def model_kind(scheme: str, weight_bytes: int) -> str:
    """Models that want as many threads: of the same scheme, and of a size between the same powers of two."""
    return f"{scheme} of {2 ** weight_bytes.bit_length()} bytes"


def fewest(
    step: Callable[[], object],
    use: Callable[[int], None],
    most: int,
    wall: Callable[[], float] = time.perf_counter,
    processors: Callable[[], float] = time.process_time,
) -> int | None:
    """The fewest threads within 5 % of the best; None where others were busy on this machine.

    `step` computes a token, `use` sets how many threads do. Tried are `most` and its halves, until one is worse: fewer
    still are then worse too.
    """
    use(most)
    step()  # reads the file, where it is not in memory
    shortest: dict[int, float] = {}
    threads = most
    while threads:
        use(threads)
        began, used, shortest[threads] = wall(), processors(), math.inf
        while (start := wall()) - began < _SECONDS:
            step()
            shortest[threads] = min(shortest[threads], wall() - start)
            spent = wall() - began
            if spent > _SECONDS / 10 and processors() - used < _CALM * threads * spent:
                return None  # at once: where others are at work, a step may take seconds
        if shortest[threads] > _limit(shortest):
            break
        threads //= 2
    return min(each for each, seconds in shortest.items() if seconds <= _limit(shortest))


def _limit(shortest: dict[int, float]) -> float:
    return _WORSE * min(shortest.values())


def _key(kind: str, most: int) -> str:
    return f"{machine.cpu_name()} | {most} of {machine.usable_threads()} threads | {kind}"
