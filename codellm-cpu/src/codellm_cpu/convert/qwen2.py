"""Qwen2 and Qwen2.5 (Qwen2.5-Coder) in GGUF.

llama.cpp rotates as transformers does (its "neox" rope), so no row is permuted. It attends to the whole context: a
model whose sliding window is switched on is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from codellm.errors import ModelFileError
from codellm_cpu.convert.architecture import Config
from codellm_cpu.convert.gated import Gated


class Qwen2(Gated):
    """Biases on queries, keys and values."""

    name: ClassVar[str] = "qwen2"

    def read(self, raw: Mapping[str, Any], where: str) -> Config:
        for field in ("use_sliding_window", "use_mrope"):
            if raw.get(field):
                raise ModelFileError(f"{where}: {field} {raw[field]!r} has no GGUF form; known: false")
        if any(kind != "full_attention" for kind in raw.get("layer_types") or ()):
            raise ModelFileError(f"{where}: layer_types has no GGUF form but full_attention in every layer")
        return super().read(raw, where)

    def biased(self, config: Config) -> tuple[str, ...]:
        return ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
