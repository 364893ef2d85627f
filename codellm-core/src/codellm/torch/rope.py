"""The rotary embedding: positions turn the first half of each head against the second."""

from __future__ import annotations

import torch

from codellm.sources.architecture import Config


def rotation(config: Config, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of every position below `length` and pair of a head: two of [length, D / 2], float32."""
    frequencies = 1.0 / config.rope.theta ** (torch.arange(0, config.head_dim, 2).float() / config.head_dim)
    angles = torch.outer(
        torch.arange(length).float(), frequencies / torch.from_numpy(config.rope.divisors(config.head_dim))
    )
    return angles.cos() * config.rope.magnitude, angles.sin() * config.rope.magnitude


def rotate(x: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """`x` [B, T, heads, D] turned by cosines and sines [B, T, 1, D / 2]; computed in float32, returned in x's type."""
    cos, sin = turn
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)
