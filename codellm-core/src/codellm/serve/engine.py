"""One thread that owns a model and drives a live run over a queue: requests join and leave between its steps.

Where work waits that needs the model for itself, nothing that came later joins until the run has ended and it is done.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from typing import Any

from codellm.errors import BackendError, CodellmError, QueueFullError, StoppingError, message
from codellm.generation import Event, complete
from codellm.model import Model
from codellm.sequence import Sequence
from codellm.serve.job import Job
from codellm.serve.tally import Tally
from codellm.serve.work import Work
from codellm.slots import ended

_STOPPING = "the server is stopping; ask again later"


class Engine:
    """Runs what `submit` brings on `model`, and does what `perform` brings, whose thread it is from `start` to `join`.

    `capacity` is how many sequences may wait for a slot, and works for their turn; `tally` counts what becomes of them.
    """

    def __init__(self, model: Model, capacity: int, tally: Tally | None = None) -> None:
        self.model = model
        self._capacity, self._tally = capacity, tally or Tally()
        self._thread = threading.Thread(target=self._work, name="codellm-engine", daemon=True)
        self._changed = threading.Condition()  # held by whoever reads or writes what stands below
        self._waiting: deque[Sequence | Work[Any]] = deque()  # whoever came first is first: nobody starves
        self._running: set[Sequence] = set()
        self._jobs: dict[Sequence, Job] = {}
        self._stopping = False

    def start(self) -> None:
        """Begin to run what is submitted."""
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue the sequences of a job: all of them, or none.

        A job that is larger than the queue is taken where nothing waits.

        Raises:
            QueueFullError: too many wait.
            StoppingError: `stop` was called.
        """
        with self._changed:
            self._queue(job.sequences)
            self._jobs.update(dict.fromkeys(job.sequences, job))

    def perform(self, works: Seq[Work[Any]]) -> None:
        """Queue what is to be done while nothing runs: all of it, or nothing.

        Raises:
            QueueFullError: too many wait.
            StoppingError: `stop` was called.
        """
        with self._changed:
            self._queue(works)

    def _queue(self, items: Seq[Sequence] | Seq[Work[Any]]) -> None:
        if self._stopping:
            raise StoppingError(_STOPPING)
        if self._waiting and len(self._waiting) + len(items) > self._capacity:
            raise QueueFullError(f"{len(self._waiting)} sequences wait for the model already; ask again later")
        self._waiting.extend(items)
        self._changed.notify_all()

    def cancel(self, job: Job) -> None:
        """Forget a job: what waits never runs, what runs leaves its slot within two steps. It may have ended."""
        with self._changed:
            for sequence in job.sequences:
                if self._jobs.pop(sequence, None) is not None:
                    sequence.cancel()
                    self._running.discard(sequence)
            self._waiting = deque(one for one in self._waiting if isinstance(one, Work) or not one.finished)

    def give_up(self, works: Seq[Work[Any]], error: Exception) -> None:
        """Forget works, whose results nobody wants: what waits is never done. They may be done already."""
        with self._changed:
            self._waiting = deque(one for one in self._waiting if one not in works)
        for work in works:
            work.fail(error)

    def stop(self) -> None:
        """Take no more jobs; the thread ends once those that it has are done."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def abort(self) -> None:
        """Stop, and end every job that is not done with an error."""
        self.stop()
        with self._changed:
            jobs = set(self._jobs.values())
            works = [one for one in self._waiting if isinstance(one, Work)]
        error = StoppingError("the server stopped before this request was done")
        self.give_up(works, error)
        for job in jobs:
            self.cancel(job)
            job.post(error)

    def join(self, timeout: float) -> bool:
        """Wait for the thread, at most `timeout` seconds; whether it has ended, and the model can be closed."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def counts(self) -> tuple[int, int]:
        """How many sequences run, and how many wait."""
        with self._changed:
            return len(self._running), len(self._waiting)

    def _work(self) -> None:
        while (first := self._first()) is not None:
            if isinstance(first, Work):
                first.perform(self.model)
                continue
            try:
                for event in complete(self.model, self._live(), live=True):
                    self._tell(event)
            except Exception as error:  # a run that failed is the end of what ran, not of the server
                self._fail(error)

    def _first(self) -> Sequence | Work[Any] | None:
        """What is to be run next, or to be done, which is then taken; blocks until it is known, None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            first = self._waiting[0] if self._waiting else None
            return self._waiting.popleft() if isinstance(first, Work) else first

    def _live(self) -> Iterator[Sequence | None]:
        """The queue as a live iterable: blocks where nothing runs, and ends before work, and where the server stops."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping or self._busy())
                first = self._waiting[0] if self._waiting else None
                sequence: Sequence | None = None
                if isinstance(first, Sequence):
                    sequence = first
                    self._waiting.popleft()
                    self._running.add(sequence)
                    self._tally.begin(sequence, self._jobs[sequence].arrived)
                elif not self._busy():
                    return
            yield sequence

    def _busy(self) -> bool:
        """Whether what was given out still runs: a backend knows of an end, and of its own errors, before core does."""
        return any(not ended(sequence) for sequence in self._running)

    def _tell(self, event: Event) -> None:
        if event.result is None:
            if (event.text or event.logprobs) and (job := self._jobs.get(event.sequence)) is not None:
                job.post(event)
            return
        self._tally.end(event.sequence, event.result)
        with self._changed:
            job = self._jobs.pop(event.sequence, None)
            self._running.discard(event.sequence)
        if job is not None:
            job.post(event)

    def _fail(self, error: Exception) -> None:
        """End what ran with `error`, or the first that waits where the run failed before it took any."""
        self._tally.fail()
        told = error if isinstance(error, CodellmError) else BackendError(f"the run failed: {message(error)}")
        with self._changed:
            waiting = (one for one in self._waiting if isinstance(one, Sequence))
            failed = self._running or set(itertools.islice(waiting, 1))
            jobs = {job for sequence in failed if (job := self._jobs.get(sequence)) is not None}
        for job in jobs:
            self.cancel(job)
            job.post(told)
        with self._changed:
            self._running.clear()
