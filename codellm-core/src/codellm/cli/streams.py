"""The standard streams: whatever the terminal, its encoding or the reader is, printing does not fail."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
import threading
from pathlib import Path

from codellm.cli.ending import described, say

_HANDLER = "codellm-printable"


def prepare() -> None:
    """Make stdout and stderr writable whatever is printed.

    One that was closed before this process began leads nowhere; what an encoding does not have is shown as `?`, and
    bytes of a file's name that are no text are printed as they are.
    """
    codecs.register_error(_HANDLER, _printable)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  # for as long as the process runs
        elif isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            with contextlib.suppress(OSError, ValueError):
                stream.reconfigure(errors=_HANDLER)


def _printable(error: UnicodeError) -> tuple[str | bytes, int]:
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.replace_errors(error)


def tell_strays() -> None:
    """Say in one line what fails where nobody waits for it: in a thread of a plugin, its finalizer, at its exit."""

    def in_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
            say(f"codellm: a thread ended in {described(args.exc_value)}")

    def unraisable(args: sys.UnraisableHookArgs) -> None:
        if args.exc_value is not None:
            say(f"codellm: ignored {described(args.exc_value)}")

    threading.excepthook = in_thread
    sys.unraisablehook = unraisable
