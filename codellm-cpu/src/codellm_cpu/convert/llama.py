"""Llama (CodeLlama, DeepSeek-Coder) in GGUF.

Its rope there rotates neighbouring values ("interleaved"), transformers' rotates the first half of a head against the
second: the rows of queries and keys are permuted to make the two one, and attention, a sum over the head, does not see
it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from codellm.sources import gated
from codellm.sources.architecture import Config
from codellm_cpu.convert.gated import Gated

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Llama(Gated, gated.Llama):
    """Its rope of the kind "llama3" goes into a tensor of its own."""

    ropes: ClassVar[tuple[str, ...]] = ("default", "linear", "llama3", "yarn")

    def permuted_heads(self, name: str, config: Config) -> int | None:
        if ".self_attn.q_proj." in name:
            return config.num_attention_heads
        return config.num_key_value_heads if ".self_attn.k_proj." in name else None

    def constants(self, config: Config) -> dict[str, npt.NDArray[np.float32]]:
        """What "llama3" divides each frequency by; linear scaling has a key."""
        if config.rope.rope_type != "llama3":
            return {}
        return {"rope_freqs.weight": config.rope.freq_factors(config.head_dim)}
