"""`codellm models`."""

from __future__ import annotations

from typing import Any

import click

from codellm.cli.output import format_option, note, show, size
from codellm.errors import UnknownNameError


@click.group(invoke_without_command=True)
@format_option
@click.pass_context
def models(ctx: click.Context, format_: str) -> None:
    """List bundled models and kept artifacts."""
    if ctx.invoked_subcommand is not None:
        return
    from codellm.artifacts.store import kept_artifacts
    from codellm.sources.reference import BUNDLED

    rows: list[dict[str, Any]] = [
        {"name": name, "kind": "bundled", "model": name, "scheme": "", "size": ""} for name in BUNDLED
    ]
    for kept in kept_artifacts():
        rows.append(
            {
                "name": kept.directory.name,
                "kind": "artifact",
                "model": kept.manifest["source"],
                "scheme": kept.manifest["scheme"],
                "size": size(kept.size),
            }
        )
    show(rows, format_)


@models.command()
@click.argument("names", nargs=-1, metavar="NAME...")
@click.option("--all", "everything", is_flag=True, help="Remove every artifact.")
def remove(names: tuple[str, ...], everything: bool) -> None:
    """Remove artifacts by the name that `codellm models` shows."""
    from codellm.artifacts import store

    if bool(names) == everything:
        raise click.UsageError("give names, or --all")
    kept = {one.directory.name: one for one in store.kept_artifacts()}
    unknown = next((name for name in names if name not in kept), None)
    if unknown is not None:
        raise UnknownNameError("artifact", unknown, kept)
    chosen = [kept[name] for name in names] if names else list(kept.values())
    freed = sum(one.size for one in chosen)
    for one in chosen:
        store.remove(one)
    note(f"removed {len(chosen)} artifacts, {size(freed)}")
