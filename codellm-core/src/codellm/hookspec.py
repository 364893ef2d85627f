"""The hooks that plugins implement: signatures and contracts only.

The project name is `codellm`, the entry-point group `codellm`. Hooks marked first-result stop at the first value that
is not None. Never write a hook implementation as a generator function: its generator object always wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import pluggy

from codellm.plugins.deprecation import HookDeprecationWarning

if TYPE_CHECKING:
    from codellm.artifacts.request import Artifact, QuantizeRequest
    from codellm.backend import Backend
    from codellm.finding import Finding
    from codellm.model import Model
    from codellm.result import Result
    from codellm.scheme import Scheme
    from codellm.sequence import Sequence, Token
    from codellm.sources import ModelSource
    from codellm.spec import LoadSpec

__all__ = ["HookDeprecationWarning", "hookimpl", "hookspec"]

hookspec = pluggy.HookspecMarker("codellm")
hookimpl = pluggy.HookimplMarker("codellm")


@hookspec
def codellm_backends() -> Iterable[Backend]:  # type: ignore[empty-body]
    """Backends that this plugin brings; cheap to build."""


@hookspec
def codellm_schemes() -> Iterable[Scheme]:  # type: ignore[empty-body]
    """File schemes that this plugin can produce, each with the format it writes and those it takes."""


@hookspec(firstresult=True)
def codellm_load(spec: LoadSpec, source: ModelSource, backend: Backend) -> Model | None:
    """Load `source` with `backend`, which is the one that `spec.backend` names (core has resolved all three)."""


@hookspec(firstresult=True)
def codellm_generate(model: Model, sequences: Iterable[Sequence | None]) -> Iterator[list[Token]] | None:
    """Run `sequences`; the contract of the iterator is that of `Model.run`."""


@hookspec
def codellm_quantize_plan(source: ModelSource, scheme: Scheme, fitted: bool) -> Iterable[str]:  # type: ignore[empty-body]
    """What the person who waits should know of `source` in `scheme`, a line each, before anything is written.

    `source` may have a format that the scheme takes only after a conversion; `fitted` tells whether weights will be
    fitted to a text. An error of ours says that it cannot be made, and nothing is written then.
    """


@hookspec(firstresult=True)
def codellm_quantize(request: QuantizeRequest) -> Artifact | None:
    """Write `request.source` in `request.scheme` to `request.destination`, or None for a scheme of another plugin.

    Core has made sure of the scheme's `takes`, gives a temporary destination, checks the quality, then renames.
    """


@hookspec
def codellm_generated(sequence: Sequence, result: Result) -> None:
    """Told of each finished sequence."""


@hookspec
def codellm_doctor() -> Iterable[Finding]:  # type: ignore[empty-body]
    """What the plugin finds of what it needs here, for `codellm doctor`: imports late, changes nothing, takes seconds.

    A hook that raises is told as a finding of its own, and the others are asked all the same.
    """
