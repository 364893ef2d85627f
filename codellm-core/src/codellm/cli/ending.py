"""How a command ends: every exception is a line on stderr and an exit code."""

from __future__ import annotations

import contextlib
import os
import traceback

import click

from codellm.errors import CodellmError, message
from codellm.plugins import entry_points
from codellm.plugins.entry_points import Entry
from codellm.system import packages

INTERRUPTED = 130


def exit_code(error: BaseException, command: str, *, debug: bool) -> int:
    """Say what ended `command`: 1 for an error we name, 2 for usage, 130 for Ctrl-C, 0 where the reader went away.

    Raises:
        SystemExit: `error` itself, where it is the command's own way to end.
    """
    if isinstance(error, KeyboardInterrupt | click.Abort):
        say("interrupted")
        return INTERRUPTED
    if isinstance(error, click.ClickException):
        with contextlib.suppress(OSError):
            error.show()
        return error.exit_code
    if debug and not isinstance(error, SystemExit | BrokenPipeError):
        _print_traceback(error)
    if isinstance(error, CodellmError):
        say(f"codellm: {message(error)}")
        return error.exit_code if error.exit_code in (1, 2) else 1  # a plugin's own kind may say anything
    foreign = _foreign(error)
    if foreign is None or _brings(foreign, command):
        if isinstance(error, BrokenPipeError):  # the reader went away, as `head` does: nothing is wrong
            drop_stdout()
            return 0
        if isinstance(error, SystemExit):
            raise error
    if foreign is not None:
        say(f"codellm: {described(error)}")
    elif isinstance(error, OSError) and _of_stdout(error):
        say(f"codellm: standard output cannot be written ({error.strerror or error})")
        drop_stdout()
    else:
        say(f"codellm: internal error, please report it with the output of --debug: {described(error)}")
    return 1


def say(text: str) -> None:
    """Write a line to stderr, if anybody reads it."""
    with contextlib.suppress(OSError, ValueError):
        click.echo(text, err=True)


def described(error: BaseException) -> str:
    """An error that is not ours: its type, what it says, and the plugin that raised it."""
    name, text, foreign = type(error).__name__, message(error), _foreign(error)
    told = name if text == name else f"{name}: {text}"
    return told if foreign is None else f"{told} (raised in {foreign}); {foreign.repair()}"


def _foreign(error: BaseException) -> Entry | None:
    """The plugin, or the command of another package, that raised `error`; None where that is ours."""
    from codellm.plugins.guard import culprit

    found = culprit(error)
    return None if found is None or found.distribution in packages.OWN else found


def _brings(entry: Entry, command: str) -> bool:
    """Whether the package of `entry` brings `command`, whose exit code is its own business."""
    named = (each for each in entry_points.entries(entry_points.COMMANDS) if each.name == command)
    return any(each.package == entry.package for each in named)


def _of_stdout(error: OSError) -> bool:
    """Whether standard output could not be written, as on a full disk: raised where something was printed."""
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    return error.filename is None and bool(modules) and modules[-1].partition(".")[0] in {"click", "rich", "codellm"}


def drop_stdout() -> None:
    """Let nothing more be written: Python would try to at its end, and say so."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _print_traceback(error: BaseException) -> None:
    try:
        traceback.print_exception(error)
    except KeyboardInterrupt:
        raise
    except BaseException:  # an error that cannot be told, by its own fault
        say(f"(no traceback: {type(error).__name__} cannot be printed)")
