"""Qwen3 in GGUF: as Qwen2, with the norms of its heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from codellm.errors import ModelFileError
from codellm.sources import gated
from codellm.sources.architecture import Config
from codellm_cpu.convert.gated import Gated


class Qwen3(Gated, gated.Qwen3):
    """Names of the norms over each head's query and key, which llama.cpp too applies before it rotates them."""

    blocks: ClassVar[Mapping[str, str]] = {
        **Gated.blocks,
        "self_attn.q_norm": "attn_q_norm",
        "self_attn.k_norm": "attn_k_norm",
    }

    def read(self, raw: Mapping[str, Any], where: str) -> Config:
        if raw.get("attention_bias"):  # llama.cpp knows no bias of Qwen3's o_proj; no published model has one
            raise ModelFileError(f"{where}: attention_bias cannot be converted to GGUF; use a torch backend")
        return super().read(raw, where)
