"""What Llama, Qwen2 and Qwen3 share in GGUF."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from codellm.sources import gated
from codellm_cpu.convert.architecture import ATTENTION_NAMES, GgufArchitecture

if TYPE_CHECKING:
    from gguf import GGUFWriter


class Gated(GgufArchitecture, gated.Gated):
    """Names of the gated feed-forward layer, and the key of RMS norms."""

    blocks: ClassVar[Mapping[str, str]] = ATTENTION_NAMES | {
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }

    def add_norm_epsilon(self, writer: GGUFWriter, epsilon: float) -> None:
        writer.add_layer_norm_rms_eps(epsilon)
