"""`POST /completion`, as llama.cpp's server has it, and what its `/infill` asks and answers in the same words."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncGenerator, Mapping
from collections.abc import Sequence as Seq
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Self

import attrs

from codellm.plugins.guard import guarded
from codellm.result import FinishReason
from codellm.sampling import SamplingParams
from codellm.serve.body import Body
from codellm.serve.job import Job
from codellm.serve.lines import Lines
from codellm.serve.refusal import bad
from codellm.serve.replies import EventStream, Json
from codellm.serve.service import Service, listening

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

_FIELDS = 64

DEFAULTS: Mapping[str, float] = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}
"""How llama.cpp's server samples where a request says nothing."""

_STOPPED: Mapping[FinishReason, str] = {"eos": "eos", "stop": "word", "length": "limit", "cancelled": "limit"}


@attrs.frozen(kw_only=True)
class Wanted:
    """How much of what is generated is told, and how. To `warm` is to read the prompt and tell nothing."""

    params: SamplingParams
    warm: bool
    indent: int
    seconds: float | None
    fields: Seq[str]
    stream: bool

    @classmethod
    def of(cls, body: Body, context_length: int, **defaults: Any) -> Self:
        """Read a body; `defaults` are those of `Body.sampling`.

        Raises:
            Refusal: a field is not as it must be.
        """
        tokens = body.whole("n_predict", -1, -1)
        milliseconds = body.number("t_max_predict_ms", 0)
        body.number("t_max_prompt_ms", 0)  # no prompt is left half read, here and there
        return cls(
            params=body.sampling(context_length if tokens < 0 else max(tokens, 1), **defaults),
            warm=tokens == 0,
            indent=body.whole("n_indent", 0, 0),
            seconds=milliseconds / 1000 if milliseconds > 0 else None,
            fields=body.texts("response_fields", _FIELDS),
            stream=body.flag("stream"),
        )

    def settings(self, context_length: int) -> dict[str, Any]:
        """This in llama.cpp's words."""
        params = self.params
        return {
            "n_ctx": context_length,
            "n_predict": 0 if self.warm else params.max_tokens,
            "n_indent": self.indent,
            "temperature": params.temperature,
            "top_k": params.top_k,
            "top_p": params.top_p,
            "min_p": params.min_p,
            "repeat_penalty": params.repetition_penalty,
            "seed": -1 if params.seed is None else params.seed,
            "stop": list(params.stop),
            "ignore_eos": params.ignore_eos,
            "stream": self.stream,
        }


async def completion(request: Request, body: Body, service: Service) -> Response:
    """Answer a request. Special strings in a prompt that is text are tokens, as clients of this endpoint write them.

    Raises:
        Refusal: it asks for what cannot be had.
        CodellmError: see `Service.submit`, and what ends a sequence.
    """
    body.whole("n", 1, 1, 1)
    prompt = body.get("prompt")
    if not isinstance(prompt, str) and not (isinstance(prompt, list) and all(type(id) is int for id in prompt)):
        raise bad("prompt must be a string or a list of token ids; ask for one at a time", "prompt")
    wanted = Wanted.of(body, service.model.info.context_length, **DEFAULTS)
    ids = await service.encoded(lambda: raw_ids(service, prompt)) if isinstance(prompt, str) else prompt
    return await Reply(wanted, await service.submit([ids], wanted.params), service).answer(request)


def raw_ids(service: Service, text: str) -> list[int] | str:
    """The ids of a prompt in which special strings are tokens; an empty text is what it is everywhere.

    Raises:
        InvalidValueError: it holds a lone surrogate.
    """
    tokenizer = service.model.tokenizer
    with guarded(service.model.info.backend, "to encode a prompt"):
        ids = tokenizer.encode(text, special=True)
    if not ids:
        return text
    begins = not tokenizer.add_bos or tokenizer.bos in (None, ids[0])
    return ids if begins else [tokenizer.bos, *ids]  # type: ignore[list-item]  # it is none of these


