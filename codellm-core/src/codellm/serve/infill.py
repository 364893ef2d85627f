"""`POST /infill`, as llama.vim and llama.vscode send it: what belongs at the cursor of a file."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING, Self

import attrs

from codellm.errors import NoFimError
from codellm.model import Model
from codellm.plugins.guard import guarded
from codellm.serve.body import Body
from codellm.serve.llamacpp import Reply, Wanted
from codellm.serve.refusal import bad
from codellm.serve.service import Service

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

_CHARACTERS = 16
"""Characters of a text that are looked at for each token that there is room for: few tokens are longer."""


@attrs.frozen(kw_only=True)
class Around:
    """What stands around a cursor. `files` are names and texts, the one that matters most last."""

    prefix: str
    suffix: str
    files: Seq[tuple[str, str]] = ()

    @classmethod
    def of(cls, body: Body) -> Self:
        """Read a body.

        Raises:
            Refusal: a field is not as it must be.
        """
        prefix = body.text("input_prefix") + body.text("prompt")
        return cls(prefix=prefix, suffix=body.text("input_suffix"), files=_files(body.get("input_extra")))


def _files(value: object) -> list[tuple[str, str]]:
    files = [] if value is None else value
    if not isinstance(files, list) or not all(isinstance(one, dict) for one in files):
        raise bad("input_extra must be a list of objects with filename and text", "input_extra")
    found = [(one.get("filename") or "", one.get("text") or "") for one in files]
    if not all(isinstance(part, str) for pair in found for part in pair):
        raise bad("filename and text of input_extra must be strings", "input_extra")
    return found


async def infill(request: Request, body: Body, service: Service) -> Response:
    """Answer a request.

    Raises:
        Refusal: it asks for what cannot be had.
        CodellmError: see `Service.submit`, and what ends a sequence.
    """
    wanted = Wanted.of(body, service.model.info.context_length, temperature=0.0)
    around = Around.of(body)
    ids = await service.encoded(lambda: infill_ids(service.model, around, wanted.params.max_tokens))
    return await Reply(wanted, await service.submit([ids], wanted.params), service).answer(request)


def infill_ids(model: Model, around: Around, max_tokens: int) -> list[int]:
    """The prompt: other files as far as there is room, then the text around the cursor, cut at its far ends.

    What is generated gets the room that it asks for, at most a half; the text before the cursor gets three quarters of
    the rest, the text after it one, and either what the other leaves.

    Raises:
        NoFimError: the model has no fill-in-the-middle tokens.
        InvalidValueError: a text holds a lone surrogate.
    """
    tokenizer, context = model.tokenizer, model.info.context_length
    with guarded(model.info.backend, "to encode a prompt"):
        frame = len(tokenizer.infill_ids("", ""))
        room = max(context - min(max_tokens, context // 2) - frame, 0)
        fim = tokenizer.fim
        if fim is None:
            raise NoFimError("the tokenizer has no fill-in-the-middle tokens")
        ahead = tokenizer.encode(around.prefix[-room * _CHARACTERS :] if room else "")
        behind = tokenizer.encode(around.suffix[: room * _CHARACTERS])
        before = min(len(ahead), max(room - room // 4, room - len(behind)))
        behind = behind[: room - before]
        ahead = ahead[len(ahead) - before :]
        start = [tokenizer.bos] if tokenizer.add_bos and tokenizer.bos is not None else []
        context_ids = [] if fim.file is None else _context(model, around.files, fim.file, room - before - len(behind))
    return [*start, *context_ids, *fim.prompt(ahead, behind)]


def _context(model: Model, files: Seq[tuple[str, str]], separator: int, room: int) -> list[int]:
    """The last of `files` that fit whole: each a token, its name, a line's end and its text; a token after the last.

    As StarCoder2 (arXiv:2402.19173) and Qwen2.5-Coder (arXiv:2409.12186) were trained; the name of the repository,
    which they know too, no editor sends.
    """
    ids: list[int] = []
    room -= 1
    for name, text in reversed(files):
        if len(text) > room * _CHARACTERS:
            break
        file = [separator, *model.tokenizer.encode(f"{name}\n{text}")]
        if len(file) > room:
            break
        ids[:0] = file
        room -= len(file)
    return [*ids, separator] if ids else []
