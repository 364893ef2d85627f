"""`POST /api/generate` and `GET /api/tags`, as Ollama's API has them: what its clients ask for."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import attrs

from codellm import __version__
from codellm.chat import chat_request
from codellm.plugins.guard import guarded
from codellm.result import Result
from codellm.sampling import SamplingParams
from codellm.serve.body import Body
from codellm.serve.infill import Around, infill_ids
from codellm.serve.job import Job
from codellm.serve.llamacpp import raw_ids
from codellm.serve.refusal import bad
from codellm.serve.replies import Json, JsonLines
from codellm.serve.service import Prompt, Service, listening

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

_UNSUPPORTED = ("template", "images", "format", "context", "think")
"""Fields of this endpoint that would change the answer; what is empty or false asks for nothing."""


@attrs.frozen(kw_only=True)
class Asked:
    """What a request asks for. A prompt that is not `raw` is what a user says, where the model has a chat template."""

    prompt: str
    suffix: str
    system: str
    raw: bool
    stream: bool
    params: SamplingParams

    @classmethod
    def of(cls, body: Body, context_length: int) -> Asked:
        """Read a body.

        Raises:
            Refusal: a field is not as it must be, or asks for what there is not.
        """
        for name in _UNSUPPORTED:
            if body.get(name):
                raise bad(f"{name} is not supported here; leave it out", name, code="unsupported_field")
        options = body.inner("options")
        tokens = options.whole("num_predict", -1, -2)
        params = options.sampling(
            tokens if tokens > 0 else context_length, temperature=0.8, top_k=40, top_p=0.9
        )  # fmt: skip
        if options.whole("repeat_last_n", 64, -1) == 0:
            params = attrs.evolve(params, repetition_penalty=1.0)
        asked = cls(
            prompt=body.text("prompt"),
            suffix=body.text("suffix"),
            system=body.text("system"),
            raw=body.flag("raw"),
            stream=body.get("stream") is None or body.flag("stream"),
            params=params,
        )
        if asked.system and (asked.raw or asked.suffix):
            raise bad("system goes with neither raw nor suffix", "system", code="unsupported_field")
        return asked

    def request(self, service: Service) -> tuple[Prompt, SamplingParams]:
        """The prompt, and how to sample from it.

        Raises:
            CodellmError: the model cannot infill, has no template that takes a system's message, or a broken one.
        """
        model = service.model
        if self.suffix:
            around = Around(prefix=self.prompt, suffix=self.suffix)
            return infill_ids(model, around, self.params.max_tokens), self.params
        if self.raw or (model.tokenizer.chat_template is None and not self.system):
            return raw_ids(service, self.prompt), self.params
        messages = [{"role": "user", "content": self.prompt}]
        if self.system:
            messages.insert(0, {"role": "system", "content": self.system})
        with guarded(model.info.backend, "to encode a conversation"):
            return chat_request(model.tokenizer, messages, self.params, service.name)


async def generate(request: Request, body: Body, service: Service) -> Response:
    """Answer a request. One without a text has the model loaded, which it then is.

    Raises:
        Refusal: it asks for what cannot be had.
        CodellmError: see `Asked.request` and `Service.submit`, and what ends a sequence.
    """
    began = time.perf_counter()
    asked = Asked.of(body, service.model.info.context_length)
    if not asked.prompt and not asked.suffix:
        return Json(_part(service, "", done=True, done_reason="load"))
    prompt, params = await service.encoded(lambda: asked.request(service))
    reply = _Reply(began, await service.submit([prompt], params), service)
    return JsonLines(reply.parts(request)) if asked.stream else Json(await reply.whole(request))


def tags(names: Iterable[str], created: int) -> Response:
    """The models that there are, by their names."""
    since = _time(created)
    details = {
        "parent_model": "",
        "format": "",
        "family": "",
        "families": None,
        "parameter_size": "",
        "quantization_level": "",
    }
    models = [
        {"name": name, "model": name, "modified_at": since, "size": 0, "digest": "", "details": details}
        for name in names
    ]
    return Json({"models": models})


def version() -> Response:
    """The version of this server."""
    return Json({"version": __version__})


class _Reply:
    """The answer to one request, from the events of its job."""

    def __init__(self, began: float, job: Job, service: Service) -> None:
        self._began, self._job, self._service = began, job, service

    async def whole(self, request: Request) -> dict[str, Any]:
        async with aclosing(self.parts(request)) as parts:
            found = [part async for part in parts]
        return {**found[-1], "response": "".join(part["response"] for part in found)}

    async def parts(self, request: Request) -> AsyncGenerator[dict[str, Any], None]:
        first: float | None = None
        async with listening(request, self._service.engine, self._job) as events:
            async for event in events:
                first = first or time.perf_counter()
                if event.text:
                    yield _part(self._service, event.text, done=False)
                if event.result is not None:
                    yield self._last(event.result, first)

    def _last(self, result: Result, first: float) -> dict[str, Any]:
        """The end of a stream; durations are whole nanoseconds, and waiting in the queue counts as prompt."""
        now = time.perf_counter()
        return _part(
            self._service,
            "",
            done=True,
            done_reason="length" if result.finish_reason == "length" else "stop",
            total_duration=_nanoseconds(now - self._began),
            load_duration=0,
            prompt_eval_count=len(self._job.sequences[0].prompt_ids),
            prompt_eval_duration=_nanoseconds(first - self._began),
            eval_count=len(result.token_ids),
            eval_duration=_nanoseconds(now - first),
        )


def _part(service: Service, text: str, *, done: bool, **more: Any) -> dict[str, Any]:
    return {"model": service.name, "created_at": _time(time.time()), "response": text, "done": done, **more}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
