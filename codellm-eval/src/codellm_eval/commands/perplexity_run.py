"""The run behind `codellm eval perplexity`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codellm.cli.output import note, progress
from codellm.errors import InputError
from codellm.spec import LoadSpec
from codellm_eval.errors import refuse_dummy
from codellm_eval.files.manifest import collect, record
from codellm_eval.files.tables import Column, number, render
from codellm_eval.files.writing import refuse_unwritable, unwritable, write_whole
from codellm_eval.perplexity.documents import HELDOUT, Document, file_document, heldout_documents
from codellm_eval.perplexity.perplexity import Perplexity, measure
from codellm_eval.perplexity.reading import PROTOCOLS, Protocol, Reading

if TYPE_CHECKING:
    from codellm.model import Model

_COUNTS = ("window", "stride", "tokens", "bytes")
COLUMNS = (
    *(Column(key, key.capitalize()) for key in ("model", "backend", "scheme", "text", "protocol")),
    *(Column(key, key.capitalize(), align="right") for key in _COUNTS),
    number("perplexity", "Perplexity", 3),
    number("perplexity_error", "±", 3),
    number("bits_per_byte", "Bits per byte", 4),
)
TERMINAL = ("model", "backend", "scheme", "protocol", "tokens", "perplexity", "perplexity_error", "bits_per_byte")
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
    if output is not None:
        refuse_unwritable(output.parent, output)
    documents = (file_document(file),) if file is not None else heldout_documents()[:limit]
    text = file.name if file is not None else HELDOUT
    from codellm.loading import open_spec

    with progress() as update, open_spec(spec, update) as model:
        found = _measure(model, documents, protocol, window, stride, update)
        info = model.info
        named = {"model": spec.model, "backend": info.backend, "scheme": info.scheme, "text": text}
        manifest = collect(models=[record(spec.model, info)]) if output is not None else None
    rows = [named | _cells(each) for each in found]
    if format_ == "table":
        note(f"text {text}, {found[0].bytes} bytes; tokens: " + "; ".join(str(each.reading) for each in found))
    table = render([column for column in COLUMNS if format_ != "table" or column.key in TERMINAL], rows, format_)
    if output is not None and manifest is not None:
        try:
            _write(output, table)
            _write(output.with_name(f"{output.name}.manifest.json"), manifest.to_json())
        except InputError:
            click.echo(table, nl=False)  # what was measured is told whatever becomes of the file
            raise
    return table


def _measure(
    model: Model,
    documents: Sequence[Document],
    protocol: str,
    window: int | None,
    stride: int | None,
    update: Callable[[str, int, int], None],
) -> list[Perplexity]:
    """Measure under the protocol named, or under each that the text is long enough for."""
    chosen = {
        name: None if protocol == "all" and name == "llama-chunks" else stride  # whose chunks do not overlap
        for name in PROTOCOLS
        if protocol in (name, "all")
    }
    for name, step in chosen.items():
        Reading.of(name, model.info.context_length, window, step)  # a size out of range is refused here

    def one(name: Protocol) -> Perplexity:
        def progress(done: int, total: int) -> None:
            update(f"scoring, {name}", done, total)

        return measure(model, documents, protocol=name, window=window, stride=chosen[name], progress=progress)

    found = []
    for name in chosen:
        try:
            found.append(one(name))
        except InputError as error:
            if protocol != "all" or name != "llama-chunks":
                raise
            note(str(error))
    return found


def _cells(found: Perplexity) -> dict[str, Any]:
    reading = found.reading
    return {
        "protocol": reading.protocol,
        "window": reading.window,
        "stride": reading.stride,
        "tokens": found.tokens,
        "bytes": found.bytes,
        "perplexity": found.perplexity,
        "perplexity_error": found.error,
        "bits_per_byte": found.bits_per_byte,
    }


def _write(path: Path, text: str) -> None:
    try:
        write_whole(path, text)
    except OSError as error:
        raise unwritable(path, error) from error
