"""What long work tells the person who waits for it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much is done, and how much there is; a total of 0 is a remark, with nothing to do."""


def quiet(what: str, done: int, total: int) -> None:
    """A progress callback that says nothing."""


def tell_licence(name: str, licence: str | None, progress: Progress) -> None:
    """Remark on the licence of a model of which a copy is being made."""
    if licence:
        progress(f"licence of {name}: {licence}", 0, 0)
