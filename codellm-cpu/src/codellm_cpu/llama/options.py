"""The `-o` options of `llama-cpp`: what a user may say, and what is done where nothing is said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from codellm.options import Option, choice, count, read, switch

if TYPE_CHECKING:
    from collections.abc import Mapping

OPTIONS: dict[str, Option[Any]] = {
    "repack": Option(
        None,
        "one of auto, on, off",
        lambda text: (None, True, False)[("auto", "on", "off").index(text)],
        otherwise="auto",
        help="Whether weights are laid out anew for this processor at load; auto: where that is faster for the batch.",
    ),
    "mmap": switch(
        "on", "off", default=True, help="Whether the file is mapped, so that weights left as they are need no copy."
    ),
    "flash-attn": choice("auto", "on", "off", help="Whether attention is computed by llama.cpp's fused kernel."),
    "chunk": count(
        128,
        "tokens",
        1,
        8192,
        help="The most tokens of prompts that are computed between two tokens of sequences that generate.",
    ),
}
"""By their names, for `Backend.options`."""


@attrs.frozen(kw_only=True)
class Options:
    """What was said, or is done where nothing was.

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
        """Read options from their texts.

        Raises:
            UnknownNameError: no such option.
            InvalidValueError: a value that the option does not take.
        """
        return cls(**{name.replace("-", "_"): value for name, value in read(options, OPTIONS).items()})
