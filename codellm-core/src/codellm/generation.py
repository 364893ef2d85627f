"""The one road from sequences to text: everything here is built on `codellm_generate`, which is `Model.run`.

A stop string, an end-of-text token, a finish reason or a timing means the same on every backend because it is decided
here and nowhere else.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from collections.abc import Sequence as Seq
from types import TracebackType
from typing import Self

import attrs

from codellm import logprobs
from codellm.errors import BackendError, CodellmError, ContextLengthError, InvalidValueError, shown
from codellm.model import Model
from codellm.plugins.guard import GENERATE, breach, failure, named
from codellm.plugins.manager import describe, manager
from codellm.prompt import prompt_ids, told
from codellm.result import FinishReason, Result, Timing, TokenLogprobs
from codellm.run import GENERATING, Run
from codellm.sampling import SamplingParams
from codellm.sequence import Sequence, Token
from codellm.text import TextStream
from codellm.tokenizer import Tokenizer


@attrs.frozen(eq=False)
class Event:
    """A step of one sequence: a piece of its text (may be empty), and its result once it has ended.

    `logprobs` are those of the step's token, where they were asked for.
    """

    sequence: Sequence
    text: str
    result: Result | None = None
    logprobs: TokenLogprobs | None = None


def new_sequence(model: Model, prompt: str | Seq[int], params: SamplingParams, index: int = 0) -> Sequence:
    """A sequence for `prompt`: text is encoded by the model's tokenizer, token ids are taken as they are.

    Raises:
        InvalidValueError: the prompt is neither text nor ids, is empty and the model has no token to begin with, holds
            a lone surrogate, or an id is no token.
        ContextLengthError: the prompt leaves no room for output.
        BackendError: the model's tokenizer fails on it.
    """
    ids = prompt_ids(model, prompt)
    limit = model.info.context_length
    if len(ids) >= limit:
        raise ContextLengthError(
            f"the prompt is too long: {len(ids)} tokens and the context is {limit}, which leaves no room for output; "
            "shorten the prompt or raise --context-length"
        )
    return Sequence(index=index, prompt_ids=ids, params=params)


def endings(tokenizer: Tokenizer) -> frozenset[int]:
    """Ids that end a sequence: those of the model, and those that end a middle in its family."""
    eos = () if tokenizer.eos is None else (tokenizer.eos,)
    return frozenset(tokenizer.ends).union(eos, tokenizer.fim.eot if tokenizer.fim else ())


class _Tracker:
    """What core knows of one running sequence."""

    def __init__(self, model: Model, sequence: Sequence, start: float) -> None:
        self.sequence = sequence
        self._model = model
        self._vocab_size = model.tokenizer.vocab_size
        self._room = model.info.context_length - len(sequence.prompt_ids)
        self._ends = endings(model.tokenizer)
        # a special token has no text in which its string could be found
        self._stops = {model.tokenizer.special_id(stop) for stop in sequence.params.stop}
        self._text = TextStream(sequence.params.stop)
        self._start = start
        self._times: list[float] = []
        self._logprobs: list[TokenLogprobs] = []

    def take(self, token: Token, now: float) -> Event:
        """Count `token` and tell what it did.

        Raises:
            BackendError: it is no token, its bytes are none, or the backend wrote on the sequence.
        """
        sequence, params, id = self.sequence, self.sequence.params, token.id
        self._check(token)
        told = None
        if params.logprobs is not None:
            try:
                told = logprobs.told(token, self._model.info.backend, self._vocab_size)
            except BackendError as error:  # others did not ask
                sequence.error = error
                return self.end("error")
            self._logprobs.append(told)
        sequence.token_ids.append(id)
        self._times.append(now)
        if id in self._ends and not params.ignore_eos:
            return self.end("eos", told=told)
        if id in self._stops:
            return self.end("stop", told=told)
        data: object = self._model.tokenizer.token_bytes(id)
        if not isinstance(data, bytes):
            raise self._broken(f"token_bytes({id}) of its tokenizer gave {shown(data)}, and must give bytes")
        piece = self._text.push(data)
        if self._text.stopped:
            return self.end("stop", piece, told)
        if len(sequence.token_ids) >= min(params.max_tokens, self._room):
            return self.end("length", piece, told)
        return Event(sequence, piece, None, told)

    def _check(self, token: Token) -> None:
        id = token.id
        if type(id) is not int or not 0 <= id < self._vocab_size:  # numpy's ints are no JSON, and True is none either
            raise self._broken(
                f"its run yielded the id {shown(id)}, and an id is an int from 0 to {self._vocab_size - 1}"
            )
        if token.logprob is not None and not token.logprob <= logprobs.ROUNDING:
            raise self._broken(f"its run yielded the log-probability {shown(token.logprob)}, which is at most 0")
        if len(self.sequence.token_ids) != len(self._times):
            raise self._broken("its run wrote token_ids of a sequence itself, which core does")

    def _broken(self, what: str) -> BackendError:
        return breach(self._model.info.backend, what, GENERATE)

    def end(self, reason: FinishReason, piece: str = "", told: TokenLogprobs | None = None) -> Event:
        """Finish the sequence."""
        sequence = self.sequence
        sequence.finished = True
        piece += self._text.finish()
        timing = Timing(self._start, tuple(self._times), time.perf_counter())
        result = Result(
            self._text.text, tuple(sequence.token_ids), reason, timing, sequence.error, sequence.cached_tokens,
            None if sequence.params.logprobs is None else tuple(self._logprobs),
        )  # fmt: skip
        manager().notify("codellm_generated", sequence=sequence, result=result)
        return Event(sequence, piece, result, told)


def complete(
    model: Model, sequences: Iterable[Sequence | None], *, start: float | None = None, live: bool = False
) -> Generator[Event, None, None]:
    """Run `sequences`, which may be live as in `Model.run`, and tell of each step of each as it comes.

    Closing or dropping the generator ends the run and frees the model. A sequence may be cancelled meanwhile. Requests
    start at `start` (seconds of `time.perf_counter`), by default each when the backend takes it.

    Where a backend ends its run early, what it was given fails, and what it never took too; of `sequences` that are
    `live`, whose end may be far, nothing more is taken then, and the next run may have it.

    Raises:
        ModelBusyError: another `run` or `score` is going on.
        BackendError: the computation failed, what had finished was yielded before; or a live run took nothing.
    """
    return _drive(model, sequences, {}, start, live=live)


def _drive(
    model: Model,
    sequences: Iterable[Sequence | None],
    running: dict[Sequence, _Tracker],
    start: float | None,
    *,
    live: bool = False,
) -> Generator[Event, None, None]:
    asked = False

    def given_out() -> Iterator[Sequence | None]:
        nonlocal asked
        asked = True
        for sequence in sequences:
            if sequence is not None:
                running[sequence] = _Tracker(model, sequence, time.perf_counter() if start is None else start)
            yield sequence

    name = model.info.backend
    run = Run(model)
    try:
        waiting = given_out()
        for tokens in run.steps(waiting):
            for event in itertools.chain(_advance(tokens, running, name), _ended(running, name)):
                run.progress()
                yield event
            run.see_end(running)
        ended = breach(name, "it ended its run before this sequence did", GENERATE)
        if live and not asked:
            raise breach(name, "it ended its run before it took a sequence", GENERATE)
        for _ in itertools.chain([None], () if live else waiting):  # what the run never took fails like what it left
            yield from _ended(running, name, ended)
    finally:
        for sequence in running:
            sequence.finished = True
        run.close()


def _advance(tokens: list[Token], running: dict[Sequence, _Tracker], backend: str) -> Iterator[Event]:
    """Count a step's tokens; those of sequences that have finished are the backend's running ahead.

    Raises:
        BackendError: a token is of no sequence that was given out, or see `_Tracker.take`.
    """
    now = time.perf_counter()
    for token in tokens:
        try:
            tracker = running.get(token.sequence)
            if tracker is None:
                if not token.sequence.finished:
                    raise breach(backend, "its run yielded a token of a sequence that it was not given", GENERATE)
                continue
            if token.sequence.cancelled:
                continue
            event = tracker.take(token, now)
        except (CodellmError, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise failure(backend, GENERATING, error) from error
        if event.result is not None:
            del running[token.sequence]
        yield event


def _ended(running: dict[Sequence, _Tracker], backend: str, all_with: BackendError | None = None) -> Iterator[Event]:
    """End what was cancelled, and what the backend has given up; all else, with this error, where its run has ended."""
    for sequence in list(running):
        if sequence.cancelled:
            yield running.pop(sequence).end("cancelled")
            continue
        if sequence.error is not None:
            sequence.error = _as_exception(sequence.error, backend)
        elif all_with is None:
            continue
        else:
            sequence.error = all_with
        yield running.pop(sequence).end("error")


class Stream:
    """The text of one request, piece by piece; `result` is there once it has ended.

    Closing or dropping it frees the model; `result` is then what had come, with the finish reason "cancelled".
    """

    def __init__(self, model: Model, prompt: str | Seq[int], params: SamplingParams) -> None:
        start = time.perf_counter()
        self._backend = model.info.backend
        self._running: dict[Sequence, _Tracker] = {}
        self._events = _drive(model, [new_sequence(model, prompt, params)], self._running, start)
        self.result: Result | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        for event in self._events:
            if event.result is not None:
                self.result = event.result
                if event.result.error is not None:
                    raise _ours(event.result.error, self._backend)
            if event.text:
                return event.text
        raise StopIteration

    def read(self) -> Result:
        """Everything to the end."""
        for _ in self:
            pass
        if self.result is None:
            raise BackendError("the stream was closed before it began")
        return self.result

    def close(self) -> None:
        """Cancel what still runs."""
        self._events.close()
        for tracker in self._running.values():
            self.result = tracker.end("cancelled").result
        self._running.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def generate_batch(model: Model, prompts: Seq[str | Seq[int]], params: SamplingParams) -> list[Result]:
    """See `Model.generate_batch`."""
    start = time.perf_counter()
    if isinstance(prompts, (str, bytes)) or not isinstance(prompts, Iterable):
        raise InvalidValueError(f"generate_batch takes a list of prompts, not {told(prompts)}")
    results: dict[int, Result] = {}
    indices: dict[Sequence, int] = {}
    samples: Counter[tuple[int, ...]] = Counter()
    for index, prompt in enumerate(prompts):
        try:
            sequence = new_sequence(model, prompt, params)
        except CodellmError as error:
            results[index] = Result("", (), "error", Timing(start, (), time.perf_counter()), error)
            continue
        key = tuple(sequence.prompt_ids)
        sequence.index = samples[key]
        samples[key] += 1
        indices[sequence] = index
    for event in complete(model, list(indices), start=start):
        if event.result is not None:
            results[indices[event.sequence]] = event.result
    return [results[index] for index in sorted(results)]


def _as_exception(error: object, backend: str) -> Exception:
    """What a backend wrote as the error of a sequence, if it can be raised and printed; else an error that says so."""
    if not isinstance(error, BaseException):
        what = f"its run wrote {shown(error)} as the error of a sequence, and must write an exception"
        return breach(backend, what, GENERATE)
    try:
        str(error)
        return error if isinstance(error, Exception) else _ours(error, backend)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return _ours(error, backend)


def _ours(error: BaseException, backend: str) -> CodellmError:
    if isinstance(error, CodellmError):
        return error
    wrapped = BackendError(f"{named(backend)} gave up a request: {describe(error)}")
    wrapped.__cause__ = error
    return wrapped
