"""A model over two devices that exist in name alone: `python -m support.two_devices sdpa`, or flash_attention_2.

Tensors have shapes and devices but no values, and torch refuses what would mix two devices, as with GPUs. A process of
its own, since the devices cannot be taken back.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import transformers
from accelerate import dispatch_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from codellm.sources.architectures import ARCHITECTURES
from codellm.torch.cache import Cache
from codellm.torch.transformers_engine import TransformersEngine
from codellm_gpu.flash import NAME, FlashEngine, Kernels
from support.checkpoints import config_of


class Flash(FlashEngine):
    """With kernels that want everything on one device, and attend to nothing."""

    @staticmethod
    def kernels() -> Kernels:
        def step(q: Any, k: Any, v: Any, *, cache_seqlens: Any, softmax_scale: float) -> Any:
            return q + (k + v)[:, :1, :1] + cache_seqlens[:, None, None, None]

        return Kernels(lambda q, k, v, **_: q + (k + v)[:, :1, :1], step)

    @staticmethod
    def require(device: torch.device, dtype: torch.dtype) -> None:
        """Run anywhere."""


def main(attention: str) -> None:
    """Try every architecture with `attention`."""
    _setup_privateuseone_for_python_backend()
    for model_type in ARCHITECTURES:
        compute(model_type, attention)


def compute(model_type: str, attention: str) -> None:
    """Compute chunks and steps, and see where the logits are."""
    first, second = torch.device("privateuseone", 0), torch.device("privateuseone", 1)
    raw = config_of(model_type, 600, num_hidden_layers=3)
    config = ARCHITECTURES[model_type].read(raw, "test")
    engine_type = Flash if attention == "flash_attention_2" else TransformersEngine
    implementation = engine_type.implementation(attention, first, torch.float32)
    assert (implementation == NAME) is (engine_type is Flash)
    with torch.device("meta"):
        plain = transformers.AutoConfig.for_model(**raw, attn_implementation=implementation)
        model = transformers.AutoModelForCausalLM.from_config(plain).eval()
    names = ("model.embed_tokens", "model.rotary_emb", "model.norm", "lm_head", "model.layers.0")
    placed = dict.fromkeys(names, first) | dict.fromkeys(("model.layers.1", "model.layers.2"), second)
    with FakeTensorMode(), torch.no_grad():
        for name, module in model.named_modules():
            device = next((device for place, device in placed.items() if f"{name}.".startswith(f"{place}.")), first)
            for part, values in list(module._parameters.items()):
                if values is not None:
                    empty = torch.empty(values.shape, device=device)
                    module._parameters[part] = torch.nn.Parameter(empty, requires_grad=False)
            for part, values in list(module._buffers.items()):
                module._buffers[part] = torch.empty(values.shape, device=device)
        dispatch_model(model, placed, skip_keys=model._skip_keys_device_placement)
        cache = Cache.allocate(
            config, slots=2, context_length=64, chunk=8, dtype=torch.float32, device=[first, second, second]
        )
        engine = engine_type(model, cache, vocab_size=600, context_length=64, chunk=8)
        assert engine.devices == (first, second)
        for start, size in ((0, 8), (8, 3)):
            logits = engine.prefill(1, list(range(size)), start)
            assert (logits.shape, logits.device) == ((600,), first)
        logits = engine.all_position_logits(0, [1, 2, 3], 0)
        assert (logits.shape, logits.device) == ((3, 600), first)
        logits = engine.decode(torch.zeros(2, dtype=torch.long, device=first), [3, 11])
        assert (logits.shape, logits.device) == ((2, 600), first)
        engine.copy(0, 1, 3)
        engine.wipe(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
