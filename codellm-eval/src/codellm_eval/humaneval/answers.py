"""What a run has: samples and verdicts, each in its file before it counts, and those of a run that was killed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from codellm.sources.regular import quoted
from codellm_eval.errors import SamplesError
from codellm_eval.files.journal import Journal
from codellm_eval.files.run_folder import RunFolder
from codellm_eval.humaneval.samples import Sample, judged, judged_line
from codellm_eval.judge.judge import Verdict
from codellm_eval.judge.problem import Problem

Key = tuple[str, int]
"""Task id and index of a sample."""
Parsed = TypeVar("Parsed")


class Answers:
    """Files of `n_samples` answers to each of `problems`; `samples` and `verdicts` are those they hold.

    Verdicts follow from samples: where the file of one does not fit the other, all are judged again.

    Raises:
        InputError: a file cannot be written, or is no JSONL.
        SamplesError: there is a sample that the run does not ask for, or one twice; the message names the line.
    """

    def __init__(self, folder: RunFolder, problems: Mapping[str, Problem], n_samples: int) -> None:
        self.total = len(problems) * n_samples
        with contextlib.ExitStack() as stack:
            stack.enter_context(folder.made())
            self._samples = stack.enter_context(Journal(folder.samples))
            self.samples = _known_samples(self._samples, problems, n_samples)
            self._results = stack.enter_context(Journal(folder.results))
            self.verdicts = _known_verdicts(self._results, self.samples)
            if len(self.verdicts) < len(self._results.lines):
                self._results.clear()
                self.verdicts = {}
            self._files = stack.pop_all()

    @property
    def missing(self) -> int:
        """Samples that are still to be asked for."""
        return self.total - len(self.samples)

    @property
    def unjudged(self) -> list[Sample]:
        """The samples without a verdict."""
        return [sample for key, sample in self.samples.items() if key not in self.verdicts]

    def keep(self, sample: Sample) -> None:
        """Write down a sample, whatever happens to the next."""
        self._samples.append(sample.line())
        self.samples[sample.key] = sample

    def keep_verdict(self, sample: Sample, verdict: Verdict) -> None:
        """Write down the verdict on a sample, whatever happens to the next."""
        self._results.append(judged_line(sample, verdict))
        self.verdicts[sample.key] = verdict

    def judged(self) -> list[tuple[Sample, Verdict]] | None:
        """Every sample with its verdict; None while some are to come."""
        if self.missing or len(self.verdicts) != self.total:
            return None
        return [(sample, self.verdicts[key]) for key, sample in self.samples.items()]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()


def _known_samples(journal: Journal, problems: Mapping[str, Problem], n_samples: int) -> dict[Key, Sample]:
    known: dict[Key, Sample] = {}
    for where, sample in _parsed(journal, Sample.of):
        if sample.task_id not in problems or not 0 <= sample.index < n_samples:
            raise SamplesError(f"{where} is {_named(sample)}, which this run does not ask for")
        if sample.key in known:
            raise SamplesError(f"{where} is {_named(sample)} for the second time")
        known[sample.key] = sample
    return known


def _known_verdicts(journal: Journal, samples: Mapping[Key, Sample]) -> dict[Key, Verdict]:
    """Verdicts that are kept; fewer than lines, where one is no verdict on a sample as it is."""
    known: dict[Key, Verdict] = {}
    with contextlib.suppress(SamplesError):
        for _, (sample, verdict) in _parsed(journal, judged):
            if samples.get(sample.key) == sample:
                known[sample.key] = verdict
    return known


def _parsed(journal: Journal, parse: Callable[[dict[str, Any]], Parsed]) -> Iterator[tuple[str, Parsed]]:
    """What the lines hold, each with the line that a message names."""
    for number, line in journal.lines:
        where = f"{journal.path}: line {number}"
        try:
            yield where, parse(line)
        except SamplesError as error:
            raise SamplesError(f"{where} {error}") from error


def _named(sample: Sample) -> str:
    return f"sample {sample.index} of {quoted(sample.task_id)}"
