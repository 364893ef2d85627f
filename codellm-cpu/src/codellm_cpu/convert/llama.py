"""Llama (CodeLlama, DeepSeek-Coder) in GGUF.

Its rope there turns neighbouring values ("interleaved"), transformers' turns the first half of a head against the
second: the rows of queries and keys are put in the order that makes the two one, and attention, a sum over the head,
does not see it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from codellm_cpu.convert.architecture import Config
from codellm_cpu.convert.gated import Gated

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Llama(Gated):
    """Biases where `attention_bias` and `mlp_bias` say so; heads may have a size of their own."""

    name: ClassVar[str] = "llama"
    ropes: ClassVar[tuple[str, ...]] = ("default", "linear", "llama3")
    free_head: ClassVar[bool] = True

    def read(self, raw: Mapping[str, Any], where: str) -> Config:
        if raw.get("num_key_value_heads") is None:  # the first Llamas knew no groups
            raw = {**raw, "num_key_value_heads": raw.get("num_attention_heads")}
        return super().read(raw, where)

    def biased(self, config: Config) -> tuple[str, ...]:
        fields = {"attention_bias": "self_attn.", "mlp_bias": "mlp."}
        return tuple(prefix for field, prefix in fields.items() if config.raw.get(field))

    def turned(self, name: str, config: Config) -> int | None:
        if ".self_attn.q_proj." in name:
            return config.heads
        return config.kv_heads if ".self_attn.k_proj." in name else None

    def constants(self, config: Config) -> dict[str, npt.NDArray[np.float32]]:
        """What "llama3" divides each frequency by; linear scaling has a key."""
        return {"rope_freqs.weight": config.rope.divisors(config.head)} if config.rope.kind == "llama3" else {}
