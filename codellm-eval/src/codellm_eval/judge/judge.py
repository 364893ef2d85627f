"""Whether completions solve their problems.

The test of a problem never meets the program: a checker runs it outside of the sandbox and asks the program inside for
answers, so no expected value can be read and no pass can be claimed. `harness` holds the processes; this is their head.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import Generic, Literal, TypeVar

import attrs

from codellm_eval.errors import ProblemsError, SandboxError
from codellm_eval.judge import installed
from codellm_eval.judge.isolation import Sandbox
from codellm_eval.judge.limits import Limits
from codellm_eval.judge.problem import Problem
from codellm_eval.judge.worker_process import WorkerProcess

Outcome = Literal["passed", "failed", "timeout", "memory", "crash", "refused"]
Key = TypeVar("Key")

CONTROL = Problem(
    task_id="control",
    prompt="def add(a, b):\n",
    entry_point="add",
    canonical_solution="    return a + b\n",
    test="def check(candidate):\n    assert candidate(1, 2) == 3\n",
)
_KNOWN: tuple[tuple[str, Outcome], ...] = ((CONTROL.canonical_solution, "passed"), ("    return 4\n", "failed"))
_UNCONFINED = "D"
"""The level at which a program sees all that there is."""
_CONTROL_INTERVAL = 250
"""Samples of a worker between two looks at whether it still knows right from wrong."""
_MAX_ATTEMPTS = 3
"""At one sample; a sandbox that fails says nothing about it."""
_MAX_FAILURES = 5
"""Of the sandbox in one run, which then ends."""
_AHEAD = 2
"""Samples that a worker holds, so that it never waits for the next."""


@attrs.frozen
class Verdict:
    """Outcome of one check: `seconds` are its wall-clock time, `message` says in one line why it did not pass.

    The outcomes: `failed` by the test or an exception, `timeout`, out of `memory`, `crash` by a signal, and `refused`
    for an answer that is not of the protocol.
    """

    outcome: Outcome
    message: str
    seconds: float
    isolation: str = ""
    """The level of the sandbox."""

    @property
    def passed(self) -> bool:
        """Whether the test came to its end, having called the program."""
        return self.outcome == "passed"


@attrs.frozen
class Program:
    """A whole program, judged as it is and not after the prompt."""

    text: str


@attrs.define(eq=False)
class _Task(Generic[Key]):
    problem: Problem
    completion: str | Program
    key: Key | None = None
    expected: Outcome | None = None
    """Of a control; its verdict goes to nobody."""
    known: str = ""
    """What a control is."""
    attempts: int = 0


def judge(problem: Problem, completion: str | Program, *, sandbox: Sandbox, limits: Limits) -> Verdict:
    """Judge one completion in a worker of its own.

    Raises:
        SandboxError: the sandbox failed, which says nothing about the completion.
        ProblemsError: the problem is no Python.
    """
    [(_, verdict)] = judge_all([(None, problem, completion)], sandbox=sandbox, limits=limits, workers=1)
    return verdict


def judge_all(
    jobs: Iterable[tuple[Key, Problem, str | Program]], *, sandbox: Sandbox, limits: Limits, workers: int
) -> Generator[tuple[Key, Verdict], None, None]:
    """Judge each (key, problem, completion), `workers` at a time, and yield (key, verdict) as they come.

    `jobs` is pulled when a worker is free, so that it may still be generating. Dropping the iterator ends what runs.

    Raises:
        SandboxError: the sandbox fails again and again, or no longer knows a right program from a wrong one.
        ProblemsError: a problem is no Python.
    """
    crew: _Crew[Key] = _Crew(sandbox, limits, workers)
    try:
        for key, problem, completion in jobs:
            crew.add(_Task(problem, completion, key))
            yield from crew.finished(until=_AHEAD * workers)
        yield from crew.finished(until=1)
    finally:
        crew.close()


class _Crew(Generic[Key]):
    """The workers of one run and the tasks that they hold."""

    def __init__(self, sandbox: Sandbox, limits: Limits, workers: int) -> None:
        self._sandbox, self._limits, self._size = sandbox, limits, workers
        self._waiting: deque[_Task[Key]] = deque()
        self._held: dict[WorkerProcess, deque[_Task[Key]]] = {}
        self._judged: dict[WorkerProcess, int] = {}
        self._failures = 0

    def add(self, task: _Task[Key]) -> None:
        """Take a task."""
        self._waiting.append(task)
        self._hand_out()

    def finished(self, until: int) -> Iterator[tuple[Key, Verdict]]:
        """Yield what is done, and wait until fewer than `until` tasks are left."""
        while left := len(self._waiting) + sum(len(tasks) for tasks in self._held.values()):
            ready = self._ready(patiently=left >= until)
            if not ready and left < until:
                return
            for worker in ready:
                yield from self._take(worker)
            self._hand_out()

    def close(self) -> None:
        """End the workers."""
        while self._held:
            worker, _ = self._held.popitem()
            worker.close()

    def _hand_out(self) -> None:
        while self._waiting:
            worker = min(self._held, key=lambda each: len(self._held[each]), default=None)
            if worker is None or (self._held[worker] and len(self._held) < self._size):
                worker = self._start()
            elif len(self._held[worker]) >= _AHEAD:
                return
            self._hand(worker, self._waiting.popleft())

    def _start(self) -> WorkerProcess:
        worker = WorkerProcess(self._sandbox, self._limits)
        self._held[worker], self._judged[worker] = deque(), 0
        self._hand_controls(worker)
        return worker

    def _hand_controls(self, worker: WorkerProcess) -> None:
        for completion, expected in _KNOWN:
            self._hand(worker, _Task(CONTROL, completion, expected=expected, known=f"known to be {expected}"))
        if self._sandbox.level != _UNCONFINED:
            self._hand(worker, _Task(CONTROL, installed.search(), expected="failed", known="that reads site-packages"))

    def _hand(self, worker: WorkerProcess, task: _Task[Key]) -> None:
        self._held[worker].append(task)
        answer, problem = task.completion, task.problem
        program = answer.text if isinstance(answer, Program) else problem.prompt + answer
        reference = problem.prompt + problem.canonical_solution + problem.suffix
        fields = {name: getattr(problem, name) for name in ("prompt", "test", "entry_point")}
        worker.send({**fields, "reference": reference, "program": program})

    def _ready(self, *, patiently: bool) -> list[WorkerProcess]:
        poll = select.poll()
        workers = {worker.fileno(): worker for worker in self._held}
        for descriptor in workers:
            poll.register(descriptor, select.POLLIN)
        return [workers[descriptor] for descriptor, _ in poll.poll(None if patiently else 0)]

    def _take(self, worker: WorkerProcess) -> Iterator[tuple[Key, Verdict]]:
        messages = worker.receive()
        if messages is None:
            self._replace(worker, "a worker ended by itself")
            return
        for message in messages:
            if "broken" in message:
                self._replace(worker, message["broken"])
                return
            task = self._held[worker].popleft()
            if "unusable" in message:
                raise ProblemsError(
                    f"{task.problem.task_id}: prompt or test is no Python ({message['unusable']}); mend the problems"
                )
            verdict = Verdict(message["outcome"], message["message"], message["seconds"], self._sandbox.level)
            if task.expected is None:
                yield task.key, verdict  # type: ignore[misc] # only controls have no key
            elif verdict.outcome != task.expected:
                self._replace(worker, f"a program {task.known} was {verdict.outcome} {verdict.message}")
                return
            self._judged[worker] += 1
            if self._judged[worker] % _CONTROL_INTERVAL == 0:
                self._hand_controls(worker)

    def _replace(self, worker: WorkerProcess, why: str) -> None:
        """End a worker that failed; what it held is judged again by another."""
        tasks = self._held.pop(worker)
        del self._judged[worker]
        worker.close()
        self._failures += 1
        if tasks:
            tasks[0].attempts += 1
        if self._failures > _MAX_FAILURES or any(task.attempts >= _MAX_ATTEMPTS for task in tasks):
            raise SandboxError(
                f"the sandbox failed {self._failures} times, last: {why}; finished verdicts are kept, "
                "`codellm eval sandbox` tells how it stands"
            )
        self._waiting.extendleft(task for task in reversed(tasks) if task.expected is None)
