"""The run behind `codellm eval perplexity`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from codellm.cli.output import note, progress
from codellm.errors import InputError
from codellm.spec import LoadSpec
from codellm_eval.documents import HELDOUT, file_document, heldout_documents
from codellm_eval.errors import refuse_dummy
from codellm_eval.manifest import collect, record
from codellm_eval.perplexity import PROTOCOLS, Perplexity, measure
from codellm_eval.tables import Column, number, render

_COUNTS = ("window", "stride", "tokens", "bytes")
COLUMNS = (
    *(Column(key, key.capitalize()) for key in ("model", "backend", "scheme", "text", "protocol")),
    *(Column(key, key.capitalize(), align="right") for key in _COUNTS),
    number("perplexity", "Perplexity", 3),
    number("bits_per_byte", "Bits per byte", 4),
)
TERMINAL = ("model", "backend", "scheme", "protocol", "tokens", "perplexity", "bits_per_byte")
"""What fits into a terminal; a note tells the rest."""


def run_perplexity(
    spec: LoadSpec,
    *,
    file: Path | None,
    protocol: str,
    window: int | None,
    stride: int | None,
    limit: int | None,
    output: Path | None,
    format_: str,
) -> str:
    """Measure under the protocols asked for; the table is returned, and written to `output` where one is given.

    Raises:
        CodellmError: a file cannot be read or written, a value is out of range, the model or the backend failed.
    """
    refuse_dummy(spec.model.startswith("dummy:"), "perplexity")
    documents = (file_document(file),) if file is not None else heldout_documents()[:limit]
    text = file.name if file is not None else HELDOUT
    protocols = [name for name in PROTOCOLS if protocol in (name, "both")]
    from codellm.loading import open_spec

    rows = []
    with progress() as update, open_spec(spec, update) as model:
        for name in protocols:
            found = measure(
                model,
                documents,
                protocol=name,
                window=window,
                stride=stride,
                progress=lambda done, total, name=name: update(f"scoring, {name}", done, total),  # type: ignore[misc]
            )
            info = model.info
            rows.append(
                {"model": spec.model, "backend": info.backend, "scheme": info.scheme, "text": text, **_cells(found)}
            )
        manifest = collect(models=[record(spec.model, model.info)]) if output is not None else None
    if format_ == "table":
        note("text {text}, {bytes} bytes; window {window} tokens, stride {stride}".format(**rows[0]))
    table = render([column for column in COLUMNS if format_ != "table" or column.key in TERMINAL], rows, format_)
    if output is not None and manifest is not None:
        _write(output, table)
        _write(output.with_name(f"{output.name}.manifest.json"), manifest.to_json())
    return table


def _cells(found: Perplexity) -> dict[str, Any]:
    cells = {key: getattr(found, key) for key in _COUNTS}
    return {
        "protocol": found.protocol,
        **cells,
        "perplexity": found.perplexity,
        "bits_per_byte": found.bits_per_byte,
    }


def _write(path: Path, text: str) -> None:
    """Write whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, "utf-8")
        partial.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); give another --output") from error
    finally:
        partial.unlink(missing_ok=True)
