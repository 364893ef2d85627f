"""Qwen2 and Qwen2.5 (Qwen2.5-Coder) in GGUF.

llama.cpp rotates as transformers does (its "neox" rope), so no row is permuted. It attends to the whole context.
"""

from __future__ import annotations

from codellm.sources import gated
from codellm_cpu.convert.gated import Gated


class Qwen2(Gated, gated.Qwen2):
    """Nothing of its own: all of it is written under the names that Llama has too."""
