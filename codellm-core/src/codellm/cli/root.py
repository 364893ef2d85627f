"""The root command. It lists commands without importing them, and nothing heavy is imported before one runs."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from codellm._version import __version__
from codellm.cli import streams
from codellm.cli.ending import exit_code
from codellm.cli.output import note
from codellm.plugins import entry_points
from codellm.plugins.exits import no_exit

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from codellm.plugins.manager import Plugin

COMMANDS = {
    "generate": ("codellm.cli.generate:generate", "Continue a prompt, token by token."),
    "infill": ("codellm.cli.infill:infill", "Fill a place in the middle of a file."),
    "serve": ("codellm.cli.serve:serve", "Answer requests over HTTP: editors, OpenAI's clients."),
    "backends": ("codellm.cli.backends:backends", "List what can run models here."),
    "models": ("codellm.cli.models:models", "List bundled models and kept artifacts; remove them."),
    "plugins": ("codellm.cli.plugins:plugins", "List installed plugins, and what is wrong with them."),
    "quantize": ("codellm.cli.quantize:quantize", "Write a model in a scheme of fewer bits."),
    "convert": ("codellm.cli.quantize:convert", "Write a model in another format, without loss."),
    "doctor": ("codellm.cli.doctor.command:doctor", "Examine this installation and machine, and say what mends it."),
}
"""Core's own commands: where each lives, and its line in the help."""


class Root(click.Group):
    """Commands of core and of the entry-point group `codellm.commands`, loaded when invoked."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *sorted({entry.name for entry in _entries()})]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in COMMANDS:
            module, _, attribute = COMMANDS[name][0].partition(":")
            command: click.Command = getattr(importlib.import_module(module), attribute)
            return command
        named = [entry for entry in entry_points.entries(entry_points.COMMANDS) if entry.name == name]
        # where one of several is turned off, the other has the name to itself
        entry = next((entry for entry in named if not entry.off), named[0] if named else None)
        if entry is None:
            return None
        plugin, loaded = load_command(entry)
        plugin.raise_problem()
        return loaded

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        import difflib

        known = {*COMMANDS, *(entry.name for entry in entry_points.entries(entry_points.COMMANDS))}
        if args and not args[0].startswith("-") and args[0] not in known:
            near = difflib.get_close_matches(args[0], sorted(known), n=1, cutoff=0.5)
            ctx.fail(f"no such command {args[0]!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(_lines())

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        # click would import every command, and complete nothing where one cannot be imported
        from click.shell_completion import CompletionItem

        items = [CompletionItem(name, help=line) for name, line in _lines() if name.startswith(incomplete)]
        return items + click.Command.shell_complete(self, ctx, incomplete)


def _lines() -> list[tuple[str, str]]:
    """Each command with its line in the help, none of them imported."""
    rows = [(name, line) for name, (_, line) in COMMANDS.items()]
    return rows + [(entry.name, f"Of the package {entry.distribution}.") for entry in _entries()]


def _entries() -> list[entry_points.Entry]:
    """The commands of other packages that can be invoked."""
    return [
        entry for entry in entry_points.entries(entry_points.COMMANDS) if entry.name not in COMMANDS and not entry.off
    ]


def load_command(entry: entry_points.Entry) -> tuple[Plugin, click.Command | None]:
    """Import a command of another package; None where it must not be, or is none."""
    from codellm.plugins.manager import load

    def work() -> click.Command:
        command = entry.load()
        if not isinstance(command, click.Command):
            raise TypeError(f"{entry.value} is {type(command).__name__}, which must be a click command")
        return command

    return load(entry, work)


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="codellm")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
@click.pass_context
def root(context: click.Context) -> None:
    """Run code language models fast on this machine, and see what each speed-up costs in quality."""
    if context.invoked_subcommand != "plugins":  # which tells it in its place
        context.call_on_close(_note_plugins)


def _note_plugins() -> None:
    """Say which plugins made this command wait or were not used.

    A command that loaded none has not even imported their manager.
    """
    if "codellm.plugins.manager" not in sys.modules:
        return
    from codellm.plugins.manager import SLOW, loaded, slow

    for plugin in loaded():
        if plugin.seconds > SLOW:
            note(f"{plugin} {'; '.join(slow(plugin))}")
        elif plugin.problem is not None and not plugin.entry.off:
            note(f"{plugin} is not used: {plugin.problem.what}; see `codellm plugins`")


def main(args: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 for an error we name, 2 for usage, 130 on Ctrl-C."""
    arguments = sys.argv[1:] if args is None else args
    debug = "--debug" in arguments[:1] or bool(os.environ.get("CODELLM_DEBUG"))
    command = next((argument for argument in arguments if not argument.startswith("-")), "")
    streams.prepare()
    stdout = sys.stdout
    try:
        if args is None and not debug:  # the process is ours
            streams.tell_strays()
        with no_exit():
            value: Any = root.main(args=arguments, prog_name="codellm", standalone_mode=False)
        stdout.flush()
        return value if isinstance(value, int) else 0
    except BaseException as error:
        if isinstance(error, SystemExit) and (
            sys.stdout is not stdout or isinstance(error.__context__, BrokenPipeError)
        ):
            error = BrokenPipeError()  # which click, that replaces stdout then, and rich make an exit of
        return exit_code(error, command, debug=debug)
