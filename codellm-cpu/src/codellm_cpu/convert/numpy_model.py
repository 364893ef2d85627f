"""The forward pass of a checkpoint in numpy, one layer at a time: what a conversion is held against.

Independent of what it judges: it shares no code with the writer but the reading of config.json, names tensors as
transformers does, and is itself held against transformers (tests/pytorch). Which norm, which feed-forward layer and
which biases a model has it sees from the tensors that are there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from codellm_cpu.convert.storage import to_float32

if TYPE_CHECKING:
    from codellm.sources import Tensors
    from codellm.sources.architecture import Config

Array = npt.NDArray[np.float32]

BLOCK = 1 << 24
"""Weights turned into float32 at once: 64 MB beside the tensor itself, which is mapped from its file."""


EXACT = 24
"""Bits of a float32's significand."""


class NumpyModel:
    """A checkpoint of StarCoder2, Llama, Qwen2 or Qwen3 that computes logits; `tensors` are read once a pass.

    `bits` are the significands that activations are rounded to before each product of matrices: one stream of
    computation for each, all in one pass over the weights. `EXACT` is float32 throughout.
    """

    def __init__(self, tensors: Tensors, config: Config, bits: tuple[int, ...] = (EXACT,)) -> None:
        self._tensors, self._config, self._bits = tensors, config, bits
        self._types = {info.name: info.dtype for info in tensors.infos()}

    def logits(self, ids: Sequence[int], progress: Callable[[int, int], None] = lambda done, total: None) -> Array:
        """Logits [S, T, V] of each stream after `ids` [T]; `progress` is told of layers, the output as one."""
        config = self._config
        rows = self._tensors.read("model.embed_tokens.weight")[np.asarray(ids)]
        embedded = to_float32(rows, self._types["model.embed_tokens.weight"])
        x = np.repeat(embedded[np.newaxis], len(self._bits), axis=0)  # [S, T, H]
        cos, sin = rotary_table(config, len(ids))
        for layer in range(config.num_hidden_layers):
            progress(layer, config.num_hidden_layers + 1)
            name = f"model.layers.{layer}"
            x = x + self._attention(f"{name}.self_attn", self._norm(f"{name}.input_layernorm", x), cos, sin)
            x = x + self._feed_forward(f"{name}.mlp", self._norm(f"{name}.post_attention_layernorm", x))
        progress(config.num_hidden_layers, config.num_hidden_layers + 1)
        output = "model.embed_tokens" if config.tied else "lm_head"
        logits = self._linear(output, self._norm("model.norm", x))
        progress(config.num_hidden_layers + 1, config.num_hidden_layers + 1)
        return logits

    def _vector(self, name: str) -> Array:
        return to_float32(self._tensors.read(name), self._types[name])

    def _linear(self, name: str, x: Array) -> Array:
        """A projection with the bias that the checkpoint has: x [S, T, in] → [S, T, out]."""
        weight, dtype = self._tensors.read(f"{name}.weight"), self._types[f"{name}.weight"]  # [out, in]
        flat = np.concatenate([rounded(stream, bits) for stream, bits in zip(x, self._bits, strict=True)])
        out = np.empty((len(flat), len(weight)), np.float32)
        step = max(1, BLOCK // weight.shape[1])
        for begin in range(0, len(weight), step):
            part = slice(begin, begin + step)
            np.matmul(flat, to_float32(weight[part], dtype).T, out=out[:, part])
        if f"{name}.bias" in self._types:
            out += self._vector(f"{name}.bias")
        return out.reshape(*x.shape[:2], -1)

    def _norm(self, name: str, x: Array) -> Array:
        """A layer norm where the checkpoint has its bias, else an RMS norm."""
        layer_norm = f"{name}.bias" in self._types
        if layer_norm:
            x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + np.float32(self._config.epsilon))
        x = x * self._vector(f"{name}.weight")
        return x + self._vector(f"{name}.bias") if layer_norm else x

    def _attention(self, name: str, x: Array, cos: Array, sin: Array) -> Array:
        """Attend causally, with grouped key-value heads: x [S, T, H] → [S, T, H]."""
        config = self._config
        q, k, v = (
            self._linear(f"{name}.{part}_proj", x).reshape(*x.shape[:2], -1, config.head_dim).swapaxes(1, 2)
            for part in ("q", "k", "v")
        )  # [S, heads, T, D]
        if f"{name}.q_norm.weight" in self._types:  # each head's own D values
            q, k = self._norm(f"{name}.q_norm", q), self._norm(f"{name}.k_norm", k)
        group = config.num_attention_heads // config.num_key_value_heads
        q, k, v = apply_rotary(q, cos, sin), apply_rotary(k, cos, sin).repeat(group, axis=1), v.repeat(group, axis=1)
        scores = q @ k.swapaxes(2, 3) / np.float32(math.sqrt(config.head_dim))  # [S, heads, T, T]
        scores += np.triu(np.full(scores.shape[2:], -np.inf, np.float32), 1)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        attended = scores / scores.sum(axis=-1, keepdims=True) @ v  # [S, heads, T, D]
        return self._linear(f"{name}.o_proj", attended.swapaxes(1, 2).reshape(*x.shape[:2], -1))

    def _feed_forward(self, name: str, x: Array) -> Array:
        """Apply SiLU where the checkpoint has a gate, else GELU (the tanh form): x [S, T, H] → [S, T, H]."""
        if f"{name}.gate_proj.weight" in self._types:
            gate = self._linear(f"{name}.gate_proj", x)
            with np.errstate(over="ignore"):  # exp of a large negative gate: infinity, and the quotient 0
                gated = gate / (1 + np.exp(-gate)) * self._linear(f"{name}.up_proj", x)
            return self._linear(f"{name}.down_proj", gated)
        up = self._linear(f"{name}.c_fc", x)
        inner = np.float32(math.sqrt(2 / math.pi)) * (up + np.float32(0.044715) * up * up * up)
        return self._linear(f"{name}.c_proj", np.float32(0.5) * up * (1 + np.tanh(inner)))


def rounded(x: Array, bits: int) -> Array:
    """Round finite `x` to a significand of `bits` bits, whatever the exponent."""
    if bits == EXACT:
        return x
    lost = EXACT - bits
    return ((x.view(np.uint32) + np.uint32(1 << (lost - 1))) & np.uint32(-1 << lost & 0xFFFFFFFF)).view(np.float32)


def rotary_table(config: Config, length: int) -> tuple[Array, Array]:
    """Cosines and sines of every position and pair of a head: two of [T, D / 2]."""
    inv_freq = config.rope.theta ** (-np.arange(0, config.head_dim, 2) / config.head_dim)
    angles = np.outer(np.arange(length), inv_freq / config.rope.freq_factors(config.head_dim))
    cos, sin = config.rope.attention_factor * np.cos(angles), config.rope.attention_factor * np.sin(angles)
    return cos.astype(np.float32), sin.astype(np.float32)


def apply_rotary(x: Array, cos: Array, sin: Array) -> Array:
    """Rotate the first half of each head against the second: [S, heads, T, D] → the same."""
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
