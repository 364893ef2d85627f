"""What OpenAI's endpoints that generate have in common: samples of prompts become choices, whole or in parts."""

from __future__ import annotations

import abc
import math
import time
import uuid
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import attrs

from codellm.generation import Event
from codellm.plugins.guard import guarded
from codellm.result import FinishReason, Result, TokenLogprobs
from codellm.sampling import SamplingParams
from codellm.serve.body import Body
from codellm.serve.job import Job
from codellm.serve.logprobs import Vocabulary
from codellm.serve.refusal import bad
from codellm.serve.replies import EventStream, Json
from codellm.serve.service import Service, listening

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

MOST = 128
"""Sequences of one request: prompts, times samples of each."""

FINISH: Mapping[FinishReason, str] = {"stop": "stop", "eos": "stop", "length": "length", "cancelled": "stop"}


@attrs.frozen(kw_only=True)
class Wanted:
    """How many samples of each prompt, how sampled, and how told: in parts, and with counts of tokens after them.

    The `n` best of `best_of` samples are told; `logprobs` is how many are told beside that of each token, None for
    none, not even its own.
    """

    params: SamplingParams
    n: int
    best_of: int
    logprobs: int | None
    stream: bool
    usage: bool

    @classmethod
    def of(
        cls, body: Body, max_tokens: int, logprobs: int | None, prompts: int = 1, *, may_choose: bool = False
    ) -> Self:
        """Read a body that asks for samples of so many `prompts`, the best of more where it `may_choose`.

        Raises:
            Refusal: a field is not as it must be.
        """
        n = body.whole("n", 1, 1, MOST)
        best_of = body.whole("best_of", n, n, MOST) if may_choose else n
        if best_of * prompts > MOST:
            name = "n" if best_of == n else "best_of"
            raise bad(f"{name} times the prompts are {best_of * prompts} completions, and may be {MOST}", name)
        stream = body.flag("stream")
        if stream and best_of > n:
            raise bad("stream goes without best_of above n: which are best is known at the end", "best_of")
        ranked = logprobs if best_of == n else logprobs or 0
        return cls(
            params=body.sampling(max_tokens, temperature=1.0, logprobs=ranked),
            n=n,
            best_of=best_of,
            logprobs=logprobs,
            stream=stream,
            usage=body.object("stream_options").get("include_usage") is True and stream,
        )


class Reply(abc.ABC):
    """The answer to one request, from the events of its job. Endpoints say what a choice looks like."""

    prefix: ClassVar[str]
    """How the id of an answer begins."""
    kinds: ClassVar[tuple[str, str]]
    """What is said to be sent: of a whole answer, and of a part."""

    def __init__(self, wanted: Wanted, job: Job, service: Service) -> None:
        self._wanted, self._job, self._service = wanted, job, service
        self._id, self._created = f"{self.prefix}-{uuid.uuid4().hex}", int(time.time())
        self._index = {sequence: index for index, sequence in enumerate(job.sequences)}
        self._vocabulary = Vocabulary(service.model.tokenizer)

    @abc.abstractmethod
    def text(self, index: int, text: str) -> dict[str, Any]:
        """The fields of a choice that hold its whole text."""

    @abc.abstractmethod
    def piece(self, text: str) -> dict[str, Any]:
        """The fields of a part that hold a piece of text."""

    @abc.abstractmethod
    def opening(self, index: int) -> dict[str, Any] | None:
        """The fields of the part that goes before the text of a choice, `logprobs` too; None where there is none."""

    @abc.abstractmethod
    def logprobs(self, index: int, told: Iterable[TokenLogprobs]) -> dict[str, Any]:
        """What a choice, or the next part of it, tells of its tokens."""

    async def answer(self, request: Request) -> Response:
        """What is sent: all at the end, or each part as it comes."""
        return EventStream(self._parts(request)) if self._wanted.stream else Json(await self._whole(request))

    async def _whole(self, request: Request) -> dict[str, Any]:
        results: dict[int, Result] = {}
        async with listening(request, self._service.engine, self._job) as events:
            async for event in events:
                if event.result is not None:
                    results[self._index[event.sequence]] = event.result
        choices: list[dict[str, Any]] = []
        for index in self._best(results):
            text, told = self.text(index, results[index].text), self._told(index, results[index].logprobs)
            choices.append(_choice(len(choices), text, told, FINISH[results[index].finish_reason]))
        return {**self._object(self.kinds[0], choices), "usage": self._usage()}

    def _best(self, results: Mapping[int, Result]) -> Iterator[int]:
        """The samples that are told: of each prompt those whose tokens are likeliest in the mean, the best first."""
        n, best_of = self._wanted.n, self._wanted.best_of
        for first in range(0, len(results), best_of):
            samples = range(first, first + best_of)
            yield from samples if n == best_of else sorted(samples, key=lambda one: -_mean(results[one]))[:n]

    async def _parts(self, request: Request) -> AsyncGenerator[dict[str, Any], None]:
        opened: set[int] = set()
        async with listening(request, self._service.engine, self._job) as events:
            async for event in events:
                index = self._index[event.sequence]
                if index not in opened:
                    opened.add(index)
                    opening = self.opening(index)
                    if opening is not None:
                        yield self._part(_choice(index, opening, None, None))
                told = self._told(index, None if event.logprobs is None else [event.logprobs])
                yield self._part(_choice(index, self.piece(event.text), told, _finish(event)))
        if self._wanted.usage:
            yield {**self._object(self.kinds[1], []), "usage": self._usage()}

    def _told(self, index: int, told: Iterable[TokenLogprobs] | None) -> dict[str, Any] | None:
        if told is None or self._wanted.logprobs is None:
            return None
        with guarded(self._service.model.info.backend, "to tell of tokens"):
            return self.logprobs(index, told)

    def _part(self, choice: dict[str, Any]) -> dict[str, Any]:
        part = self._object(self.kinds[1], [choice])
        return {**part, "usage": None} if self._wanted.usage else part

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._service.name,
            "choices": choices,
        }

    def _usage(self) -> dict[str, Any]:
        # the samples of a prompt share it
        firsts = self._job.sequences[:: self._wanted.best_of]
        prompt = sum(len(sequence.prompt_ids) for sequence in firsts)
        output = sum(len(sequence.token_ids) for sequence in self._job.sequences)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "total_tokens": prompt + output,
            "prompt_tokens_details": {"cached_tokens": sum(sequence.cached_tokens for sequence in firsts)},
        }


def _choice(index: int, fields: dict[str, Any], logprobs: dict[str, Any] | None, finish: str | None) -> dict[str, Any]:
    return {"index": index, "logprobs": logprobs, **fields, "finish_reason": finish}


def _mean(result: Result) -> float:
    """The mean log-probability of the tokens; 0 where there are none."""
    told = result.logprobs or ()
    return math.fsum(one.logprob for one in told) / max(len(told), 1)


def _finish(event: Event) -> str | None:
    return None if event.result is None else FINISH[event.result.finish_reason]
