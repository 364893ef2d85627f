"""`codellm plugins`."""

from __future__ import annotations

import click

from codellm.cli.output import format_option, note, show


@click.command()
@format_option
def plugins(format_: str) -> None:
    """List installed plugins, the distribution each comes from, and what is wrong with it."""
    from codellm.plugins import describe, manager
    from codellm.registry import registry

    registry()  # collecting what the plugins bring shows which ones misbehave
    found = manager().plugins
    show(
        [
            {
                "plugin": plugin.name,
                "distribution": f"{plugin.distribution} {plugin.version}",
                "state": "works" if plugin.error is None else f"broken: {describe(plugin.error)}",
            }
            for plugin in found
        ],
        format_,
    )
    if not found:
        note("no plugin is installed; `pip install codellm-cpu` brings llama.cpp")
