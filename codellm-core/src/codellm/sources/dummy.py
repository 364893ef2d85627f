"""Seeded random weights of known architectures: real sizes for speed work, with nothing to download.

What is random: every weight and bias is drawn independently from a normal distribution (65,536 equally likely values
at its quantiles, rounded to the stored type) with the published `initializer_range`; norms are 1 and 0. A model of
them computes at the cost of the real one and says nothing of use.
"""

from __future__ import annotations

import functools
import hashlib
import statistics
from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from codellm.errors import InvalidValueError, ModelFileError, UnknownNameError
from codellm.sources.architectures import ARCHITECTURES
from codellm.sources.source import TensorInfo, Tensors

COMMON: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 0, "dtype": "bfloat16"}
"""Of every dummy: the ids are those of the tokenizer that they borrow."""

STARCODER2 = COMMON | {
    "architectures": ["Starcoder2ForCausalLM"],
    "model_type": "starcoder2",
    "hidden_act": "gelu_pytorch_tanh",
    "max_position_embeddings": 16384,
    "norm_epsilon": 1e-5,
    "sliding_window": 4096,
    "use_bias": True,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
LLAMA = COMMON | {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "initializer_range": 0.02,
    "tie_word_embeddings": False,
}
QWEN2 = COMMON | {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "use_sliding_window": False,
    "initializer_range": 0.02,
}
QWEN3 = QWEN2 | {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "max_position_embeddings": 40960,
    "head_dim": 128,
    "attention_bias": False,
    "vocab_size": 151936,
}


def sizes(hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int) -> dict[str, int]:
    """The fields of config.json in which the models of one architecture differ most."""
    return {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
    }


CONFIGS: dict[str, dict[str, Any]] = {
    "starcoder2-3b": STARCODER2
    | sizes(3072, 12288, 30, 24, 2)
    | {"rope_theta": 999999.4420358813, "initializer_range": 0.018042},
    "starcoder2-7b": STARCODER2
    | sizes(4608, 18432, 32, 36, 4)
    | {"rope_theta": 1000000, "initializer_range": 0.018042},
    "starcoder2-15b": STARCODER2
    | sizes(6144, 24576, 40, 48, 4)
    | {"rope_theta": 100000, "initializer_range": 0.01275, "tie_word_embeddings": False},
    "codellama-7b": LLAMA
    | sizes(4096, 11008, 32, 32, 32)
    | {"max_position_embeddings": 16384, "rope_theta": 1000000.0, "vocab_size": 32016},
    "llama-3.1-8b": LLAMA
    | sizes(4096, 14336, 32, 32, 8)
    | {"max_position_embeddings": 131072, "rope_theta": 500000.0, "vocab_size": 128256}
    | {
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }
    },
    "qwen2.5-coder-1.5b": QWEN2 | sizes(1536, 8960, 28, 12, 2) | {"vocab_size": 151936, "tie_word_embeddings": True},
    "qwen2.5-coder-7b": QWEN2 | sizes(3584, 18944, 28, 28, 4) | {"vocab_size": 152064, "tie_word_embeddings": False},
    "qwen3-0.6b": QWEN3 | sizes(1024, 3072, 28, 16, 8) | {"tie_word_embeddings": True},
    "qwen3-8b": QWEN3 | sizes(4096, 12288, 36, 32, 8) | {"tie_word_embeddings": False},
    "tiny": STARCODER2
    | sizes(256, 1024, 2, 4, 2)  # K-quants need rows that are multiples of 256
    | {"max_position_embeddings": 1024, "rope_theta": 10000, "initializer_range": 0.018042},
}
"""The config.json of each dummy: as published, `tiny` ours.

StarCoder2: bigcode/starcoder2-3b, -7b and -15b on the hub, as NVIDIA/TensorRT-LLM repeats them in
tests/unittest/_torch/modeling/test_modeling_starcoder2.py. 3b and 7b share the embedding with the output
(bigcode-project/starcoder2, issue 18), 15b has an output of its own. The others: codellama/CodeLlama-7b-hf,
meta-llama/Llama-3.1-8B, Qwen/Qwen2.5-Coder-1.5B and -7B, Qwen/Qwen3-0.6B and -8B on the hub; their published numbers
of parameters are tested.
"""

