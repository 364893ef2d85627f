"""What a model string points at, with nothing fetched yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import attrs

from codellm.scheme import Scheme
from codellm.sources.source import ModelSource

BUNDLED = ("codellm-demo",)


class Known(Protocol):
    """What a source is told of the plugins: which formats somebody takes, and which schemes there are."""

    @property
    def schemes(self) -> Mapping[str, Scheme]:
        """All schemes, by name."""

    def scheme(self, name: str) -> Scheme:
        """The scheme `name`.

        Raises:
            CodellmError: nobody has it, or several plugins claim it.
        """

    def takes(self, format: str) -> bool:
        """Whether some plugin loads this format, or makes another one of it."""


@attrs.frozen(kw_only=True)
class Reference:
    """Where a model string points: its format is known before anything is fetched, so that a backend can be chosen."""

    name: str
    format: str
    scheme: str | None
    """The scheme that the string names, as in `hub-id:q4_k_m`."""
    fetch: Callable[[], ModelSource]
    fault: str = ""
    """What is wrong with it where no plugin takes this format."""
    ready: Mapping[str, Reference] = attrs.field(factory=dict)
    """Files of the same model that are in a file scheme already, by the scheme's name: these need not be made."""

    def in_scheme(self, scheme: Scheme | None) -> Reference:
        """What to fetch for a model in `scheme`: the file that is in it already, else what it can be made from."""
        return self.ready.get(scheme.name, self) if scheme is not None else self
