"""Process of its own for each row: whatever happens there, its Record says so."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import attrs

from codellm_eval.bench.ask.job import Job
from codellm_eval.bench.process.child_process import ChildProcess, Deadline, Voice
from codellm_eval.bench.records.failure import failed
from codellm_eval.bench.records.record import Gap, Record, make_converter, merge
from codellm_eval.bench.records.resident import Resident, resident

MODULE = "codellm_eval.bench.measure"
"""What is run there."""


@attrs.define
class Listener:
    """What a child has told so far."""

    record: Record
    on_phase: Callable[[str], None]
    voice: Voice = attrs.field(factory=Voice)
    ended: bool = False
    held: Resident | None = None
    """The most that the child held until its speed was measured."""
    _converter: Any = attrs.field(factory=make_converter)

    def hear(self, data: bytes) -> None:
        """Take bytes of the event pipe."""
        for event in self.voice.events(data):
            self._take(event)

    def look(self, pid: int) -> None:
        """See what the child holds, as long as that is asked."""
        if self.record.host_peak is None and (held := resident(pid)) is not None:
            self.held = held.most(self.held)

    def _take(self, event: dict[str, Any]) -> None:
        if "phase" in event:
            self.on_phase(event["phase"])
        elif "fields" in event:
            self.record = merge(self.record, event["fields"], self._converter)
        elif "gap" in event:
            self.record = self.record.with_gap(event["gap"], Gap(event["cell"], event["note"]))
        elif "error" in event:
            self.record = failed(self.record, event["error"])
            self.ended = True
        elif "done" in event:
            self.ended = True


def run_row(job: Job, timeout: float, on_phase: Callable[[str], None] = lambda phase: None) -> Record:
    """Measure one row, for at most `timeout` seconds; the Record says why where it failed.

    What it needs on disk is made by a process before it. KeyboardInterrupt passes through, after the child was ended.
    """
    start, deadline = time.monotonic(), Deadline(timeout)
    record = Record(row=job.row, model=job.model)
    for stage in ("prepare", "measure"):
        if record.error is None:
            record = _run_stage(attrs.evolve(job, stage=stage), record, deadline, on_phase)
    return attrs.evolve(record, seconds=time.monotonic() - start)


def _run_stage(job: Job, record: Record, deadline: Deadline, on_phase: Callable[[str], None]) -> Record:
    listener = Listener(record, on_phase)
    voice = listener.voice
    with ChildProcess(MODULE, make_converter().unstructure(job)) as child:
        try:
            for pipe, data in child.read(deadline, listener.look):
                (listener.hear if pipe is child.events else voice.note)(data)
            reason = None if listener.ended else voice.death(child.exit_code)
        except TimeoutError:
            reason = voice.overdue(deadline.seconds)
        except (ValueError, TypeError) as error:
            reason = f"the row's process reported something unreadable: {error}"
    record = listener.record.at_least(listener.held) if job.stage == "measure" else listener.record
    return record if reason is None else failed(record, reason)
