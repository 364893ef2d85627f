"""Options that the commands which measure share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def numbers(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[int, ...]:
    """Whole numbers with commas between them, as llama-bench takes them, of every time the option was given.

    Raises:
        BadParameter: it is something else.
    """
    try:
        return tuple(int(part) for value in values for part in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{','.join(values)!r} is not whole numbers with commas between them") from error


def measured_options(reference: str) -> Callable[[Command], Command]:
    """What to measure, on what, and where to leave it; `reference` says what --reference does."""
    options = (
        click.option(
            "-m",
            "--model",
            default="codellm-demo",
            show_default=True,
            metavar="MODEL",
            help="Bundled name, directory, .gguf file, hub id, hub-id:SCHEME or dummy:NAME.",
        ),
        click.option(
            "--row",
            "rows",
            multiple=True,
            metavar="BACKEND:SCHEME[:KEY=VALUE,…]",
            help="What to measure, as llama-cpp:q8_0, or a pattern, as '*:q4*'; repeatable.  [default: every available "
            "backend with each of its usual schemes]",
        ),
        click.option("--reference", metavar="ROW", help=f"{reference}.  [default: the first row]"),
        click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Seed of the random prompts."),
        click.option("--threads", type=int, metavar="N", help="CPU threads.  [default: the backend's]"),
        click.option("--device", metavar="NAME", help="Device to run on.  [default: the backend's]"),
        click.option("-o", "options", multiple=True, metavar="KEY=VALUE", help="Option of the backends; repeatable."),
        click.option(
            "--output",
            type=click.Path(path_type=Path, file_okay=False),
            metavar="DIR",
            help="Folder for the results.  [default: results/TIME-MODEL]",
        ),
    )

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
