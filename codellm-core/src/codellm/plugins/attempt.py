"""Running a plugin's code so that nothing it does hurts anybody else."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from codellm.plugins.entry_points import Entry
from codellm.plugins.exits import no_exit
from codellm.plugins.watch import watched

T = TypeVar("T")


class Attempt(NamedTuple, Generic[T]):
    """What came of running a plugin's code: its value or its error, how long it took, what it printed."""

    value: T | None
    error: BaseException | None
    seconds: float
    printed: str


def attempt(work: Callable[[], T], entry: Entry | None) -> Attempt[T]:
    """Run the code of `entry`, where it is known whose it is, inside a guard.

    What it prints to stdout is caught: people pipe a command's result.
    """
    # not a StringIO, which has no `buffer` to write bytes to
    caught_bytes = io.BytesIO()
    stdout = io.TextIOWrapper(caught_bytes, encoding="utf-8", errors="replace", write_through=True)
    value: T | None = None
    caught: BaseException | None = None
    start = time.perf_counter()
    watch = watched(entry) if entry is not None else contextlib.nullcontext()
    try:
        with contextlib.redirect_stdout(stdout), watch, no_exit():
            value = work()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too, and what a plugin derives from BaseException itself
        caught = error
    seconds = time.perf_counter() - start
    printed = "" if caught_bytes.closed else caught_bytes.getvalue().decode(errors="replace")
    return Attempt(value, caught, seconds, printed)
