"""Judging beside generation: a program that takes its time holds up no token."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Self

import attrs

from codellm.system.machine import usable_threads
from codellm_eval.humaneval.samples import Sample
from codellm_eval.humaneval.scoring import judge_samples
from codellm_eval.judge.isolation import Sandbox
from codellm_eval.judge.judge import Verdict
from codellm_eval.judge.limits import Limits
from codellm_eval.judge.problem import Problem


@attrs.frozen
class JudgeSetup:
    """Where samples are judged, what a program may use there, and how many at a time were `asked` for, if any were."""

    sandbox: Sandbox
    limits: Limits
    asked: int | None = None

    def workers(self, *, beside_model: bool) -> int:
        """Programs at a time: as asked, else one for each thread; a model that generates keeps half of them."""
        return self.asked or max(1, usable_threads() // (2 if beside_model else 1))


class Judging:
    """A thread that judges the samples handed to it, in their order, and tells `take` of each verdict.

    Used as a context manager; leaving it by an exception drops what is not judged yet.
    """

    def __init__(
        self,
        problems: Mapping[str, Problem],
        setup: JudgeSetup,
        workers: int,
        take: Callable[[Sample, Verdict], None],
    ) -> None:
        self._problems, self._setup, self._workers, self._take = problems, setup, workers, take
        self._waiting: queue.SimpleQueue[Sample | None] = queue.SimpleQueue()
        self._dropped = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="judging")

    def hand(self, sample: Sample) -> None:
        """Have a sample judged.

        Raises:
            SandboxError: the sandbox broke, on an earlier sample.
        """
        self._complain()
        self._waiting.put(sample)

    def finish(self) -> None:
        """Wait until every sample is judged.

        Raises:
            SandboxError: the sandbox broke.
        """
        self._waiting.put(None)
        self._thread.join()
        self._complain()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._dropped.set()
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        handed, sandbox, limits = self._handed(), self._setup.sandbox, self._setup.limits
        stream = judge_samples(handed, self._problems, sandbox=sandbox, limits=limits, workers=self._workers)
        try:
            with contextlib.closing(stream) as judged:
                for sample, verdict in judged:
                    self._take(sample, verdict)
        except _DroppedError:
            pass
        except BaseException as error:  # raised again where the samples come from
            self._error = error

    def _handed(self) -> Iterator[Sample]:
        while True:
            sample = self._waiting.get()
            if self._dropped.is_set():
                raise _DroppedError
            if sample is None:
                return
            yield sample

    def _complain(self) -> None:
        if self._error is not None:
            raise self._error


class _DroppedError(Exception):
    """End of work because nobody waits for verdicts any more."""
