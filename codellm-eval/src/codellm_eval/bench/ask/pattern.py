"""Patterns of rows: `llama-cpp:q4*`, `*:q8_0`, expanded over what a model can be measured with here."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from codellm_eval.bench.ask.ladder import Rows, applies, obstacle
from codellm_eval.bench.ask.row import Row

if TYPE_CHECKING:
    from codellm.plugins.registry import Registry


def is_pattern(text: str) -> bool:
    """Whether the backend or the scheme of a row's text has a `*`, a `?` or a `[`."""
    return any(sign in part for part in text.split(":", 2)[:2] for sign in "*?[")


def matching_rows(registry: Registry, format: str, text: str) -> Rows:
    """The rows that the pattern `text` matches, of a model whose files are of `format`, in the backends' order.

    A pattern without a scheme leaves it to each backend, like a row without one; options hold for all that match.

    Raises:
        InvalidValueError: the options are none of a row's.
    """
    backend_pattern, _, rest = text.strip().partition(":")
    scheme_pattern, colon, tail = rest.partition(":")
    options = Row.parse(f"any:any:{tail}").options if colon else {}
    rows: list[Row] = []
    left_out: list[str] = []
    for backend in registry.backends.values():
        if not fnmatchcase(backend.name, backend_pattern):
            continue
        reason = obstacle(backend, registry, format)
        if reason is not None:
            left_out.append(f"{backend.name}: {reason}")
        elif not scheme_pattern:
            rows.append(Row(backend.name, None, options))
        else:
            rows.extend(
                Row(backend.name, scheme.name, options)
                for scheme in backend.schemes()
                if fnmatchcase(scheme.name, scheme_pattern) and applies(scheme, backend, registry, format)
            )
    return Rows(tuple(rows), tuple(left_out))
