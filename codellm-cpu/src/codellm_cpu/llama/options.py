"""The `-o` options of `llama-cpp`: what a user may say, and what is done where nothing is said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from codellm.options import Option, choice, count, read, switch

if TYPE_CHECKING:
    from collections.abc import Mapping

_REPACK: Option[bool | None] = Option(
    None, "one of auto, on, off", lambda text: (None, True, False)[("auto", "on", "off").index(text)]
)


@attrs.frozen(kw_only=True)
class Options:
    """The `-o` options.

    `repack`: whether weights are laid out anew for this processor at load; None where the kernels of the batch decide.
    `chunk`: the most tokens of prompts between two tokens of sequences that generate. With 128, a prompt of a 3B model
    is computed within 5 % as fast as with 512, and the others wait a quarter as long (docs/performance.md, Prefill).
    """

    repack: bool | None
    mmap: bool
    flash_attn: str
    chunk: int

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> Options:
        """Options of their texts.

        Raises:
            UnknownNameError: no such option.
            InvalidValueError: a value that the option does not take.
        """
        known: dict[str, Option[Any]] = {
            "repack": _REPACK,
            "mmap": switch("on", "off", default=True),
            "flash-attn": choice("auto", "on", "off"),
            "chunk": count(128, "tokens", 1, 8192),
        }
        return cls(**{name.replace("-", "_"): value for name, value in read(options, known).items()})
