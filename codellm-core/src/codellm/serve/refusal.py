"""What a client is told where its request is not done: a status, and an error as OpenAI's API writes it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from codellm.errors import (
    CodellmError,
    ContextLengthError,
    InvalidValueError,
    NoChatTemplateError,
    NoFimError,
    QueueFullError,
    StoppingError,
    message,
)

RETRY_AFTER = {"Retry-After": "1"}
"""Seconds: a slot is free as soon as any of the running requests ends."""


class Refusal(Exception):  # noqa: N818  # what a client gets is no fault of the server
    """A request that is answered with an error. `param` names the field at fault, `code` the kind of fault."""

    def __init__(self, status: HTTPStatus, text: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(text)
        self.status, self.code, self.param = status, code, param
        busy = status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
        self.headers = RETRY_AFTER if busy else {}

    def body(self) -> dict[str, Any]:
        """The error as JSON has it."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "code": self.code, "param": self.param}}


_TYPES = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}

_KINDS: tuple[tuple[type[CodellmError], HTTPStatus, str | None], ...] = (
    (QueueFullError, HTTPStatus.TOO_MANY_REQUESTS, "queue_full"),
    (StoppingError, HTTPStatus.SERVICE_UNAVAILABLE, "stopping"),
    (ContextLengthError, HTTPStatus.BAD_REQUEST, "context_length_exceeded"),
    (NoFimError, HTTPStatus.BAD_REQUEST, "no_infill"),
    (NoChatTemplateError, HTTPStatus.BAD_REQUEST, "no_chat_template"),
    (InvalidValueError, HTTPStatus.BAD_REQUEST, "invalid_value"),
)


def refusal(error: Exception) -> Refusal:
    """An error of any kind as a client is told of it."""
    if isinstance(error, Refusal):
        return error
    for kind, status, code in _KINDS:
        if isinstance(error, kind):
            return Refusal(status, message(error), code=code)
    return Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, message(error), code="failed")


def bad(text: str, param: str | None = None, code: str = "invalid_value") -> Refusal:
    """A request that says what no request may say."""
    return Refusal(HTTPStatus.BAD_REQUEST, text, code=code, param=param)
