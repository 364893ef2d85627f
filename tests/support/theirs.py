"""transformers' logits, for tests that have torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def transformers_logits(
    config: dict[str, Any],
    weights: dict[str, np.ndarray],
    ids: list[int],
    activation: Callable[[Any], Any] | None = None,
) -> np.ndarray:
    """Logits [T, V] in float32; `activation` replaces that of the feed-forward layers."""
    import torch
    import transformers

    model_config = transformers.AutoConfig.for_model(**config, attn_implementation="eager")
    model = transformers.AutoModelForCausalLM.from_config(model_config, dtype=torch.float32).eval()
    left = model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()}, strict=False)
    assert not left.unexpected_keys
    assert set(left.missing_keys) <= {"lm_head.weight"}
    model.tie_weights()
    if activation is not None:
        for layer in model.model.layers:
            layer.mlp.act.forward = activation
    with torch.no_grad():
        logits: np.ndarray = model(torch.tensor([ids])).logits[0].numpy()
        return logits
