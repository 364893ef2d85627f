"""Results on stdout, progress and notes on stderr."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import click

if TYPE_CHECKING:
    from codellm.progress import Progress

Command = TypeVar("Command", bound=Callable[..., Any])

Format = Literal["table", "md", "csv", "json", "jsonl"]
FORMATS: tuple[Format, ...] = get_args(Format)
"""How every table of a command can be printed."""


def format_option_of(*formats: str) -> Callable[[Command], Command]:
    """`--format` of a command that prints in these `formats`, the first of them by default."""
    return click.option(
        "--format",
        "format_",
        type=click.Choice(formats),
        default=formats[0],
        show_default=True,
        help="How to print the result.",
    )


format_option = format_option_of(*FORMATS)
text_format_option = format_option_of("text", "json")


def for_people(format_: str) -> bool:
    """Whether a format of `FORMATS` is read by people: figures are rounded there, and remarks stand below a table."""
    return format_ in {"table", "md"}


def note(text: str) -> None:
    """A remark for the person at the terminal."""
    click.echo(click.style(text, dim=True), err=True)


def show(rows: Sequence[Mapping[str, Any]], format_: str) -> None:
    """Print `rows`, which share their keys, in a format of `FORMATS`."""
    if format_ == "json":
        click.echo(json.dumps(list(rows), indent=2))
    elif format_ == "jsonl":
        for row in rows:
            click.echo(json.dumps(row))
    elif format_ == "csv":
        text = io.StringIO()
        if rows:
            writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        click.echo(text.getvalue(), nl=False)
    elif format_ == "md":
        _markdown(rows)
    else:
        _table(rows)


def _markdown(rows: Sequence[Mapping[str, Any]]) -> None:
    for index, row in enumerate(rows):
        if index == 0:
            click.echo(f"| {' | '.join(row)} |\n|{' --- |' * len(row)}")
        cells = ("" if value is None else str(value).replace("|", "\\|") for value in row.values())
        click.echo(f"| {' | '.join(cells)} |")


def _table(rows: Sequence[Mapping[str, Any]]) -> None:
    import rich.box
    import rich.console
    import rich.table

    if not rows:
        return
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for index, key in enumerate(rows[0]):
        numbers = all(isinstance(row[key], int | float) for row in rows)
        # the first column is the name, which people copy: never broken
        justify: Literal["left", "right"] = "right" if numbers else "left"
        table.add_column(key.replace("_", " "), justify=justify, overflow="fold", no_wrap=index == 0)
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    rich.console.Console(highlight=False, markup=False).print(table)


@contextlib.contextmanager
def progress() -> Iterator[Progress]:
    """A progress bar on stderr for what is being done; silent where stderr is no terminal, but for one line each."""
    import rich.console
    import rich.progress

    console = rich.console.Console(stderr=True)
    bar = rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.TaskProgressColumn(),
        rich.progress.TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    tasks: dict[str, rich.progress.TaskID] = {}
    remarks: set[str] = set()

    def update(what: str, done: int, total: int) -> None:
        if not total:
            if what not in remarks:
                remarks.add(what)
                note(what)
            return
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=total)
            if not console.is_terminal:
                note(what)
        bar.update(tasks[what], completed=done, total=total)

    with bar:
        yield update


def size(count: int) -> str:
    """Bytes as people read them, in powers of ten."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
