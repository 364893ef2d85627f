"""Generating samples: problems become sequences, results become samples."""

from __future__ import annotations

import contextlib
from collections.abc import Container, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

import attrs

from codellm.errors import ContextLengthError, InvalidValueError
from codellm.sampling import SamplingParams
from codellm_eval.errors import SamplesError, refuse_dummy
from codellm_eval.humaneval.completion import Continuation
from codellm_eval.humaneval.samples import Sample
from codellm_eval.judge.problem import Problem

if TYPE_CHECKING:
    from codellm.model import Model
    from codellm.result import Result
    from codellm.sequence import Sequence
    from codellm.tokenizer import Tokenizer

MAX_TOKENS = 512
"""Longer than any reference solution; most completions end far earlier, at a stop string."""


class Form(Protocol):
    """How a problem is put to a model, and what of its answer is judged."""

    @property
    def ends(self) -> tuple[str, ...]:
        """Strings that end the generation early: `completion` is the same whatever would have followed one of them."""

    def prompt(self, problem: Problem, tokenizer: Tokenizer) -> str | list[int]:
        """What the model reads: text, or ids as they are."""

    def completion(self, problem: Problem, raw: str) -> str:
        """What is judged of the `raw` text that the model wrote."""


def sampling(
    *,
    n_samples: int = 1,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int | None = None,
    max_tokens: int = MAX_TOKENS,
) -> SamplingParams:
    """The parameters of a run. The strings that end generation are no part of it: they are the form's.

    Raises:
        InvalidValueError: a value is out of range, or several samples are asked of greedy decoding.
    """
    if n_samples < 1:
        raise InvalidValueError(f"--n-samples must be at least 1, not {n_samples}")
    if n_samples > 1 and temperature == 0:
        raise InvalidValueError(
            f"{n_samples} greedy samples of a problem are all the same; give --temperature, 0.2 or 0.8 for example"
        )
    return SamplingParams(max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)


def generate(
    model: Model,
    problems: Iterable[Problem],
    params: SamplingParams,
    n_samples: int = 1,
    *,
    form: Form | None = None,
    known: Container[tuple[str, int]] = (),
) -> Generator[Sample, None, None]:
    """Yield `n_samples` of each problem but those in `known` (task id, index), as they finish.

    `form` is a `Continuation` where None, and says where generation ends, whatever `params` say. A prompt longer than
    the context, or of no text, gives empty samples with an error.

    Raises:
        DummyModelError: the weights are random.
        SamplesError: a sample failed, or the count is not what was asked for; the others were yielded before.
        CodellmError: the backend failed, or the model cannot be asked in this form.
    """
    from codellm.generation import complete

    refuse_dummy(model.info.dummy, "pass@k")
    form = form or Continuation()
    params = attrs.evolve(params, stop=form.ends)
    fitting: list[_Asked] = []
    unfit: list[Sample] = []
    for problem in problems:
        wanted = [index for index in range(n_samples) if (problem.task_id, index) not in known]
        if wanted:
            _prepare(model, problem, form, params, wanted, fitting, unfit)
    asked, got, failed = sum(len(one.wanted) for one in fitting) + len(unfit), 0, []
    for sample in unfit:
        got += 1
        yield sample
    running: dict[Sequence, Problem] = {}
    with contextlib.closing(complete(model, _sequences(model, fitting, params, running))) as events:
        for event in events:
            if event.result is None:
                continue
            problem = running.pop(event.sequence)
            if event.result.error is not None:
                failed.append(f"{problem.task_id}: {event.result.error}")
                continue
            got += 1
            yield _sample(model, problem, form, event.sequence.index, event.result)
    if failed:
        raise SamplesError(f"{len(failed)} of {asked} samples failed, the others are kept; first {failed[0]}")
    if got != asked:
        raise SamplesError(f"{asked} samples were asked for and {got} came back; report it to the backend's author")


@attrs.frozen
class _Asked:
    """A problem as a model reads it, and which of its samples are wanted."""

    problem: Problem
    prompt_ids: list[int]
    wanted: list[int]


def _prepare(
    model: Model,
    problem: Problem,
    form: Form,
    params: SamplingParams,
    wanted: list[int],
    fitting: list[_Asked],
    unfit: list[Sample],
) -> None:
    from codellm.generation import new_sequence

    try:
        sequence = new_sequence(model, form.prompt(problem, model.tokenizer), params)
    except (ContextLengthError, InvalidValueError) as error:  # a model that cannot read it has not solved it
        unfit += [
            Sample(task_id=problem.task_id, completion="", index=index, finish_reason="error", error=str(error))
            for index in wanted
        ]
    else:
        fitting.append(_Asked(problem, sequence.prompt_ids, wanted))


def _sequences(
    model: Model, asked: Iterable[_Asked], params: SamplingParams, running: dict[Sequence, Problem]
) -> Iterator[Sequence]:
    """Make them as the backend takes them: hundreds of samples of each problem never stand in memory together."""
    from codellm.generation import new_sequence

    for one in asked:
        for index in one.wanted:
            sequence = new_sequence(model, one.prompt_ids, params, index=index)
            running[sequence] = one.problem
            yield sequence


def _sample(model: Model, problem: Problem, form: Form, index: int, result: Result) -> Sample:
    raw = model.tokenizer.decode(result.token_ids)
    return Sample(
        task_id=problem.task_id,
        completion=form.completion(problem, raw),
        index=index,
        raw=raw,
        tokens=len(result.token_ids),
        finish_reason=result.finish_reason,
    )
