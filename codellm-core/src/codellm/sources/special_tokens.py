"""Which tokens a model's files say begin and end its texts: by string or by id, as transformers writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
"""What tokens are there for, as transformers names it."""


def token_string(config: Mapping[str, Any], role: str) -> str | None:
    """The string that a tokenizer_config.json or special_tokens_map.json has for one of `ROLES`."""
    token = config.get(f"{role}_token")
    content = token.get("content") if isinstance(token, Mapping) else token
    return content if isinstance(content, str) else None


def token_ids(config: Mapping[str, Any], role: str) -> tuple[int, ...]:
    """The ids that a config.json or generation_config.json has for a role: one, a list, or none.

    Some files write -1 where there is no such token.
    """
    named = config.get(f"{role}_token_id")
    ids = named if isinstance(named, list) else [named]
    return tuple(id for id in ids if type(id) is int and id >= 0)


def ends(
    tokenizer_config: Mapping[str, Any],
    special_tokens: Mapping[str, Any],
    config: Mapping[str, Any],
    generation_config: Mapping[str, Any],
) -> tuple[str | int, ...]:
    """Tokens that one of the four files ends a text with, those that the tokenizer's own name first.

    The files of one model differ: of a model of conversations, the tokenizer's name the end of a turn, while
    generation_config.json lists that of a text too; after a fine-tune, one may be as it was before.
    """
    strings = (token_string(tokenizer_config, "eos"), token_string(special_tokens, "eos"))
    named = [string for string in strings if string is not None]
    return tuple(dict.fromkeys([*named, *token_ids(config, "eos"), *token_ids(generation_config, "eos")]))
