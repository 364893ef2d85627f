"""The requests of one server: which endpoint answers, who may ask, how much a body may hold, and what is logged."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect, Request

from codellm.errors import CodellmError
from codellm.serve.body import Body
from codellm.serve.chat_completions import apply_template, chat_completions
from codellm.serve.completions import completions
from codellm.serve.infill import infill
from codellm.serve.llamacpp import completion
from codellm.serve.ollama import generate, tags, version
from codellm.serve.page import page
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
"""What wants no key: neither tells anything of the models."""

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
    """An ASGI application. With a `key`, every request but those of `OPEN` must bear it; log lines hold no body.

    A body has `body_seconds` to come.
    """

    def __init__(self, service: Service, key: str | None, log: Log, body_seconds: float = BODY_SECONDS) -> None:
        self._service, self._log, self._body_seconds = service, log, body_seconds
        self._key = None if key is None else f"Bearer {key}".encode()
        self._gets: Mapping[str, Callable[[], Response]] = {
            "/": page,
            "/health": self._health,
            "/v1/models": self._models,
            "/api/tags": lambda: tags([service.name], service.created),
            "/api/version": version,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, status = time.perf_counter(), HUNG_UP

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            response = await self._answered(Request(scope, receive))
            await response(scope, receive, noted)
        except ClientDisconnect:
            status = HUNG_UP
        # the path alone: a query may hold anything
        path = scope.get("raw_path", b"").decode("ascii", "replace")[:100]
        self._log(f"{scope['method']} {path} {int(status)} {(time.perf_counter() - began) * 1000:.0f} ms")

    async def _answered(self, request: Request) -> Response:
        try:
            return await self._answer(request)
        except ClientDisconnect:
            raise
        except Exception as error:
            if not isinstance(error, Refusal | CodellmError):
                self._log(
                    f"internal error, please report it: {type(error).__name__} in {request.scope['path'][:100]!a}"
                )
            return refused(refusal(error), request.scope["path"])

    async def _answer(self, request: Request) -> Response:
        path, method = request.scope["path"], request.method
        if path not in self._gets and path not in POSTS:
            raise Refusal(HTTPStatus.NOT_FOUND, "there is nothing at this path", code="not_found")
        if path not in OPEN:
            self._admit(request)
        if path in self._gets and method in ("GET", "HEAD"):
            return self._gets[path]()
        if path in POSTS and method == "POST":
            return await POSTS[path](request, Body(await _read(request, self._body_seconds)), self._service)
        allowed = "GET" if path in self._gets else "POST"
        refusal = Refusal(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes {allowed}", code="method_not_allowed")
        refusal.headers = {"Allow": allowed}
        raise refusal

    def _admit(self, request: Request) -> None:
        given = request.headers.get("authorization", "").encode("utf-8", "replace")
        if self._key is not None and not hmac.compare_digest(given, self._key):
            raise Refusal(
                HTTPStatus.UNAUTHORIZED,
                "this server wants its API key: Authorization: Bearer KEY",
                code="invalid_api_key",
            )

    def _health(self) -> Response:
        return Json({"status": "ok"})

    def _models(self) -> Response:
        service = self._service
        model = {"id": service.name, "object": "model", "created": service.created, "owned_by": "codellm"}
        return Json({"object": "list", "data": [model]})


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
