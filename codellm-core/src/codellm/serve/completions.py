"""`POST /v1/completions`, as OpenAI's API has it: text after a prompt, or between a prompt and a suffix."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import AsyncGenerator, Mapping
from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING, Any

import attrs

from codellm.generation import Event
from codellm.plugins.guard import guarded
from codellm.result import FinishReason
from codellm.sampling import SamplingParams
from codellm.serve.body import Body
from codellm.serve.job import Job
from codellm.serve.refusal import bad
from codellm.serve.replies import EventStream, Json
from codellm.serve.service import Prompt, Service, listening

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

MOST = 128
"""Sequences of one request: prompts, times samples of each."""

FINISH: Mapping[FinishReason, str] = {"stop": "stop", "eos": "stop", "length": "length", "cancelled": "stop"}


@attrs.frozen(kw_only=True)
class Asked:
    """What a request asks for."""

    prompts: Seq[Prompt]
    suffix: str | None
    params: SamplingParams
    n: int
    echo: bool
    stream: bool
    usage: bool

    @classmethod
    def of(cls, body: Body) -> Asked:
        """Read a body.

        Raises:
            Refusal: a field is not as it must be.
        """
        prompts = _prompts(body.get("prompt"))
        n = body.whole("n", 1, 1, MOST)
        if n * len(prompts) > MOST:
            raise bad(f"n times the prompts are {n * len(prompts)} completions, and may be {MOST}", "n")
        suffix = body.text("suffix") or None
        echo = body.flag("echo")
        words = all(isinstance(prompt, str) for prompt in prompts)
        if suffix is not None and not words:
            raise bad("suffix goes with a prompt that is text", "suffix")
        if echo and (suffix is not None or not words):
            raise bad("echo goes with a prompt that is text, and without a suffix", "echo", code="unsupported_field")
        stream = body.flag("stream")
        return cls(
            prompts=prompts,
            suffix=suffix,
            params=body.sampling(body.whole("max_tokens", 16, 1), temperature=1.0),
            n=n,
            echo=echo,
            stream=stream,
            usage=stream and body.object("stream_options").get("include_usage") is True,
        )

    def before(self, index: int) -> str:
        """What stands before the text of a choice: its prompt, where that is asked for."""
        prompt = self.prompts[index // self.n]
        return prompt if self.echo and isinstance(prompt, str) else ""


async def completions(request: Request, body: Body, service: Service) -> Response:
    """Answer a request.

    Raises:
        Refusal: it asks for what cannot be had.
        CodellmError: see `Service.submit`, and what ends a sequence.
    """
    service.require(body)
    asked = Asked.of(body)
    prompts = asked.prompts
    if asked.suffix is not None:
        prompts = await service.encoded(lambda: _between(service, asked))
    job = await service.submit(prompts, asked.params, asked.n)
    reply = _Reply(asked, job, service)
    if asked.stream:
        return EventStream(reply.parts(request))
    return Json(await reply.whole(request))


def _between(service: Service, asked: Asked) -> list[Prompt]:
    """The prompts that ask for what stands before the suffix."""
    with guarded(service.model.info.backend, "to encode a prompt"):
        return [service.model.tokenizer.infill_ids(str(prompt), asked.suffix or "") for prompt in asked.prompts]


def _prompts(value: object) -> list[Prompt]:
    """Text, ids, or a list of either."""
    several: list[Any] = value if isinstance(value, list) and value and not _are_ids(value) else [value]
    if len(several) > MOST:
        raise bad(f"prompt has {len(several)} entries, and may have {MOST}", "prompt")
    if not all(isinstance(one, str) or (one and _are_ids(one)) for one in several):
        raise bad("prompt must be a string, a list of token ids, or a list of either", "prompt")
    return several


def _are_ids(value: object) -> bool:
    return isinstance(value, list) and all(type(id) is int for id in value)


class _Reply:
    """The answer to one request, from the events of its job."""

    def __init__(self, asked: Asked, job: Job, service: Service) -> None:
        self._asked, self._job, self._service = asked, job, service
        self._id, self._created = f"cmpl-{uuid.uuid4().hex}", int(time.time())
        self._index = {sequence: index for index, sequence in enumerate(job.sequences)}

    async def whole(self, request: Request) -> dict[str, Any]:
        choices: list[dict[str, Any]] = []
        async with listening(request, self._service.engine, self._job) as events:
            async for event in events:
                if event.result is not None:
                    index = self._index[event.sequence]
                    text = self._asked.before(index) + event.result.text
                    choices.append(_choice(index, text, FINISH[event.result.finish_reason]))
        choices.sort(key=lambda choice: choice["index"])
        return {**self._object(choices), "usage": self._usage()}

    async def parts(self, request: Request) -> AsyncGenerator[dict[str, Any], None]:
        async with listening(request, self._service.engine, self._job) as events:
            if self._asked.echo:
                for index in self._index.values():
                    yield self._part(_choice(index, self._asked.before(index), None))
            async for event in events:
                yield self._part(self._choice_of(event))
        if self._asked.usage:
            yield {**self._object([]), "usage": self._usage()}

    def _choice_of(self, event: Event) -> dict[str, Any]:
        finish = None if event.result is None else FINISH[event.result.finish_reason]
        return _choice(self._index[event.sequence], event.text, finish)

    def _part(self, choice: dict[str, Any]) -> dict[str, Any]:
        part = self._object([choice])
        return {**part, "usage": None} if self._asked.usage else part

    def _object(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "text_completion",
            "created": self._created,
            "model": self._service.name,
            "choices": choices,
        }

    def _usage(self) -> dict[str, int]:
        # the samples of a prompt share it
        firsts = itertools.islice(self._job.sequences, 0, None, self._asked.n)
        prompt = sum(len(sequence.prompt_ids) for sequence in firsts)
        output = sum(len(sequence.token_ids) for sequence in self._job.sequences)
        return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}


def _choice(index: int, text: str, finish: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish}
