"""One thread that owns a model and drives one live run over a queue: requests join and leave between its steps."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Iterator

from codellm.errors import BackendError, CodellmError, QueueFullError, StoppingError, message
from codellm.generation import Event, complete
from codellm.model import Model
from codellm.sequence import Sequence
from codellm.serve.job import Job
from codellm.serve.tally import Tally
from codellm.slots import ended

_STOPPING = "the server is stopping; ask again later"


class Engine:
    """Runs what `submit` brings on `model`, whose thread it is from `start` to `join`.

    `capacity` is how many sequences may wait for a slot; `tally` counts what becomes of them.
    """

    def __init__(self, model: Model, capacity: int, tally: Tally | None = None) -> None:
        self.model = model
        self._capacity, self._tally = capacity, tally or Tally()
        self._thread = threading.Thread(target=self._work, name="codellm-engine", daemon=True)
        self._changed = threading.Condition()  # held by whoever reads or writes what stands below
        self._waiting: deque[Sequence] = deque()
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
            if self._stopping:
                raise StoppingError(_STOPPING)
            if self._waiting and len(self._waiting) + len(job.sequences) > self._capacity:
                raise QueueFullError(f"{len(self._waiting)} sequences wait for the model already; ask again later")
            self._waiting.extend(job.sequences)
            self._jobs.update(dict.fromkeys(job.sequences, job))
            self._changed.notify_all()

    def cancel(self, job: Job) -> None:
        """Forget a job: what waits never runs, what runs leaves its slot within two steps. It may have ended."""
        with self._changed:
            for sequence in job.sequences:
                if self._jobs.pop(sequence, None) is not None:
                    sequence.cancel()
                    self._running.discard(sequence)
            self._waiting = deque(one for one in self._waiting if not one.finished)

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
        for job in jobs:
            self.cancel(job)
            job.post(StoppingError("the server stopped before this request was done"))

    def join(self, timeout: float) -> bool:
        """Wait for the thread, at most `timeout` seconds; whether it has ended, and the model can be closed."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def counts(self) -> tuple[int, int]:
        """How many sequences run, and how many wait."""
        with self._changed:
            return len(self._running), len(self._waiting)

    def _work(self) -> None:
        while not self._done():
            try:
                for event in complete(self.model, self._live(), live=True):
                    self._tell(event)
            except Exception as error:  # a run that failed is the end of what ran, not of the server
                self._fail(error)

    def _done(self) -> bool:
        """Whether there is nothing to run, now or later; blocks until that is known."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            return not self._waiting

    def _live(self) -> Iterator[Sequence | None]:
        """The queue as a live iterable: blocks where nothing runs, and ends when the server stops and nothing waits."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping or self._busy())
                if self._waiting:
                    sequence = self._waiting.popleft()
                    self._running.add(sequence)
                    self._tally.begin(sequence, self._jobs[sequence].arrived)
                elif self._busy():
                    sequence = None
                else:
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
            failed = self._running or set(itertools.islice(self._waiting, 1))
            jobs = {job for sequence in failed if (job := self._jobs.get(sequence)) is not None}
        for job in jobs:
            self.cancel(job)
            job.post(told)
        with self._changed:
            self._running.clear()
