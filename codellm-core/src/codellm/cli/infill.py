"""`codellm infill`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from codellm.cli.generate import emit
from codellm.cli.options import load_options, load_spec, sampling_options, sampling_params
from codellm.cli.output import progress
from codellm.errors import InputError, InvalidValueError, NoFimError


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--lines", metavar="A:B", help="Replace lines A to B, counted from 1, both included.")
@click.option("--offset", type=int, metavar="N", help="Fill in at the cursor after N characters.")
@load_options
@sampling_options
@click.option(
    "--format",
    "format_",
    type=click.Choice(("text", "json")),
    default="text",
    show_default=True,
    help="How to print the result.",
)
def infill(file: Path, lines: str | None, offset: int | None, format_: str, **arguments: Any) -> None:
    """Print what belongs into a place of FILE: instead of a range of lines, or at a cursor."""
    params, spec = sampling_params(arguments), load_spec(arguments)
    if (lines is None) == (offset is None):
        raise click.UsageError("give either --lines A:B or --offset N")
    text = read_text(file)
    prefix, suffix = split_lines(text, lines) if lines is not None else split_offset(text, offset or 0)
    from codellm.loading import open_spec

    with progress() as update:
        model = open_spec(spec, update)
    with model:
        try:
            ids = model.tokenizer.infill_ids(prefix, suffix)
        except NoFimError as error:
            raise NoFimError(f"{spec.model}: {error}") from error
        emit(model.stream(ids, params), format_)


def read_text(file: Path) -> str:
    """A file's text, line ends as they are.

    Raises:
        InputError: it cannot be read, or is not UTF-8.
    """
    try:
        return file.read_bytes().decode("utf-8")
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: byte {error.start} is not UTF-8 ({error.reason})") from error


def split_lines(text: str, lines: str) -> tuple[str, str]:
    """What stands before line A and after line B.

    Raises:
        InvalidValueError: the range is not A:B within the text.
    """
    rows = text.splitlines(keepends=True)
    first, colon, last = lines.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last) <= len(rows)):
        raise InvalidValueError(f"--lines {lines!r}: give A:B with 1 <= A <= B <= {len(rows)}")
    return "".join(rows[: int(first) - 1]), "".join(rows[int(last) :])


def split_offset(text: str, offset: int) -> tuple[str, str]:
    """What stands before and after the cursor.

    Raises:
        InvalidValueError: the offset is outside the text.
    """
    if not 0 <= offset <= len(text):
        raise InvalidValueError(f"--offset {offset}: give a number from 0 to {len(text)}")
    return text[:offset], text[offset:]
