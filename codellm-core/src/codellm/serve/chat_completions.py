"""`POST /v1/chat/completions`, as OpenAI's API has it, and llama.cpp's `/apply-template`: answers to conversations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from codellm.chat import chat_request, chat_text
from codellm.errors import InvalidValueError, message
from codellm.plugins.guard import guarded
from codellm.result import TokenLogprobs
from codellm.sampling import MOST_LOGPROBS
from codellm.serve.body import Body
from codellm.serve.choices import Reply, Wanted
from codellm.serve.logprobs import contents
from codellm.serve.refusal import bad
from codellm.serve.replies import Json
from codellm.serve.service import Service

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

T = TypeVar("T")

MESSAGES = 4096
"""Messages of a conversation."""


async def chat_completions(request: Request, body: Body, service: Service) -> Response:
    """Answer a conversation; as many tokens as there is room for, unless the client says fewer.

    Raises:
        Refusal: it asks for what cannot be had.
        CodellmError: the model has no chat template, or a broken one; see `Service.submit`, and what ends a sequence.
    """
    messages = _messages(body)
    room = body.whole("max_tokens", service.model.info.context_length, 1)
    wanted = Wanted.of(body, body.whole("max_completion_tokens", room, 1), _logprobs(body))
    tokenizer, name = service.model.tokenizer, service.name
    ids, params = await _templated(service, lambda: chat_request(tokenizer, messages, wanted.params, name))
    job = await service.submit([ids], params, wanted.n)
    return await _Messages(wanted, job, service).answer(request)


async def apply_template(_: Request, body: Body, service: Service) -> Response:
    """The prompt that the model's chat template makes of `messages`, as text.

    Raises:
        Refusal: a message is none, or the template refuses them.
        CodellmError: the model has no chat template, or a broken one.
    """
    messages = _messages(body)
    tokenizer, name = service.model.tokenizer, service.name
    return Json({"prompt": await _templated(service, lambda: chat_text(tokenizer, messages, name))})


def _messages(body: Body) -> list[Any]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise bad("messages must be a list of at least one message", "messages")
    if len(messages) > MESSAGES:
        raise bad(f"messages has {len(messages)} entries, and may have {MESSAGES}", "messages")
    return messages


def _logprobs(body: Body) -> int | None:
    """How many of the likeliest tokens are told beside each; None where nothing is."""
    top = body.whole("top_logprobs", 0, 0, MOST_LOGPROBS)
    if body.flag("logprobs"):
        return top
    if top:
        raise bad("top_logprobs goes with logprobs, which must be true", "top_logprobs")
    return None


async def _templated(service: Service, work: Callable[[], T]) -> T:
    """What `work` makes of messages, beside the event loop."""

    def guarded_work() -> T:
        with _of_messages(), guarded(service.model.info.backend, "to encode a conversation"):
            return work()

    return await service.encoded(guarded_work)


@contextmanager
def _of_messages() -> Iterator[None]:
    """What is wrong with a value is wrong with the messages: nothing else is looked at here."""
    try:
        yield
    except InvalidValueError as error:
        raise bad(message(error), "messages") from error


class _Messages(Reply):
    prefix = "chatcmpl"
    kinds = ("chat.completion", "chat.completion.chunk")

    def text(self, index: int, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def piece(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text} if text else {}}

    def opening(self, index: int) -> dict[str, Any] | None:
        return {"delta": {"role": "assistant", "content": ""}}

    def logprobs(self, index: int, told: Iterable[TokenLogprobs]) -> dict[str, Any]:
        return contents(self._vocabulary, told)
