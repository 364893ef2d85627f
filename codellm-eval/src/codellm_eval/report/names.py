"""What rows are called in a picture: short, all different, and of characters that can be drawn."""

from __future__ import annotations

from collections.abc import Sequence

from codellm_eval.bench.ask.row import Row

LONGEST = 26
"""Characters of a name in a picture; the tables have the whole ones."""


def short_names(rows: Sequence[Row], longest: int = LONGEST) -> list[str]:
    """A name for each of `rows`: without the backend, which its colour tells, and cut in the middle where it is long.

    Of a backend's names that are equal then, each gets its number in the table, from 1.
    """
    names = [(row.backend, shorten(_without_backend(row), longest)) for row in rows]
    return [
        name[1] if names.count(name) == 1 else f"{shorten(name[1], longest - 4)} #{number}"
        for number, name in enumerate(names, 1)
    ]


def _without_backend(row: Row) -> str:
    return str(row).removeprefix(row.backend).strip(":") or row.backend


def shorten(name: str, longest: int) -> str:
    """Cut `name` to its beginning and end where it has more than `longest` characters."""
    if len(name) <= longest:
        return name
    tail = (longest - 1) // 2
    return f"{name[: longest - 1 - tail]}…{name[-tail:]}"
