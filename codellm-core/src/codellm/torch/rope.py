"""The rotary embedding: a position rotates the first half of each head against the second."""

from __future__ import annotations

import torch

from codellm.sources.architecture import Config


def rotary_table(config: Config, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of every position below `length` and pair of a head: two of [length, D / 2], float32."""
    inv_freq = 1.0 / config.rope.theta ** (torch.arange(0, config.head_dim, 2).float() / config.head_dim)
    angles = torch.outer(
        torch.arange(length).float(), inv_freq / torch.from_numpy(config.rope.freq_factors(config.head_dim))
    )
    return angles.cos() * config.rope.attention_factor, angles.sin() * config.rope.attention_factor


def apply_rotary(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate `x` [B, T, heads, D] by `cos` and `sin` [B, T, 1, D / 2], in float32 → in x's type."""
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)
