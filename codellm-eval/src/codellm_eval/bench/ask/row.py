"""One row of a benchmark: a backend, a scheme and options, as text `backend:scheme[:key=value,…]`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import attrs

from codellm.errors import InvalidValueError, UnknownNameError
from codellm.spec import LoadSpec

if TYPE_CHECKING:
    from codellm.plugins.registry import Registry

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_GRAMMAR = "a row is backend:scheme[:key=value,…], as in llama-cpp:q4_k_m:threads=4"

COUNTS = frozenset({"threads", "batch_size", "context_length"})
"""Fields of LoadSpec that a row may set and that are whole numbers."""
TEXTS = frozenset({"dtype", "device", "attn_implementation"})
"""Fields of LoadSpec that a row may set and that are text; any other key is an option of the backend."""


def _frozen(options: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(options))


def _check_options(_: object, __: object, options: Mapping[str, str]) -> None:
    for key, value in options.items():
        if not _KEY.fullmatch(key):
            raise InvalidValueError(f"{key!r} is no name of an option; {_GRAMMAR}")
        if not value or "," in value or "\0" in value or value.splitlines() != [value]:
            raise InvalidValueError(f"option {key} needs a value without commas or line breaks, not {value!r}")
        if key in COUNTS and not (value.isascii() and value.isdigit() and int(value) >= 1):
            raise InvalidValueError(f"{key} must be a whole number of at least 1, not {value!r}")


def _check_name(_: object, attribute: attrs.Attribute[Any], name: str | None) -> None:
    if name is not None and not _NAME.fullmatch(name):
        raise InvalidValueError(f"{name!r} is no name of a {attribute.name}; {_GRAMMAR}")


@attrs.frozen
class Row:
    """What one row measures. `str(row)` and `Row.parse` are each other's inverse.

    `scheme` None leaves the choice to the backend (its default scheme, or the source's own precision); such a row is
    written `backend` or, with options, `backend::key=value`. The order of options is kept but does not matter.

    Raises:
        InvalidValueError: a name or a value that no row could have.
    """

    backend: str = attrs.field(validator=_check_name)
    scheme: str | None = attrs.field(default=None, validator=_check_name)
    options: Mapping[str, str] = attrs.field(
        factory=dict, converter=_frozen, validator=_check_options, hash=False, eq=dict
    )

    @classmethod
    def parse(cls, text: str) -> Self:
        """The row that `text` names.

        Raises:
            InvalidValueError: `text` is not of the grammar; the message shows the grammar.
        """
        backend, _, rest = text.strip().partition(":")
        scheme, colon, tail = rest.partition(":")
        options: dict[str, str] = {}
        for part in tail.split(",") if colon else ():
            key, equals, value = part.partition("=")
            key = _canonical(key.strip())
            if not equals:
                raise InvalidValueError(f"row {text!r}: {part!r} is not key=value; {_GRAMMAR}")
            if key in options:
                raise InvalidValueError(f"row {text!r}: option {key} is given twice")
            options[key] = value.strip()
        return cls(backend, scheme or None, options)

    def __str__(self) -> str:
        if self.options:
            tail = ",".join(f"{key}={value}" for key, value in self.options.items())
            return f"{self.backend}:{self.scheme or ''}:{tail}"
        return f"{self.backend}:{self.scheme}" if self.scheme else self.backend

    def spec(self, model: str, **defaults: Any) -> LoadSpec:
        """What to load for this row; the row's own options win over `defaults` (fields of LoadSpec).

        Raises:
            InvalidValueError: a field is out of its range; the message names it.
        """
        fields: dict[str, Any] = {key: value for key, value in defaults.items() if value is not None}
        own = dict(fields.pop("options", {}))
        for key, value in self.options.items():
            if key in COUNTS:
                fields[key] = int(value)
            elif key in TEXTS:
                fields[key] = value
            else:
                own[key] = value
        return LoadSpec(model=model, backend=self.backend, scheme=self.scheme, options=own, **fields)

    def check(self, registry: Registry) -> None:
        """Refuse a backend or scheme that nobody has, before any row has cost time.

        Raises:
            UnknownNameError: the backend or the scheme is unknown; suggests the nearest.
            PluginError: the backend's plugin is broken, or several plugins claim its name.
        """
        known = {scheme.name for scheme in registry.backend(self.backend).schemes()}
        if self.scheme is not None and self.scheme not in known:
            raise UnknownNameError(f"scheme of {self.backend}", self.scheme, known)

    @property
    def slug(self) -> str:
        """The row as part of a file name: letters, digits, dots, underlines, dashes and equals signs."""
        return re.sub(r"[^A-Za-z0-9._=-]+", "-", str(self))


def _canonical(key: str) -> str:
    """Name of a setting with `batch-size` for `batch_size`, as on the command line; backends' own stay as they are."""
    field = key.replace("-", "_")
    return field if field in COUNTS | TEXTS else key


def refuse_cache(spec: LoadSpec, row: Row) -> None:
    """See that every prompt is computed whole, since it is timed.

    Raises:
        InvalidValueError: the backend is told to keep prefixes.
    """
    if spec.options.get("prefix_cache", "0") != "0":
        raise InvalidValueError(
            f"row {row}: with prefix_cache a prompt is not computed whole, and bench times prompts; leave it out"
        )
