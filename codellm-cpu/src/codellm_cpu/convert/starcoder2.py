"""StarCoder2 in GGUF.

llama.cpp rotates query and key halves as transformers does (its "neox" rope), so no row is permuted. It reads the
sliding window of other architectures, but not StarCoder2's: it attends to the whole context, and so computes otherwise
than transformers past the window. The key is written all the same, for readers that use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from codellm.sources import starcoder2
from codellm.sources.architecture import Config
from codellm.sources.starcoder2 import starcoder2_shapes
from codellm_cpu.convert.architecture import ATTENTION_NAMES, GgufArchitecture

if TYPE_CHECKING:
    import numpy.typing as npt
    from gguf import GGUFWriter


class Starcoder2(GgufArchitecture, starcoder2.Starcoder2):
    """Zeros stand in for biases that a checkpoint lacks."""

    blocks: ClassVar[Mapping[str, str]] = ATTENTION_NAMES | {"mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}

    def constants(self, config: Config) -> dict[str, npt.NDArray[np.float32]]:
        """The biases that llama.cpp demands and this checkpoint lacks: zeros compute the same."""
        known = starcoder2_shapes(config.raw)
        full = starcoder2_shapes({**config.raw, "use_bias": True})
        missing = {name: shape for name, shape in full.items() if name not in known}
        return {self.gguf_name(name): np.zeros(shape, np.float32) for name, shape in missing.items()}

    def add_norm_epsilon(self, writer: GGUFWriter, epsilon: float) -> None:
        writer.add_layer_norm_eps(epsilon)

    def add_keys(self, writer: GGUFWriter, config: Config) -> None:
        super().add_keys(writer, config)
        if config.sliding_window is not None:
            writer.add_sliding_window(config.sliding_window)
