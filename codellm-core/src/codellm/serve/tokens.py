"""`POST /tokenize` and `/detokenize`, as llama.cpp's server has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codellm.plugins.guard import guarded
from codellm.serve.body import Body
from codellm.serve.refusal import bad
from codellm.serve.replies import Json
from codellm.serve.service import Service

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


async def tokenize(_: Request, body: Body, service: Service) -> Response:
    """The ids of `content`.

    They begin with the model's own token where `add_special` is set; special strings are tokens where
    `parse_special` is.

    Raises:
        Refusal: a field is not as it must be.
        CodellmError: the text cannot be encoded.
    """
    content = body.text("content")
    special, begin = body.flag("parse_special"), body.flag("add_special")

    def work() -> list[int]:
        tokenizer = service.model.tokenizer
        with guarded(service.model.info.backend, "to encode a text"):
            start = [tokenizer.bos] if begin and tokenizer.add_bos and tokenizer.bos is not None else []
            return [*start, *tokenizer.encode(content, special)]

    return Json({"tokens": await service.encoded(work)})


async def detokenize(_: Request, body: Body, service: Service) -> Response:
    """The text of `tokens`; bytes that are no UTF-8 become U+FFFD.

    Raises:
        Refusal: they are no ids of the vocabulary.
        CodellmError: they cannot be decoded.
    """
    ids = body.get("tokens")
    size = service.model.tokenizer.vocab_size
    if not isinstance(ids, list) or not all(type(id) is int and 0 <= id < size for id in ids):
        raise bad(f"tokens must be a list of ids from 0 to {size - 1}", "tokens")

    def work() -> str:
        with guarded(service.model.info.backend, "to decode tokens"):
            return service.model.tokenizer.decode(ids)

    return Json({"content": await service.encoded(work)})
