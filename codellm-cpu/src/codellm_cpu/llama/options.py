"""The `-o` options of `llama-cpp`: what a user may say, and what is done where nothing is said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from codellm.options import Option, choice, count, read, switch
from codellm.prefix_cache import prefix_cache

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
    "prefix_cache": prefix_cache(
        "Where not 0, keys and values of finished sequences are kept, and a prompt is computed from where it parts "
        "from the longest that they begin with: those in the slots of the batch, and as many more as fit in so much "
        "memory, each taking that of a whole context; auto: an eighth of what is free, 1024 MiB and 16 texts at most."
    ),
}
"""By their names, for `Backend.options`."""


@attrs.frozen(kw_only=True)
class Options:
    """What was said, or is done where nothing was.

    `repack`: whether weights are laid out anew for this processor at load; None where the kernels of the batch decide.
    `chunk`: the most tokens of prompts between two tokens of sequences that generate. With 128, a prompt of a 3B model
    is computed within 5 % as fast as with 512, and the others wait a quarter as long (docs/performance.md, Prefill).
    `prefix_cache`: MiB for what is kept of finished sequences beside the slots; 0: nothing is kept, in slots neither;
    None: as much as is reasonable here.
    """

    repack: bool | None
    mmap: bool
    flash_attn: str
    chunk: int
    prefix_cache: int | None

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> Options:
        """Read options from their texts.

        Raises:
            UnknownNameError: no such option.
            InvalidValueError: a value that the option does not take.
        """
        return cls(**{name.replace("-", "_"): value for name, value in read(options, OPTIONS).items()})
