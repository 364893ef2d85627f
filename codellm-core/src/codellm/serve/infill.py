"""`POST /infill`, as llama.vim and llama.vscode send it: what belongs at the cursor of a file."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING, Any

import attrs

from codellm.errors import NoFimError
from codellm.generation import Event
from codellm.model import Model
from codellm.plugins.guard import guarded
from codellm.result import Result
from codellm.sampling import SamplingParams
from codellm.serve.body import Body
from codellm.serve.job import Job
from codellm.serve.refusal import bad
from codellm.serve.replies import EventStream, Json
from codellm.serve.service import Service, listening

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

_FILES = 256
_FIELDS = 64

_CHARACTERS = 16
"""Characters of a text that are looked at for each token that there is room for: few tokens are longer."""

_STOPPED = {"eos": "eos", "stop": "word", "length": "limit", "cancelled": "limit"}


@attrs.frozen(kw_only=True)
class Asked:
    """What a request asks for. `files` are names and texts, the one that matters most last."""

    prefix: str
    suffix: str
    files: Seq[tuple[str, str]]
    params: SamplingParams
    warm: bool
    limit: float | None
    fields: Seq[str]

    @classmethod
    def of(cls, body: Body, context_length: int) -> Asked:
        """Read a body.

        Raises:
            Refusal: a field is not as it must be.
        """
        tokens = body.whole("n_predict", -1, -1)
        limit = body.number("t_max_predict_ms", 0)
        return cls(
            prefix=body.text("input_prefix") + body.text("prompt"),
            suffix=body.text("input_suffix"),
            files=_files(body.get("input_extra")),
            params=body.sampling(context_length if tokens < 0 else max(tokens, 1), temperature=0.0),
            warm=tokens == 0,
            limit=limit / 1000 if limit > 0 else None,
            fields=body.texts("response_fields", _FIELDS),
        )


def _files(value: object) -> list[tuple[str, str]]:
    files = [] if value is None else value
    if not isinstance(files, list) or not all(isinstance(one, dict) for one in files):
        raise bad("input_extra must be a list of objects with filename and text", "input_extra")
    if len(files) > _FILES:
        raise bad(f"input_extra has {len(files)} entries, and may have {_FILES}", "input_extra")
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
    service.require(body)
    asked = Asked.of(body, service.model.info.context_length)
    ids = await service.encoded(lambda: infill_ids(service.model, asked))
    reply = _Reply(asked, await service.submit([ids], asked.params), service)
    if body.flag("stream"):
        return EventStream(reply.parts(request))
    return Json(await reply.whole(request))


def infill_ids(model: Model, asked: Asked) -> list[int]:
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
        room = max(context - min(asked.params.max_tokens, context // 2) - frame, 0)
        fim = tokenizer.fim
        if fim is None:
            raise NoFimError("the tokenizer has no fill-in-the-middle tokens")
        prefix = tokenizer.encode(asked.prefix[-room * _CHARACTERS :] if room else "")
        suffix = tokenizer.encode(asked.suffix[: room * _CHARACTERS])
        before = min(len(prefix), max(room - room // 4, room - len(suffix)))
        suffix = suffix[: room - before]
        prefix = prefix[len(prefix) - before :]
        start = [tokenizer.bos] if tokenizer.add_bos and tokenizer.bos is not None else []
        files = [] if fim.file is None else _context(model, asked.files, fim.file, room - before - len(suffix))
    return [*start, *files, *fim.prompt(prefix, suffix)]


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


class _Reply:
    """The answer to one request, from the events of its job."""

    def __init__(self, asked: Asked, job: Job, service: Service) -> None:
        self._asked, self._job, self._service = asked, job, service
        self._began: float | None = None
        self._lines = False

    async def whole(self, request: Request) -> dict[str, Any]:
        pieces: list[str] = []
        last: Result | None = None
        async for event in self._events(request):
            pieces.append(event.text)
            last = event.result
        return self._chosen(self._end("".join(pieces), last))

    async def parts(self, request: Request) -> AsyncGenerator[dict[str, Any], None]:
        text, last = "", None
        async for event in self._events(request):
            last = event.result
            if event.text and not self._asked.warm:
                text += event.text
                yield self._chosen({"index": 0, "content": event.text, "stop": False})
        yield self._chosen({**self._end(text, last), "content": ""})

    async def _events(self, request: Request) -> AsyncGenerator[Event, None]:
        """The events of the job, until its time is over too."""
        async with listening(request, self._service.engine, self._job) as events:
            async for event in events:
                yield event
                if self._late(event):
                    return

    def _late(self, event: Event) -> bool:
        """Whether the time that is given is over: counted from the first text, and never within a first line."""
        now = time.monotonic()
        self._began = self._began or now
        self._lines = self._lines or "\n" in event.text
        return self._asked.limit is not None and self._lines and now - self._began > self._asked.limit

    def _end(self, text: str, result: Result | None) -> dict[str, Any]:
        sequence = self._job.sequences[0]
        reason = "cancelled" if result is None else result.finish_reason
        return {
            "index": 0,
            "content": "" if self._asked.warm else text,
            "stop": True,
            "model": self._service.name,
            "tokens_predicted": 0 if self._asked.warm else len(sequence.token_ids),
            "tokens_evaluated": len(sequence.prompt_ids),
            "has_new_line": not self._asked.warm and "\n" in text,
            "stop_type": "limit" if self._asked.warm else _STOPPED[reason],
            "timings": {} if result is None or self._asked.warm else _timings(result, len(sequence.prompt_ids)),
        }

    def _chosen(self, part: dict[str, Any]) -> dict[str, Any]:
        """The fields that are asked for; `a/b` is the field b of a, under that very name."""
        if not self._asked.fields:
            return part
        found = {name: _at(part, name.split("/")) for name in self._asked.fields}
        return {name: value for name, value in found.items() if value is not None}


def _at(part: Any, path: Seq[str]) -> Any:
    for key in path:
        part = part.get(key) if isinstance(part, Mapping) else None
    return part


def _timings(result: Result, prompt: int) -> dict[str, float]:
    """The figures that editors show: waiting in the queue counts as prompt."""
    timing, count = result.timing, len(result.token_ids)
    first = (timing.ttft or 0.0) * 1000
    rest = (timing.end - timing.start) * 1000 - first
    return {
        "prompt_n": prompt,
        "prompt_ms": first,
        "prompt_per_second": prompt / first * 1000 if first else 0.0,
        "predicted_n": count,
        "predicted_ms": rest,
        "predicted_per_second": (count - 1) / rest * 1000 if rest > 0 else 0.0,
    }
