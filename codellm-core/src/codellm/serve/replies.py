"""What is sent: JSON at once, or events of a stream, each as it comes."""

from __future__ import annotations

import abc
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


def refused(error: Refusal, path: str) -> Json:
    """The answer to a request that is not done; below `/api/` the error is a text, as Ollama's API has it."""
    content = {"error": str(error)} if path.startswith("/api/") else error.body()
    return Json(content, error.status, error.headers)


class Stream(Response, abc.ABC):
    """The objects of `parts`, each as it comes; an error becomes one too, since the status is sent already."""

    def __init__(self, parts: AsyncGenerator[Mapping[str, Any], None]) -> None:
        super().__init__(headers={"cache-control": "no-cache"})
        del self.headers["content-length"]
        self._parts = parts

    @abc.abstractmethod
    def framed(self, part: Mapping[str, Any]) -> bytes:
        """An object as it is sent."""

    def failed(self, error: Refusal) -> Mapping[str, Any]:
        """The object of an error."""
        return error.body()

    def end(self) -> bytes:
        """What is sent after the last object."""
        return b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def push(data: bytes, *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._parts) as parts:
            try:
                async for part in parts:
                    await push(self.framed(part))
            except ClientDisconnect:
                raise
            except Exception as error:
                await push(self.framed(self.failed(refusal(error))))
            await push(self.end(), more=False)


class EventStream(Stream):
    """Server-sent events, and `[DONE]` at the end."""

    media_type = "text/event-stream"

    def framed(self, part: Mapping[str, Any]) -> bytes:
        return b"data: " + encoded(part) + b"\n\n"

    def end(self) -> bytes:
        return _DONE


class JsonLines(Stream):
    """One object on each line, and errors that are a text, as Ollama's API has them."""

    media_type = "application/x-ndjson"

    def framed(self, part: Mapping[str, Any]) -> bytes:
        return encoded(part) + b"\n"

    def failed(self, error: Refusal) -> Mapping[str, Any]:
        return {"error": str(error)}