SLAB = 1 << 18
"""Values drawn at once: their random numbers and the table stay in the processor's cache."""


def dummy_config(name: str) -> dict[str, Any]:
    """The config.json of one of `CONFIGS`.

    Raises:
        UnknownNameError: no such dummy.
    """
    if name not in CONFIGS:
        raise UnknownNameError("dummy model", name, CONFIGS)
    return dict(CONFIGS[name])


@attrs.frozen
class Distribution:
    """The normal distribution of a tensor's values, and the seed of its own generator."""

    mean: float
    std: float
    seed: int


class DummyTensors(Tensors):
    """The weights of a configuration, drawn as they are read.

    A tensor depends on `seed`, its name and its shape alone: any order and any subset gives the same values. Memory is
    that of the tensor read. About 0.4 billion values a second on one core.

    Raises:
        InvalidValueError: `dtype` is not float32, float16 or bfloat16.
        ModelFileError: the configuration says what its architecture is not computed with.
    """

    def __init__(self, config: Mapping[str, Any], dtype: str | None = None, seed: int = 0) -> None:
        self.dtype = dtype or str(config.get("dtype", "bfloat16"))
        if self.dtype not in ("float32", "float16", "bfloat16"):
            raise InvalidValueError(f"dummy weights: dtype {self.dtype!r}; known: float32, float16, bfloat16")
        architecture = ARCHITECTURES[config["model_type"]]
        self._shapes = architecture.shapes(architecture.read(config, "configuration of dummy weights"))
        self._std = float(config.get("initializer_range", 0.02))
        self._seed = seed

    def infos(self) -> tuple[TensorInfo, ...]:
        return tuple(TensorInfo(name, shape, self.dtype) for name, shape in self._shapes.items())

    def distribution(self, name: str) -> Distribution:
        """How the tensor `name` is drawn.

        Raises:
            ModelFileError: the architecture has no such tensor.
        """
        if name not in self._shapes:
            raise ModelFileError(f"dummy weights: no tensor {name!r}")
        digest = hashlib.sha256(f"{self._seed}:{name}".encode()).digest()
        if "norm" in name:
            return Distribution(1.0 if name.endswith(".weight") else 0.0, 0.0, 0)
        return Distribution(0.0, self._std, int.from_bytes(digest, "little"))

    def read(self, name: str) -> npt.NDArray[np.generic]:
        """The tensor, drawn anew at each call: float32, float16, or bfloat16 as uint16 bit patterns.

        Raises:
            ModelFileError: the architecture has no such tensor.
        """
        distribution = self.distribution(name)
        shape = self._shapes[name]
        if not distribution.std:
            return stored(np.full(shape, distribution.mean, np.float32), self.dtype)
        table = quantiles(distribution.std, self.dtype)
        random = np.random.Generator(np.random.SFC64(distribution.seed))
        result = np.empty(shape, table.dtype)
        flat = result.reshape(-1)
        for begin in range(0, flat.size, SLAB):
            part = flat[begin : begin + SLAB]
            draws = random.integers(0, 1 << 64, -(-part.size // 4), np.uint64).view(np.uint16)
            np.take(table, draws[: part.size], out=part, mode="clip")  # "clip" writes straight into `out`
        return result


@functools.lru_cache(maxsize=4)
def quantiles(std: float, dtype: str) -> npt.NDArray[np.generic]:
    """The normal distribution as 65,536 equally likely values, so that 16 random bits draw one: [65536]."""
    normal = statistics.NormalDist(0.0, std)
    values = [normal.inv_cdf((index + 0.5) / 65536) for index in range(65536)]
    return stored(np.array(values, np.float32), dtype)


def stored(values: npt.NDArray[np.float32], dtype: str) -> npt.NDArray[np.generic]:
    """Round finite float32 values to the nearest of the stored type; bfloat16 is float32's upper half."""
    if dtype == "bfloat16":
        bits = values.view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return values.astype(np.float16 if dtype == "float16" else np.float32)