class Reply:
    """The answer to one request, from the events of its job."""

    def __init__(self, wanted: Wanted, job: Job, service: Service) -> None:
        self._wanted, self._job, self._service = wanted, job, service
        self._lines = Lines(wanted.indent, wanted.seconds)
        self._began = self._first = time.perf_counter()
        self._reason: FinishReason = "cancelled"
        self._text = ""
        self._heard = 0  # bytes

    async def answer(self, request: Request) -> Response:
        """What is sent: all at the end, or each part as it comes."""
        if self._wanted.stream:
            return EventStream(self._parts(request))
        async for _ in self._pieces(request):
            pass
        return Json(self._chosen(self._end(self._text)))

    async def _parts(self, request: Request) -> AsyncGenerator[dict[str, Any], None]:
        async with aclosing(self._pieces(request)) as pieces:
            async for piece in pieces:
                yield {"index": 0, "content": piece, "stop": False}
        yield self._chosen(self._end(""))

    async def _pieces(self, request: Request) -> AsyncGenerator[str, None]:
        """The text as it comes, until it ends by itself or where its lines do, which frees the slot."""
        started = False
        async with listening(request, self._service.engine, self._job) as events:
            async for event in events:
                now = time.perf_counter()
                self._first = self._first if started else now
                started = True
                self._heard += len(event.text.encode("utf-8", "replace"))
                piece = "" if self._wanted.warm else self._lines.push(event.text, now - self._first)
                if event.result is not None and not self._lines.ended:
                    self._reason = event.result.finish_reason
                    piece += self._lines.finish()
                if piece:
                    self._text += piece
                    yield piece
                if self._lines.ended:
                    return

    def _end(self, content: str) -> dict[str, Any]:
        sequence, warm = self._job.sequences[0], self._wanted.warm
        count, prompt = 0 if warm else self._count(), len(sequence.prompt_ids)
        context = self._service.model.info.context_length
        return {
            "index": 0,
            "content": content,
            "stop": True,
            "model": self._service.name,
            "tokens_predicted": count,
            "tokens_evaluated": prompt,
            "generation_settings": self._wanted.settings(context),
            "has_new_line": "\n" in self._text,
            "truncated": prompt + count >= context,
            "stop_type": "limit" if warm else _STOPPED[self._reason],
            "tokens_cached": sequence.cached_tokens,
            "timings": self._timings(prompt, sequence.cached_tokens, count),
        }

    def _count(self) -> int:
        """The tokens that made the text so far, since a sequence whose lines have ended may run for two steps more."""
        ids = tuple(self._job.sequences[0].token_ids)
        if not self._lines.ended:
            return len(ids)
        sizes = itertools.accumulate(len(self._service.model.tokenizer.token_bytes(id)) for id in ids)
        return next((count for count, size in enumerate(sizes, 1) if size >= self._heard), len(ids))

    def _timings(self, prompt: int, cached: int, count: int) -> dict[str, float]:
        """The figures that editors show: waiting in the queue counts as prompt, and so does the first token."""
        first = (self._first - self._began) * 1000
        rest = (time.perf_counter() - self._first) * 1000
        return {
            "cache_n": cached,
            **_rate("prompt", prompt - cached, prompt - cached, first),
            **_rate("predicted", count, max(count - 1, 0), rest),
        }

    def _chosen(self, end: dict[str, Any]) -> dict[str, Any]:
        """The fields that are asked for; `a/b` is the field b of a, under that very name."""
        if not self._wanted.fields:
            return end
        found = {name: _at(end, name.split("/")) for name in self._wanted.fields}
        return {name: value for name, value in found.items() if value is not None}


def _rate(name: str, count: int, timed: int, milliseconds: float) -> dict[str, float]:
    """A count of tokens, and how fast those of them came that the time was for."""
    return {
        f"{name}_n": count,
        f"{name}_ms": milliseconds,
        f"{name}_per_token_ms": milliseconds / timed if timed else 0.0,
        f"{name}_per_second": timed / milliseconds * 1000 if milliseconds > 0 else 0.0,
    }


def _at(part: Any, path: Seq[str]) -> Any:
    for key in path:
        part = part.get(key) if isinstance(part, Mapping) else None
    return part
