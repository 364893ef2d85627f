"""`codellm backends`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from codellm.cli.output import format_option, note, show

if TYPE_CHECKING:
    from codellm.backend import Backend
    from codellm.plugins.registry import Registry


@click.command()
@click.argument("name", required=False)
@format_option
def backends(name: str | None, format_: str) -> None:
    """List what can run models here; for what cannot, the command that mends it.

    With NAME, list the options that this backend takes as -o KEY=VALUE.
    """
    from codellm.plugins.registry import registry

    found = registry()
    if name is None:
        _list(found, format_)
        return
    rows = option_rows(found.backend(name))
    show(rows, format_)
    if not rows:
        note(f"{name} has no options of its own")


def option_rows(backend: Backend) -> list[dict[str, Any]]:
    """A row for each `-o` option of a backend."""
    return [
        {
            "option": name,
            "takes": option.takes,
            "default": option.otherwise,
            "schemes": " ".join(sorted(option.schemes)),
            "help": option.help,
        }
        for name, option in backend.options.items()
    ]


def _list(found: Registry, format_: str) -> None:
    from codellm.plugins.registry import availability

    rows: list[dict[str, Any]] = []
    remedies: dict[str, list[str]] = {}
    for backend in found.backends.values():
        state = availability(backend)
        available = "yes" if state.ok else f"no: {state.reason}"
        if not state.ok and format_ == "table":  # a command in a column could not be copied
            remedies.setdefault(state.remedy, []).append(backend.name)
        elif not state.ok:
            available += f"; {state.remedy}"
        rows.append(
            {
                "backend": backend.name,
                "available": available,
                "formats": " ".join(sorted(backend.formats)),
                "schemes": " ".join(scheme.name for scheme in backend.schemes()),
                "preference": backend.preference,
            }
        )
    for name, owners in found.conflicts.items():
        why = f"no: claimed by {', '.join(owners)}; uninstall all but one"
        rows.append({"backend": name, "available": why, "formats": "", "schemes": "", "preference": 0})
    show(rows, format_)
    for remedy, names in remedies.items():
        click.echo(f"{', '.join(names)}:\n  {remedy}")
    if not rows:
        note("no backend is installed; `pip install codellm-cpu` brings llama.cpp")
