"""The option `prefix_cache` of backends that keep what they computed, and how much memory that is to take."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from codellm.options import Option, count

WORTH_SHARING = 32
"""Tokens from which on a common prefix of two different prompts is worth waiting for and copying."""

SHARE = 8
MOST = 1 << 30
"""`auto` takes one part in so many of the memory that is free beside weights and context, and no more bytes than this:
what else runs needs the rest, and a few texts are all that a writer goes back and forth between."""

CONVERSING: Mapping[str, str] = MappingProxyType({"prefix_cache": "auto"})
"""Options for whoever is asked again and again for texts that begin alike: see `codellm.loading.open_spec`."""


def prefix_cache(help: str) -> Option[int | None]:
    """MiB that are kept, None for `auto`; 0, which is off, where nothing is said."""
    size = count(0, "MiB", 0, 1 << 20)

    def parse(text: str) -> int | None:
        return None if text == "auto" else size.parse(text)

    takes = f"{size.takes}, or auto"
    return Option(0, takes, parse, "0; auto in codellm serve", help)


def room(asked: int | None, spare: int) -> int | None:
    """Bytes for what is kept, of the option's value and of the `spare` bytes that nothing needs; None: it is off."""
    if asked is None:
        return max(0, min(spare // SHARE, MOST))
    return asked << 20 or None


TORCH = prefix_cache(
    "Where not 0, keys and values of finished sequences are kept, and a prompt is computed from where it parts from "
    "the longest that they begin with: those in the slots of the batch, and others as long as they fit in so much "
    "memory, the one used least recently going first; auto: an eighth of what is free, 1024 MiB at most."
)
"""That of the torch backends."""
