"""Progress on stderr: one changing line on a terminal, a line for each finished row or cell elsewhere."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.status import Status


class Progress:
    """A context manager; `phase` and `done` say how far the benchmark is."""

    def __init__(self, count: int) -> None:
        import rich.console

        self._console = rich.console.Console(stderr=True, highlight=False, markup=False)
        self._count = count
        self._stack = contextlib.ExitStack()
        self._status: Status | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._status = self._stack.enter_context(self._console.status("", refresh_per_second=4))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def phase(self, number: int, what: object, text: str) -> None:
        """Say that `what`, a row or a cell with this `number` (from 1), now does `text`."""
        if self._status is not None:
            from rich.text import Text

            self._status.update(Text(f"{number}/{self._count} {what}: {text}"))

    def done(self, number: int, what: object, text: str, seconds: float | None) -> None:
        """Say that `what` has ended: `text` says how."""
        self._console.print(f"{number}/{self._count} {what}: {text} ({seconds or 0:.0f} s)", soft_wrap=True)
