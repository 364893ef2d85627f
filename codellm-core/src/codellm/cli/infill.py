"""`codellm infill`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from codellm.cli.generate import emit, see_told
from codellm.cli.options import load_options, load_spec, sampling_options, sampling_params
from codellm.cli.output import progress, text_format_option
from codellm.errors import InputError, InvalidValueError, NoFimError

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
"""A line with its end.

Lines end where the Language Server Protocol has them end, and so VS Code (its specification 3.17, `EOL`): at "\\n",
"\\r\\n" and "\\r". A form feed, U+2028 and what else `str.splitlines` takes for an end stand inside a line.
"""


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--lines", metavar="A:B", help="Replace lines A to B as editors count them, from 1, both included.")
@click.option("--offset", type=int, metavar="N", help="Fill in at the cursor after N characters.")
@load_options
@sampling_options
@text_format_option
def infill(file: Path, lines: str | None, offset: int | None, format_: str, **arguments: Any) -> None:
    """Print what belongs into a place of FILE: instead of a range of lines, or at a cursor.

    A line ends at LF, CRLF or CR; a form feed or another separator of Unicode ends none.
    """
    params, spec = sampling_params(arguments), load_spec(arguments)
    see_told(params, format_)
    if (lines is None) == (offset is None):
        raise click.UsageError("give either --lines A:B or --offset N")
    text = read_text(file)
    prefix, suffix = split_lines(text, lines) if lines is not None else split_offset(text, offset or 0)
    from codellm.loading import open_spec
    from codellm.plugins.guard import guarded

    with progress() as update:
        model = open_spec(spec, update)
    with model:
        try:
            with guarded(model.info.backend, "to encode a prompt"):
                ids = model.tokenizer.infill_ids(prefix, suffix)
        except NoFimError as error:
            raise NoFimError(f"{spec.model}: {error}") from error
        emit(model.stream(ids, params), format_)


def read_text(file: Path) -> str:
    """A file's text, line ends as they are; a byte order mark before it is no part of it, as in editors.

    Raises:
        InputError: it cannot be read, or is not UTF-8.
    """
    try:
        return file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: byte {error.start} is not UTF-8 ({error.reason})") from error


def split_lines(text: str, lines: str) -> tuple[str, str]:
    """What stands before line A and after line B, of lines as `_LINE` has them.

    Raises:
        InvalidValueError: the range is not A:B within the text.
    """
    rows = _LINE.findall(text)
    asked = re.fullmatch(r"(\d{1,9}):(\d{1,9})", lines)
    first, last = (int(asked[1]), int(asked[2])) if asked else (0, 0)
    if not 1 <= first <= last <= len(rows):
        raise InvalidValueError(f"--lines {lines!r}: give A:B with 1 <= A <= B <= {len(rows)}")
    return "".join(rows[: first - 1]), "".join(rows[last:])


def split_offset(text: str, offset: int) -> tuple[str, str]:
    """What stands before and after the cursor.

    Raises:
        InvalidValueError: the offset is outside the text.
    """
    if not 0 <= offset <= len(text):
        raise InvalidValueError(f"--offset {offset}: give a number from 0 to {len(text)}")
    return text[:offset], text[offset:]
