"""What the process of a row tells its parent: one JSON object a line, on a pipe of its own.

`{"phase": TEXT}` what begins now; `{"fields": {…}}` fields of the row's Record that are known now; `{"gap": COLUMN,
"cell": …, "note": …}` a cell that stays empty; `{"error": TEXT}` the end of a row that failed; `{"done": true}` the
end of one that did not. A library that prints to stdout or stderr disturbs none of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import traceback
from collections.abc import Iterator
from typing import Any

from codellm.errors import CodellmError, message


class Report:
    """The way to the parent."""

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)  # what this process starts must not hold the pipe open
        self._file = os.fdopen(fd, "w", encoding="utf-8")

    def send(self, **event: Any) -> None:
        """Send one event, a line of JSON."""
        print(json.dumps(event), file=self._file, flush=True)

    def phase(self, text: str) -> None:
        """Say what begins now."""
        self.send(phase=text)

    def fields(self, **fields: Any) -> None:
        """Give fields of the Record, as JSON."""
        self.send(fields=fields)

    def gap(self, column: str, cell: str, note: str) -> None:
        """Say why a cell stays empty."""
        self.send(gap=column, cell=cell, note=note)

    @contextlib.contextmanager
    def gap_on_error(self, *columns: str) -> Iterator[None]:
        """An error inside leaves `columns` empty, each with the reason, and nothing else."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            for column in columns:
                self.gap(column, "failed", explain(error))


def explain(error: BaseException) -> str:
    """An error as one line: our own as they are, others with their type."""
    text, name = message(error), type(error).__name__
    return text if isinstance(error, CodellmError) or text == name else f"{name}: {text}"
