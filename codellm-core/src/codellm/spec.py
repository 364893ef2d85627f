"""Everything that names what to load, validated here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import attrs

from codellm.errors import InvalidValueError

DTYPES = ("auto", "float32", "float16", "bfloat16")


def _positive(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidValueError(f"{attribute.name} must be a whole number of at least 1, not {value!r}")


def _text(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise InvalidValueError(f"{attribute.name} must be a non-empty string, not {value!r}")


def _dtype(_: object, __: attrs.Attribute[Any], value: object) -> None:
    if value not in DTYPES:
        raise InvalidValueError(f"dtype must be one of {', '.join(DTYPES)}, not {value!r}")


def _options(value: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType({str(key): str(item) for key, item in value.items()})


_optional_text = attrs.validators.optional(_text)
_optional_count = attrs.validators.optional(_positive)


@attrs.frozen(kw_only=True)
class LoadSpec:
    """What to load and how; None and "auto" mean chosen automatically.

    Raises:
        InvalidValueError: a field is out of its range; the message names it.
    """

    model: str = attrs.field(validator=_text)
    """"codellm-demo" | hub id | hub id:SCHEME | directory | file.gguf | "dummy:starcoder2-7b" """
    backend: str | None = attrs.field(default=None, validator=_optional_text)
    scheme: str | None = attrs.field(default=None, validator=_optional_text)
    dtype: str = attrs.field(default="auto", validator=_dtype)
    device: str = attrs.field(default="auto", validator=_text)
    context_length: int | None = attrs.field(default=None, validator=_optional_count)
    """Tokens of prompt and output together that one sequence may hold."""
    batch_size: int = attrs.field(default=1, validator=_positive)
    """How many sequences the model runs together."""
    attn_implementation: str | None = attrs.field(default=None, validator=_optional_text)
    threads: int | None = attrs.field(default=None, validator=_optional_count)
    revision: str | None = attrs.field(default=None, validator=_optional_text)
    options: Mapping[str, str] = attrs.field(factory=dict, converter=_options)
    """`-o key=value`, validated by the backend that is named."""
