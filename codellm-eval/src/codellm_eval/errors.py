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


class ResultsError(CodellmError, ValueError):
    """A folder that is none of `codellm bench`, or holds what no benchmark of this version wrote."""


class DummyModelError(CodellmError, ValueError):
    """A quality figure was asked of random weights."""


def refuse_dummy(dummy: bool, what: str) -> None:
    """Random weights have a speed and no quality.

    Raises:
        DummyModelError: the model is a dummy.
    """
    if dummy:
        raise DummyModelError(
            f"dummy weights are random, so {what} of them means nothing; give a trained model with -m"
        )
