"""Errors of evaluation; they follow the rules of `codellm.errors`."""

from __future__ import annotations

from codellm.errors import CodellmError


class ProblemsError(CodellmError, LookupError):
    """The problems of a benchmark are not installed, or are not the ones that published figures stand on."""


class SandboxError(CodellmError, RuntimeError):
    """The sandbox cannot be set up here, so nothing was judged; says which command mends it."""


class CodeExecutionError(CodellmError, PermissionError):
    """Model-written code was to be run and nobody allowed it."""


class SamplesError(CodellmError, ValueError):
    """A file of samples that cannot be judged, or that does not hold what was asked for."""
