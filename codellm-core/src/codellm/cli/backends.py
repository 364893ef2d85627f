"""`codellm backends`."""

from __future__ import annotations

from typing import Any

import click

from codellm.cli.output import format_option, note, show


@click.command()
@format_option
def backends(format_: str) -> None:
    """List what can run models here; for what cannot, the command that mends it."""
    from codellm.registry import availability, registry

    found = registry()
    rows: list[dict[str, Any]] = []
    for backend in found.backends.values():
        available = availability(backend)
        rows.append(
            {
                "backend": backend.name,
                "available": "yes" if available.ok else f"no: {available.reason}; {available.remedy}",
                "formats": " ".join(sorted(backend.formats)),
                "schemes": " ".join(scheme.name for scheme in backend.schemes()),
                "preference": backend.preference,
            }
        )
    for name, owners in found.conflicts.items():
        why = f"no: claimed by {', '.join(owners)}; uninstall all but one"
        rows.append({"backend": name, "available": why, "formats": "", "schemes": "", "preference": 0})
    show(rows, format_)
    if not rows:
        note("no backend is installed; `pip install codellm-cpu` brings llama.cpp")
