"""`codellm plugins`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from codellm.cli.output import format_option, note, show
from codellm.plugins import entry_points
from codellm.plugins.entry_points import Remark

if TYPE_CHECKING:
    from codellm.plugins.manager import Plugin


@click.command()
@format_option
def plugins(format_: str) -> None:
    """List installed plugins and commands, whose distribution each is, and for what is wrong, what to do."""
    from codellm.plugins.manager import manager
    from codellm.plugins.registry import registry

    registry()  # collecting what the plugins bring shows which ones misbehave
    found = {plugin: [*plugin.remarks(), *_claims(plugin)] for plugin in (*manager().plugins, *_commands())}
    rows = [_row(plugin, remarks) for plugin, remarks in found.items()]
    if format_ == "table":
        show([{key: value for key, value in row.items() if key not in {"what", "to_do"}} for row in rows], format_)
        for plugin, remarks in found.items():
            for remark in remarks:
                _paragraph(f"{plugin}: {remark.what}.", f"To do: {remark.remedy}.")
    else:
        show(rows, format_)
    if not found:
        note("no plugin is installed; `pip install codellm-cpu` brings llama.cpp")
    for name in _unmatched():
        note(f"{entry_points.DISABLE} names {name!r}, which is no installed plugin, command or distribution")


def _row(plugin: Plugin, remarks: list[Remark]) -> Mapping[str, Any]:
    return {
        "plugin": plugin.name,
        "kind": "command" if plugin.entry.group == entry_points.COMMANDS else "hooks",
        "distribution": f"{plugin.distribution} {plugin.version}",
        "state": _state(plugin, remarks),
        "seconds": round(plugin.seconds, 3),
        "what": "; ".join(remark.what for remark in remarks),
        "to_do": "; ".join(remark.remedy for remark in remarks),
    }


def _state(plugin: Plugin, remarks: list[Remark]) -> str:
    if plugin.problem is not None:
        return "off" if plugin.entry.off else "broken"
    return "works, but" if remarks else "works"


def _claims(plugin: Plugin) -> Iterator[Remark]:
    """The names that another plugin claims too, or that are core's."""
    from codellm.cli.root import COMMANDS
    from codellm.plugins.registry import registry

    found = registry()
    kinds = (("backend", found.conflicts), ("scheme", found.scheme_conflicts))
    for kind, conflicts in kinds if plugin.entry.group == entry_points.PLUGINS else ():
        for name, owners in conflicts.items():
            if plugin.brief in owners:
                remedy = f"uninstall all but one of them, or name all but one in {entry_points.DISABLE}"
                yield Remark(f"its {kind} {name!r} is blocked, claimed by {', '.join(owners)}", remedy)
    if plugin.entry.group == entry_points.COMMANDS and plugin.name in COMMANDS and not plugin.entry.off:
        yield Remark(f"the command {plugin.name!r} is core's own, and this one never runs", plugin.entry.repair())


def _commands() -> list[Plugin]:
    """The commands of other packages, imported to see whether they can be."""
    from codellm.cli.root import load_command

    return [load_command(entry)[0] for entry in entry_points.entries(entry_points.COMMANDS)]


def _unmatched() -> list[str]:
    """The names in CODELLM_DISABLE_PLUGINS that turn off nothing."""
    installed = (*entry_points.entries(entry_points.PLUGINS), *entry_points.entries(entry_points.COMMANDS))
    known = {entry_points.normalized(name) for entry in installed for name in (entry.name, entry.distribution)}
    return [written for name, written in entry_points.disabled().items() if name not in known]


def _paragraph(what: str, remedy: str) -> None:
    """Two sentences for a person, as wide as the terminal."""
    import shutil

    width = shutil.get_terminal_size().columns
    for text, indent in ((what, ""), (remedy, "  ")):
        click.echo(textwrap.fill(text, width, initial_indent=indent, subsequent_indent="  ", break_on_hyphens=False))
