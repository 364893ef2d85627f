"""`POST /v1/completions`, as OpenAI's API has it: text after a prompt, or between a prompt and a suffix."""

from __future__ import annotations

import time
from collections.abc import Iterable
from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING, Any

import attrs

from codellm.generation import Event
from codellm.plugins.guard import guarded
from codellm.result import Result, Timing, TokenLogprobs
from codellm.sequence import Sequence
from codellm.serve.body import Body
from codellm.serve.choices import MOST, Reply, Wanted
from codellm.serve.job import Job
from codellm.serve.logprobs import Columns
from codellm.serve.refusal import bad
from codellm.serve.service import Prompt, Service

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


MOST_LOGPROBS = 5
"""Of the likeliest tokens beside each, as OpenAI's API has it."""


@attrs.frozen(kw_only=True)
class Asked:
    """What a request asks for."""

    prompts: Seq[Prompt]
    suffix: str | None
    echo: bool
    silent: bool
    """Nothing is generated."""
    wanted: Wanted

    @classmethod
    def of(cls, body: Body) -> Asked:
        """Read a body.

        Raises:
            Refusal: a field is not as it must be.
        """
        prompts = _prompts(body.get("prompt"))
        suffix = body.text("suffix") or None
        echo = body.flag("echo")
        words = all(isinstance(prompt, str) for prompt in prompts)
        if suffix is not None and not words:
            raise bad("suffix goes with a prompt that is text", "suffix")
        if echo and suffix is not None:
            raise bad("echo goes without a suffix", "echo", code="unsupported_field")
        most = body.whole("max_tokens", 16, 0 if echo else 1)
        wanted = Wanted.of(body, max(most, 1), _logprobs(body), len(prompts), may_choose=True)
        return cls(prompts=prompts, suffix=suffix, echo=echo, silent=most == 0, wanted=wanted)


async def completions(request: Request, body: Body, service: Service) -> Response:
    """Answer a request.

    Raises:
        Refusal: it asks for what cannot be had.
        CodellmError: see `Service.submit`, and what ends a sequence.
    """
    asked = Asked.of(body)
    prompts = asked.prompts
    if asked.suffix is not None:
        prompts = await service.encoded(lambda: _between(service, asked))
    params, logprobs, samples = asked.wanted.params, asked.wanted.logprobs, asked.wanted.best_of
    job = Job(await service.sequences(prompts, params, samples))
    told: list[list[TokenLogprobs]] | None = None
    if asked.echo and logprobs is not None:
        told = await service.scored(request, [one.prompt_ids for one in job.sequences[::samples]], logprobs)
    if asked.silent:
        for sequence in job.sequences:
            job.post(Event(sequence, "", _nothing(sequence)))
    else:
        service.engine.submit(job)
    return await _Texts(asked, job, service, told).answer(request)


def _nothing(sequence: Sequence) -> Result:
    """Of a sequence that is not run."""
    now = time.perf_counter()
    return Result("", (), "length", Timing(now, (), now), logprobs=None if sequence.params.logprobs is None else ())


def _between(service: Service, asked: Asked) -> list[Prompt]:
    """The prompts that ask for what stands before the suffix."""
    with guarded(service.model.info.backend, "to encode a prompt"):
        return [service.model.tokenizer.infill_ids(str(prompt), asked.suffix or "") for prompt in asked.prompts]


def _logprobs(body: Body) -> int | None:
    """How many of the likeliest tokens are told beside each; None where nothing is."""
    asked = body.get("logprobs")
    return None if asked is None or asked is False else body.whole("logprobs", 0, 0, MOST_LOGPROBS)


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


class _Texts(Reply):
    prefix = "cmpl"
    kinds = ("text_completion", "text_completion")

    def __init__(self, asked: Asked, job: Job, service: Service, told: Seq[Seq[TokenLogprobs]] | None) -> None:
        super().__init__(asked.wanted, job, service)
        self._asked = asked
        samples = asked.wanted.best_of
        self._columns = [
            Columns(self._vocabulary, None if told is None else (sequence.prompt_ids[0], told[index // samples]))
            for index, sequence in enumerate(job.sequences)
        ]

    def _before(self, index: int) -> str:
        """What stands before the text of a choice: its prompt, where that is asked for."""
        if not self._asked.echo:
            return ""
        prompt = self._asked.prompts[index // self._wanted.best_of]
        return prompt if isinstance(prompt, str) else self._service.model.tokenizer.decode(prompt)

    def text(self, index: int, text: str) -> dict[str, Any]:
        return {"text": self._before(index) + text}

    def piece(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def opening(self, index: int) -> dict[str, Any] | None:
        if not self._asked.echo:
            return None
        text, asked = self._before(index), self._wanted.logprobs is not None
        return {"text": text, "logprobs": self.logprobs(index, ())} if asked else {"text": text}

    def logprobs(self, index: int, told: Iterable[TokenLogprobs]) -> dict[str, Any]:
        return self._columns[index].of(told)
