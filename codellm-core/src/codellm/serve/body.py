"""The JSON body of a request: bounded, and read field by field, each of the type that it must have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, NoReturn

from codellm.errors import InvalidValueError
from codellm.sampling import SamplingParams
from codellm.serve.refusal import bad

DEPTH = 16
"""Objects and arrays within each other."""

_WHOLE = 2**63
"""Whole numbers are below this: what a backend takes a seed or a count in."""

_STOPS, _STOP_LENGTH = 64, 1000

REFUSED: Mapping[str, tuple[object, ...]] = {
    "best_of": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "n_probs": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "typical_p": (1,),
    "mirostat": (0,),
    "top_n_sigma": (-1,),
    "xtc_probability": (0,),
    "dry_multiplier": (0,),
    "dynatemp_range": (0,),
    "n_cmpl": (1,),
    "logit_bias": ({}, []),
    "response_format": ({"type": "text"},),
    "grammar": ("",),
    "json_schema": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": ([], ["text"]),
    "audio": (),
    "web_search_options": (),
    "chat_template": ("",),
    "chat_template_kwargs": ({},),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "structured_outputs": ({},),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "min_tokens": (0,),
    "stop_token_ids": ([],),
    "bad_words": ([],),
    "prompt_logprobs": (),
    "with_pieces": (False,),
    "return_tokens": (False,),
    "lora": ([],),
}
"""Fields that would change the answer and are not there, each with the values that ask for nothing."""

TAKEN: Mapping[str, frozenset[str]] = {
    "/v1/completions": frozenset({"best_of", "logprobs"}),
    "/v1/chat/completions": frozenset({"logprobs", "top_logprobs"}),
}
"""Those of them that an endpoint reads all the same, by its path."""


class Body:
    """What a client sent to `path`. Each reading gives the default where the field is missing or null.

    Raises:
        Refusal: it is no JSON object, or a field has another type or is out of bounds; the refusal names it.
    """

    def __init__(self, data: bytes, path: str = "") -> None:
        try:
            fields = json.loads(data, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise bad(f"the body is no JSON: {error}", code="invalid_json") from error
        if not isinstance(fields, dict):
            raise bad("the body must be a JSON object", code="invalid_json")
        if not _within(fields, DEPTH):
            raise bad(f"the body has more than {DEPTH} objects or arrays within each other", code="invalid_json")
        self._fields: dict[str, Any] = fields
        self._check(TAKEN.get(path, frozenset()))

    def _check(self, taken: AbstractSet[str] = frozenset()) -> None:
        for name, nothing in REFUSED.items():
            value = self._fields.get(name)
            if value is not None and value not in nothing and name not in taken:
                raise bad(f"{name} is not supported here; leave it out", name, code="unsupported_field")

    def __str__(self) -> str:
        """All of it in one line of ASCII."""
        return json.dumps(self._fields)

    def get(self, name: str) -> Any:
        """A field as it stands; None where it is missing."""
        return self._fields.get(name)

    def text(self, name: str, default: str = "") -> str:
        """A string."""
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise bad(f"{name} must be a string", name)
        return value

    def flag(self, name: str) -> bool:
        """A boolean, false where it is missing."""
        value = self.get(name)
        if value is not None and not isinstance(value, bool):
            raise bad(f"{name} must be true or false", name)
        return bool(value)

    def whole(self, name: str, default: int, low: int, high: int = _WHOLE - 1) -> int:
        """A whole number from `low` to `high`."""
        value = self.get(name)
        if value is None:
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            limit = f"of at least {low}" if high >= _WHOLE - 1 else f"from {low} to {high}"
            raise bad(f"{name} must be a whole number {limit}", name)
        return value

    def number(self, name: str, default: float) -> float:
        """A number."""
        value = self.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _WHOLE:
            raise bad(f"{name} must be a number", name)
        return float(value)

    def object(self, name: str) -> Mapping[str, Any]:
        """An object, empty where it is missing."""
        value = self.get(name)
        if value is not None and not isinstance(value, dict):
            raise bad(f"{name} must be an object", name)
        return value or {}

    def inner(self, name: str) -> Body:
        """The fields of an object, none where it is missing, to be read in the same way."""
        body = Body.__new__(Body)
        body._fields = dict(self.object(name))
        body._check()
        return body

    def texts(self, name: str, most: int) -> tuple[str, ...]:
        """A list of strings, or one."""
        value = self.get(name)
        value = [] if value is None else [value] if isinstance(value, str) else value
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise bad(f"{name} must be a string or a list of strings", name)
        if len(value) > most:
            raise bad(f"{name} has {len(value)} entries, and may have {most}", name)
        return tuple(value)

    def sampling(
        self, max_tokens: int, temperature: float, *, top_p: float = 1.0, top_k: int = 0, min_p: float = 0.0,
        logprobs: int | None = None,
    ) -> SamplingParams:  # fmt: skip
        """How to sample; what is given here is what holds where the client says nothing."""
        stop = self.texts("stop", _STOPS)
        if any(len(one) > _STOP_LENGTH for one in stop):
            raise bad(f"stop has a string of more than {_STOP_LENGTH} characters", "stop")
        seed = self.whole("seed", -1, -1)
        values: dict[str, Any] = {
            "max_tokens": max_tokens,
            "temperature": self.number("temperature", temperature),
            "top_p": self.number("top_p", top_p),
            "top_k": max(self.whole("top_k", top_k, -1), 0),
            "min_p": self.number("min_p", min_p),
            "repetition_penalty": self.number("repetition_penalty", self.number("repeat_penalty", 1.0)),
            "stop": stop,
            "seed": None if seed < 0 else seed,
            "ignore_eos": self.flag("ignore_eos"),
            "logprobs": logprobs,
        }
        try:
            return SamplingParams(**values)
        except InvalidValueError as error:
            name, _, what = str(error).partition(" ")
            if name == "repetition_penalty" and self.get(name) is None:
                name = "repeat_penalty"  # as llama.cpp's clients call it
            raise bad(f"{name} {what}", name if name in values or name == "repeat_penalty" else None) from error


def _within(value: object, depth: int) -> bool:
    """Whether objects and arrays stand at most `depth` deep."""
    if not isinstance(value, dict | list):
        return True
    return depth > 0 and all(_within(one, depth - 1) for one in (value.values() if isinstance(value, dict) else value))


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number in JSON")
