"""The command `codellm ngram`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("text")
@click.option("--top", default=5, show_default=True, metavar="N", help="How many to show.")
def ngram(folder: Path, text: str, top: int) -> None:
    """Show what follows TEXT in the Python files of FOLDER, the likeliest first."""
    from codellm_ngram.table import END, read_folder

    probabilities = read_folder(sorted(folder.rglob("*.py"))).probabilities(list(text.encode()))
    for id in (-probabilities).argsort()[:top]:
        name = "end of file" if id == END else repr(bytes([id]).decode("latin-1"))
        click.echo(f"{probabilities[id]:6.1%}  {name}")
