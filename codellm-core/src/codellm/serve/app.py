"""The requests of one server: which endpoint answers, who may ask, how much a body may hold, and what is logged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect, Request

from codellm.errors import CodellmError
from codellm.serve.body import Body
from codellm.serve.chat_completions import apply_template, chat_completions
from codellm.serve.completions import completions
from codellm.serve.gate import Gate
from codellm.serve.infill import infill
from codellm.serve.llamacpp import completion
from codellm.serve.metrics import ELSEWHERE, Metrics
from codellm.serve.ollama import generate, tags, version
from codellm.serve.page import page
from codellm.serve.pool import Entry, Pool
from codellm.serve.props import props
from codellm.serve.refusal import Refusal, refusal
from codellm.serve.replies import Json, refused
from codellm.serve.service import Service
from codellm.serve.tokens import detokenize, tokenize

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Message, Receive, Scope, Send

Log = Callable[[str], None]
"""Takes a line for the person at the terminal."""

BODY_BYTES = 8 * 2**20
BODY_SECONDS = 30.0
"""What a body may hold, and how long it may take to come."""

HUNG_UP = 499
"""What the log says of a client that went away, after nginx; nobody gets it."""

OPEN = ("/", "/health")
"""What passes without the gate: neither tells anything of the models."""


def models(pool: Pool) -> Response:
    """The models that there are, the first of which is meant where a request names none; in the shape of OpenAI's API,
    with the word of llama.cpp's server for how each is, and how many sequences run and wait.
    """
    return Json({"object": "list", "data": [_described(entry, pool.created) for entry in pool.entries]})


def _described(entry: Entry, created: int) -> dict[str, Any]:
    running, waiting = entry.counts
    status = {"value": entry.state, "running": running, "waiting": waiting}
    return {"id": entry.name, "object": "model", "created": created, "owned_by": "codellm", "status": status}


GETS: Mapping[str, Callable[[Pool], Response]] = {
    "/": lambda _: page(),
    "/health": lambda _: Json({"status": "ok"}),
    "/v1/models": models,
    "/api/tags": lambda pool: tags([entry.name for entry in pool.entries], pool.created),
    "/api/version": lambda _: version(),
}

OF_A_MODEL: Mapping[str, Callable[[Service], Response]] = {"/props": props}
"""What is got of the model that the query names."""

POSTS: Mapping[str, Callable[[Request, Body, Service], Awaitable[Response]]] = {
    "/v1/completions": completions,
    "/v1/chat/completions": chat_completions,
    "/completion": completion,
    "/infill": infill,
    "/tokenize": tokenize,
    "/detokenize": detokenize,
    "/apply-template": apply_template,
    "/api/generate": generate,
}


class App:
    """An ASGI application over the models of `pool`.

    Every request but those of `OPEN` passes the `gate` first; log lines hold no body, unless with `log_prompts`.

    A body has `body_seconds` to come.
    """

    def __init__(
        self, pool: Pool, gate: Gate, log: Log, body_seconds: float = BODY_SECONDS, *, log_prompts: bool = False
    ) -> None:
        self._pool, self._gate, self._log, self._body_seconds = pool, gate, log, body_seconds
        self._log_prompts = log_prompts
        self._metrics = Metrics(pool)
        self._gets: dict[str, Callable[[Pool], Response]] = {**GETS, "/metrics": lambda _: self._metrics.answer()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, status = time.perf_counter(), HUNG_UP

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            async with AsyncExitStack() as held:
                response = await self._answered(Request(scope, receive), held)
                await response(scope, receive, noted)
        except ClientDisconnect:
            status = HUNG_UP
        self._metrics.count(scope["path"] if self._there(scope["path"]) else ELSEWHERE, int(status))
        # the path alone: a query may hold anything
        path = scope.get("raw_path", b"").decode("ascii", "replace")[:100]
        self._log(f"{scope['method']} {path} {int(status)} {(time.perf_counter() - began) * 1000:.0f} ms")

    def _there(self, path: str) -> bool:
        return path in self._gets or path in OF_A_MODEL or path in POSTS

    async def _answered(self, request: Request, held: AsyncExitStack) -> Response:
        try:
            return await self._answer(request, held)
        except ClientDisconnect:
            raise
        except Exception as error:
            if not isinstance(error, Refusal | CodellmError):
                self._log(
                    f"internal error, please report it: {type(error).__name__} in {request.scope['path'][:100]!a}"
                )
            return refused(refusal(error), request.scope["path"])

    async def _answer(self, request: Request, held: AsyncExitStack) -> Response:
        """Answer with what `held` keeps loaded until all of it is sent."""
        path, method = request.scope["path"], request.method
        if not self._there(path):
            raise Refusal(HTTPStatus.NOT_FOUND, "there is nothing at this path", code="not_found")
        if path not in OPEN:
            self._gate.admit(request)
        if path in self._gets and method in ("GET", "HEAD"):
            return self._gets[path](self._pool)
        if path in OF_A_MODEL and method in ("GET", "HEAD"):
            name = request.query_params.get("model", "")
            return OF_A_MODEL[path](await held.enter_async_context(self._pool.service(name)))
        if path in POSTS and method == "POST":
            body = Body(await _read(request, self._body_seconds), path)
            if self._log_prompts:
                self._log(f"{path} asks {body}")
            service = await held.enter_async_context(self._pool.service(body.text("model")))
            return await POSTS[path](request, body, service)
        allowed = "POST" if path in POSTS else "GET"
        refusal = Refusal(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes {allowed}", code="method_not_allowed")
        refusal.headers = {"Allow": allowed}
        raise refusal


async def _read(request: Request, seconds: float) -> bytes:
    """The body of a request, which has so many `seconds` to come.

    Raises:
        Refusal: it is too large, or takes too long.
    """
    data = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for piece in request.stream():
                data += piece
                if len(data) > BODY_BYTES:
                    raise Refusal(
                        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                        f"a body may hold {BODY_BYTES >> 20} MiB",
                        code="body_too_large",
                    )
    except TimeoutError:
        raise Refusal(HTTPStatus.REQUEST_TIMEOUT, "the body did not come in time", code="timeout") from None
    return bytes(data)
