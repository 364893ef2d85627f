"""`codellm backends`."""

from __future__ import annotations

from typing import Any

import click

from codellm.cli.output import format_option, note, show


@click.command()
@format_option
def backends(format_: str) -> None:
    """List what can run models here; for what cannot, the command that mends it."""
    from codellm.plugins.registry import availability, registry

    found = registry()
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
