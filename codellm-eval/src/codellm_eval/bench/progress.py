"""Progress on stderr: one changing line on a terminal, a line for each finished row elsewhere."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import TYPE_CHECKING, Self

from codellm_eval.bench.figures import significant
from codellm_eval.bench.record import Record
from codellm_eval.bench.row import Row

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

    def phase(self, number: int, row: Row, text: str) -> None:
        """Row `number` (from 1) now does `text`."""
        if self._status is not None:
            from rich.text import Text

            self._status.update(Text(f"{number}/{self._count} {row}: {text}"))

    def done(self, number: int, record: Record) -> None:
        """Row `number` has ended."""
        if record.prefill is None or record.decode is None:
            what = f"failed: {record.error}"
        else:
            what = f"{significant(record.prefill.median)} tok/s prefill, {significant(record.decode.median)} decode"
        self._console.print(
            f"{number}/{self._count} {record.row}: {what} ({record.seconds or 0:.0f} s)", soft_wrap=True
        )
