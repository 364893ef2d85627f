"""Every error that codellm raises on purpose.

Each one subclasses a standard exception, so that a caller who does not know codellm still catches what it means, and
each message says what is wrong, which file, plugin or value is at fault, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class CodellmError(Exception):
    """Base of all errors raised on purpose; the command line prints its message and ends with `exit_code`."""

    exit_code: ClassVar[int] = 1


def message(error: BaseException, lines: int | None = None) -> str:
    """What an error says, or the first `lines` of it, on one printable line; its type where it says nothing, or cannot.

    A plugin's error may have a `__str__` that raises.
    """
    try:
        said = " ".join(" ".join(str(error).strip().splitlines()[:lines]).split())
        text = "".join(char if char.isprintable() else "?" for char in said)
    except KeyboardInterrupt:
        raise
    except BaseException:
        text = ""
    return text or type(error).__name__


def shown(value: object) -> str:
    """A value and its type, for a message; its `__repr__` may be broken."""
    try:
        text = repr(value)
    except KeyboardInterrupt:
        raise
    except BaseException:
        text = "something"
    return f"{text if len(text) <= 40 else text[:37] + '...'} ({type(value).__name__})"


class InvalidValueError(CodellmError, ValueError):
    """A value that no run could accept: a sampling parameter, a load option, a row of a benchmark."""

    exit_code = 2


class UnknownNameError(CodellmError, LookupError):
    """A backend, scheme, model, row or option that nobody knows; suggests the nearest known one."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        self.kind, self.name, self.known = kind, name, tuple(sorted(known))
        near = difflib.get_close_matches(name, self.known, n=1, cutoff=0.5)
        message = f"unknown {kind} {name!r}"
        if near:
            message += f"; did you mean {near[0]!r}?"
        if self.known:
            message += f" Known: {', '.join(self.known)}." if near else f"; known: {', '.join(self.known)}."
        if hint:
            message += f"{'' if message.endswith(('.', '?')) else '.'} {hint}"
        super().__init__(message)


class ModelNotFoundError(CodellmError, FileNotFoundError):
    """A model that is neither bundled, nor a file or directory, nor to be had from the hub."""


class ModelFileError(CodellmError, ValueError):
    """A file of a model that is empty, cut short, or not what it claims to be."""


class ContextLengthError(CodellmError, ValueError):
    """A prompt that leaves no room for output in the model's context."""


class NoFimError(CodellmError, ValueError):
    """Infilling was asked of a model whose tokenizer has no fill-in-the-middle tokens."""


class NoChatTemplateError(CodellmError, ValueError):
    """A conversation was asked of a model that has no chat template."""


class BackendUnavailableError(CodellmError, RuntimeError):
    """A backend that cannot run on this machine; says which command mends it."""


class BackendChoiceError(CodellmError, LookupError):
    """No backend, or several equally good ones, take this model; lists the candidates with their reasons."""


class BackendError(CodellmError, RuntimeError):
    """A backend broke its contract or failed while it computed."""


class ModelBusyError(CodellmError, RuntimeError):
    """A second `run` or `score` was started while one is going on."""


class ModelClosedError(CodellmError, RuntimeError):
    """A model was used after `close`."""


class PluginError(CodellmError, ImportError):
    """A plugin that could not be imported or registered, and was asked for by name."""


class DownloadError(CodellmError, ConnectionError):
    """A file that could not be fetched from the hub."""


class NotEnoughMemoryError(CodellmError, MemoryError):
    """A model that does not fit in the memory that is free; says how much it needs."""


class ArtifactError(CodellmError, OSError):
    """A converted or quantized file that could not be written, read or removed."""


class QualityError(CodellmError, ValueError):
    """A quantized file that computes NaN or lost more than its scheme's stated bound."""


class MachineError(CodellmError, OSError):
    """The machine could not be asked what it has."""


class InputError(CodellmError, ValueError):
    """A file or stream given by the user that cannot be read as what it should be."""


class MissingPackageError(CodellmError, ImportError):
    """A package that an extra brings is not installed; says which command installs it."""


class AddressError(CodellmError, OSError):
    """An address that cannot be listened at."""


class QueueFullError(CodellmError, RuntimeError):
    """More requests wait for a model than its queue holds."""


class StoppingError(CodellmError, RuntimeError):
    """A server that stops takes no more requests, and ends what takes too long."""
