"""What is sent: JSON at once, or events of a stream, each as it comes."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response

from codellm.serve.refusal import Refusal, refusal

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

_DONE = b"data: [DONE]\n\n"


class Json(Response):
    """An object as JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return encoded(content)


def encoded(content: Mapping[str, Any]) -> bytes:
    """JSON in UTF-8, on one line."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")


def refused(error: Refusal) -> Json:
    """The answer to a request that is not done."""
    return Json(error.body(), error.status, error.headers)


class EventStream(Response):
    """Server-sent events, one for each object of `parts`, and `[DONE]` at the end; an error becomes an event too."""

    media_type = "text/event-stream"

    def __init__(self, parts: AsyncGenerator[Mapping[str, Any], None]) -> None:
        super().__init__(headers={"cache-control": "no-cache"})
        del self.headers["content-length"]
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def push(data: bytes, *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._parts) as parts:
            try:
                async for part in parts:
                    await push(b"data: " + encoded(part) + b"\n\n")
            except ClientDisconnect:
                raise
            except Exception as error:  # the status is sent already
                await push(b"data: " + encoded(refusal(error).body()) + b"\n\n")
            await push(_DONE, more=False)
