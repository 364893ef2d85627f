"""Print docs/cli.md: the help of every command of this project that is installed, 80 columns wide.

To write the page: `python docs/generate_cli.py > docs/cli.md`.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterator

import click

from codellm.cli.root import root
from codellm.system.packages import OWN

INTRODUCTION = """# The command line

What `codellm COMMAND --help` says of each command of codellm-core and codellm-eval, as
`python docs/generate_cli.py > docs/cli.md` writes it."""


def page() -> Iterator[str]:
    """The parts of the page."""
    yield INTRODUCTION
    yield from _chapters(root, "codellm", None)


def _chapters(command: click.Command, name: str, parent: click.Context | None) -> Iterator[str]:
    """A heading and the help of `command`, then those of the commands below it."""
    context = click.Context(command, parent, name, **{**command.context_settings, "terminal_width": 80})
    yield f"## {context.command_path}\n\n```text\n{context.get_help()}\n```"
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            below = command.get_command(context, each)
            if below is not None:
                yield from _chapters(below, each, context)


def _turn_off_others() -> None:
    """Plugins of others have commands too, which are no part of the page."""
    points = [
        *importlib.metadata.entry_points(group="codellm"),
        *importlib.metadata.entry_points(group="codellm.commands"),
    ]
    others = {point.dist.name for point in points if point.dist is not None} - set(OWN)
    os.environ["CODELLM_DISABLE_PLUGINS"] = ",".join(sorted(others))


if __name__ == "__main__":
    _turn_off_others()
    click.echo("\n\n".join(page()))
