"""Where a model's chat template stands among its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codellm.sources.regular import read_json, read_text

JINJA, JSON = "chat_template.jinja", "chat_template.json"
CHAT_TEMPLATES = (JINJA, JSON)
"""Files beside tokenizer_config.json that a model may have: transformers writes the first, once wrote the other."""


def read_chat_template(path: Path, tokenizer_config: Mapping[str, Any]) -> str | None:
    """The template of a directory; of several with names, the one that is called `default`. None where there is none.

    transformers takes the file before the `chat_template` of tokenizer_config.json too.

    Raises:
        ModelFileError: a file cannot be read.
    """
    if (path / JINJA).is_file():
        return read_text(path / JINJA)
    found = chosen(tokenizer_config.get("chat_template"))
    if found is None and (path / JSON).is_file():
        found = chosen(read_json(path / JSON).get("chat_template"))
    return found


def chosen(value: object) -> str | None:
    """The template of what a JSON file holds: a string, or a list of `name` and `template`."""
    if isinstance(value, list):
        named = {each.get("name"): each.get("template") for each in value if isinstance(each, Mapping)}
        value = named.get("default")
    return value if isinstance(value, str) else None
