"""What a plugin raises, or gives that it must not, as one error of ours that names it; a real Ctrl-C passes."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Iterator

from codellm.errors import BackendError, CodellmError
from codellm.plugins import entry_points
from codellm.plugins.entry_points import Entry
from codellm.plugins.manager import describe, manager

_log = logging.getLogger("codellm")

GENERATE = "codellm_generate"
"""The hook whose implementations have a hand in every run."""


@contextlib.contextmanager
def guarded(backend: str, doing: str) -> Iterator[None]:
    """Have a backend do something: "to load x", "while scoring".

    Raises:
        BackendError: it raised something that is not our own error.
    """
    try:
        yield
    except (CodellmError, KeyboardInterrupt):
        raise
    except BaseException as error:  # SystemExit, a PanicException of Rust, what a plugin derives itself
        raise failure(backend, doing, error) from error


@contextlib.contextmanager
def closing(backend: str) -> Iterator[None]:
    """Have a backend clean up: what it raises then is told in a warning, since all that was asked of it is done."""
    try:
        with guarded(backend, "while closing"):
            yield
    except CodellmError as error:
        _log.warning("%s", error)


def failure(backend: str, doing: str, error: BaseException) -> BackendError:
    """What to raise from `error`, which came out of a backend, or out of a plugin that wraps it."""
    return BackendError(f"backend {backend!r} failed {doing}: {describe(error)}{blame(error) or _owner(backend)}")


def breach(backend: str, what: str, hook: str = "") -> BackendError:
    """What to raise where a backend, or a plugin that implements `hook`, gave what it must not."""
    others = manager().implementers(hook) if hook else ""
    return BackendError(f"{named(backend)}: {what}; report it to its author{f' ({others})' if others else ''}")


def named(backend: str) -> str:
    """A backend with the plugin that brings it."""
    return f"backend {backend!r}{_owner(backend)}"


def blame(error: BaseException) -> str:
    """Where in the plugins `error` was raised, as an addition to a message; empty where in none of them."""
    entry = culprit(error)
    return f" (raised in {entry})" if entry is not None else ""


def culprit(error: BaseException) -> Entry | None:
    """The plugin, or the command of another package, whose code raised `error`: the innermost of several."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    found = (entry_points.owner(str(frame.f_globals.get("__name__"))) for frame in reversed(frames))
    return next((entry for entry in found if entry is not None), None)


def _owner(backend: str) -> str:
    """The plugin that brings a backend, as an addition to a message; empty where it is not known."""
    plugin = manager().origins.get(backend)
    return f" ({plugin})" if plugin is not None else ""
