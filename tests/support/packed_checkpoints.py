"""Small checkpoints of 4 bits, packed by numpy as AutoGPTQ and AutoAWQ do it, beside the weights that they mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from support.checkpoints import Arrays, config_of, random_weights, save_safetensors, train_tokenizer

GROUP = 128
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
METHODS: dict[str, dict[str, Any]] = {
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False, "sym": False},
    "gptq_v2": {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "sym": False, "checkpoint_format": "gptq_v2"},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"},
}


def words(values: np.ndarray, order: tuple[int, ...] = tuple(range(8))) -> np.ndarray:
    """Numbers of 4 bits [R, C], 8 of a row a word, from its lowest bits on in `order`: int32 [R, C / 8]."""
    packed = np.zeros((values.shape[0], values.shape[1] // 8), np.uint32)
    for place, number in enumerate(order):
        packed |= values[:, number::8].astype(np.uint32) << np.uint32(4 * place)
    return packed.view(np.int32)


def parts_of(
    method: str, codes: np.ndarray, scales: np.ndarray, zeros: np.ndarray, order: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """A projection as `method` stores it: codes [out, in], scales and zeros [out, groups], and each column's group."""
    if method == "awq":
        return {"qweight": words(codes.T, AWQ_ORDER), "qzeros": words(zeros.T, AWQ_ORDER), "scales": scales.T.copy()}
    shift = 1 if method == "gptq" else 0
    groups = np.arange(codes.shape[1], dtype=np.int32) // GROUP if order is None else order
    return {
        "qweight": words(codes).T.copy(),
        "qzeros": words((zeros.T - shift) % 16),
        "scales": scales.T.copy(),
        "g_idx": groups,
    }


@attrs.frozen
class Packed:
    """A checkpoint's directory, and the weights and biases [out, in] that it means."""

    path: str
    plain: dict[str, np.ndarray]


def packed_checkpoint(
    folder: Path, method: str, *, symmetric: bool = False, ordered: bool = True, **packing: Any
) -> Packed:
    """A Qwen2 of random codes, with biases; `packing` changes its quantization_config."""
    _, tokenizer_config = train_tokenizer("qwen2", folder)
    sizes = {"hidden_size": 256, "intermediate_size": 384, "num_attention_heads": 4}
    config = config_of("qwen2", 590, **sizes)
    plain = random_weights(config)
    stored, random = dict(plain), np.random.default_rng(1)
    for name in [name for name in plain if ".layers." in name and plain[name].ndim == 2]:
        rows, columns = plain[name].shape
        codes = random.integers(0, 16, (rows, columns))
        zeros = random.integers(1, 16, (rows, columns // GROUP))
        zeros = np.full_like(zeros, 8) if symmetric else zeros
        scales = (random.uniform(0.5, 1.5, zeros.shape) / 160).astype(np.float16)
        groups = np.arange(columns, dtype=np.int32) // GROUP
        groups = groups if ordered else random.permutation(groups)
        plain[name] = ((codes - zeros[:, groups]) * scales[:, groups].astype(np.float32)).astype(np.float32)
        del stored[name]
        parts = parts_of(method, codes, scales, zeros, groups)
        stored |= {f"{name.removesuffix('weight')}{part}": values for part, values in parts.items()}
    config |= {"torch_dtype": "float16", "quantization_config": METHODS[method] | {"sym": symmetric} | packing}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    save_safetensors(folder / "model.safetensors", Arrays(stored), sorted(stored))
    return Packed(str(folder), plain)
