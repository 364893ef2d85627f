"""The cells of a row in processes of their own: one that dies takes its cell along and no other."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import cattrs

from codellm_eval.bench.process.child_process import ChildProcess, Deadline, Voice
from codellm_eval.grid.cell import Cell, converter
from codellm_eval.grid.job import GridJob, Stage
from codellm_eval.grid.plan import Size

MODULE = "codellm_eval.grid"


@attrs.define
class RowOfCells:
    """Measures the cells of one row, each for at most `timeout` seconds.

    `on_cell` takes each as it is finished; `on_phase` is told what of which size begins.
    """

    job: GridJob
    timeout: float
    on_cell: Callable[[Cell], None]
    on_phase: Callable[[Size, str], None]

    def run(self) -> None:
        """Have what the row needs on disk, then measure all its cells.

        KeyboardInterrupt passes through, after the child was ended.
        """
        left = self.job.sizes
        reason = self._stage("prepare", left)[1]
        if reason is not None:
            for size in left:
                self.on_cell(self.job.failed(size, reason))
            return
        while left:
            left, reason = self._stage("measure", left)
            if reason is not None and left:
                self.on_cell(self.job.failed(left[0], reason))
                left = left[1:]

    def _stage(self, stage: Stage, sizes: tuple[Size, ...]) -> tuple[tuple[Size, ...], str | None]:
        """Run one process → the cells that it left, and why it did not get to the end of what it had begun."""
        job = attrs.evolve(self.job, stage=stage, sizes=sizes)
        listener = _Listener(self, list(sizes))
        voice, deadline = listener.voice, Deadline(self.timeout)
        with ChildProcess(MODULE, converter().unstructure(job)) as child:
            try:
                for pipe, data in child.read(deadline, lambda pid: None):
                    if pipe is child.output:
                        voice.note(data)
                    elif listener.hear(data):
                        deadline.extend()
                reason = listener.error
                if reason is None and not listener.ended:
                    reason = voice.death(child.exit_code)
            except TimeoutError:
                reason = voice.overdue(self.timeout)
            except (ValueError, TypeError, KeyError, cattrs.BaseValidationError) as error:
                reason = f"the row's process reported something unreadable: {error}"
        return tuple(listener.left), reason


@attrs.define
class _Listener:
    """What a child has told so far; `left` are the cells that it has not."""

    row: RowOfCells
    left: list[Size]
    voice: Voice = attrs.field(factory=Voice)
    error: str | None = None
    ended: bool = False

    def hear(self, data: bytes) -> bool:
        """Take bytes of the event pipe; whether a cell was finished."""
        finished = False
        for event in self.voice.events(data):
            if "phase" in event:
                self.row.on_phase(self.left[0], event["phase"])
            elif "cell" in event:
                cell = converter().structure(event["cell"], Cell)
                self.left.remove(cell.size)
                self.row.on_cell(cell)
                finished = True
            elif "error" in event:
                self.error = event["error"]
            elif "done" in event:
                self.ended = True
        return finished
