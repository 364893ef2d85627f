"""Which rows are measured when none is named: every available backend, each of its usual schemes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import attrs

from codellm.plugins.registry import availability
from codellm_eval.bench.ask.row import Row

if TYPE_CHECKING:
    from codellm.backend import Backend
    from codellm.plugins.registry import Registry
    from codellm.scheme import Scheme

LADDER = ("f16", "bf16", "q8_0", "q4_0", "q4_k_m", "q4_k_s", "int8", "int4", "bnb-int8", "bnb-nf4")
"""The schemes worth comparing; the others of a backend are measured when `--row` names them, or it has no others."""


@attrs.frozen
class Rows:
    """The rows to measure, and why backends that are installed have none."""

    rows: tuple[Row, ...]
    left_out: tuple[str, ...] = ()


def default_rows(registry: Registry, format: str, scheme: str | None = None) -> Rows:
    """Rows for a model whose files are of `format`; where its name holds a `scheme`, that one alone."""
    rows: list[Row] = []
    left_out: list[str] = []
    for backend in registry.backends.values():
        reason = obstacle(backend, registry, format)
        if reason is not None:
            left_out.append(f"{backend.name}: {reason}")
        elif scheme is not None:
            rows.append(Row(backend.name, scheme))
        else:
            rows.extend(_rows_of(backend, registry, format))
    return Rows(tuple(rows), tuple(left_out))


def obstacle(backend: Backend, registry: Registry, format: str) -> str | None:
    """Why `backend` has no row for files of `format` here; None where it has."""
    if not registry.reaches(backend, format):
        return f"takes {', '.join(sorted(backend.formats))}, not {format}"
    available = availability(backend)
    return None if available.ok else f"{available.reason}; {available.remedy}"


def _rows_of(backend: Backend, registry: Registry, format: str) -> Iterator[Row]:
    schemes = {scheme.name: scheme for scheme in backend.schemes()}
    if format in backend.formats:
        yield Row(backend.name)
        if format == "gguf":  # a file that is a scheme already: another one on top of it would compare nothing
            return
    for name in [name for name in LADDER if name in schemes] or schemes:
        if applies(schemes[name], backend, registry, format):
            yield Row(backend.name, name)


def applies(scheme: Scheme, backend: Backend, registry: Registry, format: str) -> bool:
    """Whether `backend` can have files of `format` in `scheme`."""
    if scheme.applies == "load":
        return format in backend.formats
    return format in scheme.takes or any(
        format in between.takes and between.format in scheme.takes
        for between in registry.schemes.values()
        if between.applies == "file"
    )
