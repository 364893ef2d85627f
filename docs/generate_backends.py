"""Print docs/backends.md: the `-o` options of every backend of this project.

To write the page: `python docs/generate_backends.py > docs/backends.md`. codellm-gpu need not be installed.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from codellm.backend import Backend
from codellm.cli.backends import option_rows
from codellm.cli.output import show

ROOT = Path(__file__).parents[1]
INTRODUCTION = """# The options of the backends

What a backend takes as `-o KEY=VALUE`, as `codellm backends NAME` lists it. Where a column of schemes names some, the
option belongs to those alone. Written by `python docs/generate_backends.py > docs/backends.md`."""


def backends() -> Iterator[Backend]:
    """Those of codellm-cpu and codellm-gpu."""
    sys.path.append(str(ROOT / "codellm-gpu" / "src"))  # what is installed comes first
    for package in ("codellm_cpu", "codellm_gpu"):
        yield from importlib.import_module(f"{package}.plugin").codellm_backends()


def main() -> None:
    """Print the page."""
    click.echo(INTRODUCTION)
    for backend in backends():
        click.echo(f"\n## {backend.name}\n\n{type(backend).__doc__}\n")
        show(option_rows(backend), "md")


if __name__ == "__main__":
    main()
