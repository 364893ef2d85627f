"""A lean decoder for StarCoder2, Llama, Qwen2 and Qwen3.

B slots, T tokens of each, H hidden size, N query heads, KV key-value heads, D the head_dim, R cells of the cache,
V vocabulary. Every shape is fixed and every step is tensors in, tensors out, so that a step can be traced, compiled or
captured in a CUDA graph. What a model has (which norm, norms of its heads, a gate, biases, an output of its own) is
read off its weights.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from codellm.sources.architecture import Config
from codellm.torch.cache import Cache
from codellm.torch.rope import apply_rotary, rotary_table
from codellm.torch.weights import Weights


class Attention(nn.Module):
    """Causal attention with grouped key-value heads; queries, keys and values come from one product."""

    def __init__(self, config: Config, weights: Weights, name: str) -> None:
        super().__init__()
        self.split = [
            heads * config.head_dim
            for heads in (config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads)
        ]
        self.head_dim, self.kv_heads = config.head_dim, config.num_key_value_heads
        self.qkv = weights.linear(f"{name}.q_proj", f"{name}.k_proj", f"{name}.v_proj")
        normed = weights.has(f"{name}.q_norm")
        self.q_norm = weights.norm(f"{name}.q_norm", config.epsilon) if normed else None  # over D
        self.k_norm = weights.norm(f"{name}.k_norm", config.epsilon) if normed else None
        self.o_proj = weights.linear(f"{name}.o_proj")

    def forward(
        self,
        x: torch.Tensor,  # [B, T, H]
        cos: torch.Tensor,  # [B, T, 1, D / 2]
        sin: torch.Tensor,
        mask: torch.Tensor,  # [B, 1, T, R]
        cells: torch.Tensor,  # [B, T]
        keys: torch.Tensor,  # [B, R, KV, D]
        values: torch.Tensor,
    ) -> torch.Tensor:
        batch, length, _ = x.shape
        q, k, v = (part.view(batch, length, -1, self.head_dim) for part in self.qkv(x).split(self.split, dim=-1))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        rows = torch.arange(batch, device=x.device)[:, None]
        keys[rows, cells] = apply_rotary(k, cos, sin)
        values[rows, cells] = v
        q = apply_rotary(q, cos, sin)
        attended = self.attend(q, keys.transpose(1, 2), values.transpose(1, 2), mask)  # [B, T, N * D]
        projected: torch.Tensor = self.o_proj(attended)
        return projected

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Attend with `q` [B, T, N, D] to `k` and `v` [B, KV, R, D] under `mask` [B, 1, T, R] → [B, T, N * D]."""
        batch, length, heads, _ = q.shape
        if length == 1:  # the queries that share a key-value head stand where tokens would: no key is repeated
            grouped = q.view(batch, self.kv_heads, heads // self.kv_heads, self.head_dim)  # [B, KV, N / KV, D]
            attended = functional.scaled_dot_product_attention(grouped, k, v, attn_mask=mask)
        else:
            attended = functional.scaled_dot_product_attention(
                q.transpose(1, 2), k, v, attn_mask=mask, enable_gqa=True
            ).transpose(1, 2)  # [B, T, N, D]
        return attended.reshape(batch, length, heads * self.head_dim)


class FeedForward(nn.Module):
    """Feed-forward layer, SiLU-gated by the same product where the model has a gate; else GELU (the tanh form)."""

    def __init__(self, weights: Weights, name: str) -> None:
        super().__init__()
        self.gated = weights.has(f"{name}.gate_proj")
        self.up = weights.linear(*([f"{name}.gate_proj", f"{name}.up_proj"] if self.gated else [f"{name}.c_fc"]))
        self.down = weights.linear(f"{name}.down_proj" if self.gated else f"{name}.c_proj")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute `x` [B, T, H] → [B, T, H]."""
        intermediate = self.up(x)
        if self.gated:
            gate, up = intermediate.chunk(2, dim=-1)
            intermediate = functional.silu(gate) * up
        else:
            intermediate = functional.gelu(intermediate, approximate="tanh")
        projected: torch.Tensor = self.down(intermediate)
        return projected


class Layer(nn.Module):
    """Attention, then the feed-forward layer, each on a normed copy that is added to what came in."""

    def __init__(self, config: Config, weights: Weights, name: str) -> None:
        super().__init__()
        self.attention_norm = weights.norm(f"{name}.input_layernorm", config.epsilon)
        self.attention = Attention(config, weights, f"{name}.self_attn")
        self.feed_forward_norm = weights.norm(f"{name}.post_attention_layernorm", config.epsilon)
        self.feed_forward = FeedForward(weights, f"{name}.mlp")

    def forward(
        self,
        x: torch.Tensor,  # [B, T, H]
        cos: torch.Tensor,
        sin: torch.Tensor,
        mask: torch.Tensor,
        cells: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
    ) -> torch.Tensor:
        x = torch.add(x, self.attention(self.attention_norm(x), cos, sin, mask, cells, keys, values))
        return torch.add(x, self.feed_forward(self.feed_forward_norm(x)))


class Decoder(nn.Module):
    """The whole model; `context_length` is the longest sequence that it will be given."""

    cos: torch.Tensor
    sin: torch.Tensor

    def __init__(self, config: Config, weights: Weights, context_length: int) -> None:
        super().__init__()
        self.embedding = weights.embedding("model.embed_tokens")
        self.layers = nn.ModuleList(
            Layer(config, weights, f"model.layers.{number}") for number in range(config.num_hidden_layers)
        )
        self.norm = weights.norm("model.norm", config.epsilon)
        self.lm_head = weights.lm_head(self.embedding)
        cos, sin = rotary_table(config, context_length)
        self.register_buffer("cos", cos.to(weights.device), persistent=False)
        self.register_buffer("sin", sin.to(weights.device), persistent=False)

    def prefill(self, tokens: torch.Tensor, positions: torch.Tensor, cache: Cache) -> torch.Tensor:
        """Compute a chunk of each prompt, tokens at consecutive positions [B, T] → logits after the last [B, V]."""
        x = self.hidden(tokens, positions, cache)  # [B, T, H]
        return self.logits(x[:, -1])

    def decode(self, tokens: torch.Tensor, positions: torch.Tensor, cache: Cache) -> torch.Tensor:
        """Compute a token of each slot, tokens [B] at positions [B] → logits after it [B, V]."""
        x = self.hidden(tokens[:, None], positions[:, None], cache)  # [B, 1, H]
        return self.logits(x[:, 0])

    def all_position_logits(self, tokens: torch.Tensor, positions: torch.Tensor, cache: Cache) -> torch.Tensor:
        """Compute a chunk of each prompt, as `prefill` does → logits after every token [B, T, V]."""
        return self.logits(self.hidden(tokens, positions, cache))

    def hidden(self, tokens: torch.Tensor, positions: torch.Tensor, cache: Cache) -> torch.Tensor:
        """Last layer's output [B, T, H] for `tokens` at `positions` [B, T]; keys and values go into the cache."""
        x, cos, sin, mask, cells = self.inputs(tokens, positions, cache)
        for layer, keys, values in zip(self.layers, cache.keys, cache.values, strict=True):
            x = layer(x, cos, sin, mask, cells, keys, values)
        return x

    def inputs(
        self, tokens: torch.Tensor, positions: torch.Tensor, cache: Cache
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Embeddings [B, T, H] for the first layer, then what all layers share: cos, sin, mask and cells."""
        x: torch.Tensor = self.embedding(tokens)
        cos, sin = self.cos[positions][:, :, None], self.sin[positions][:, :, None]  # [B, T, 1, D / 2]
        return x, cos, sin, cache.mask(positions, x.dtype), cache.cells(positions)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of the last layer's output `x` [..., H] → [..., V] in float32."""
        logits: torch.Tensor = self.lm_head(self.norm(x))
        return logits.float()
