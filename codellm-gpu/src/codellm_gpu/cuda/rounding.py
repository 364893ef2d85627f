"""How weights are rounded to 8 and 4 bits: a row, or a group of a row, becomes whole numbers and a scale."""

from __future__ import annotations

import torch

GROUP = 128
"""Inputs that share a scale, as most published checkpoints of 4 bits have it."""
RATIOS = (1.15, 1.1, 1.05, 1.0, 0.95, 0.9, 0.85, 0.8, 0.75)
"""How much of a group's greatest weight its levels reach: what lies beyond is clipped."""


def round_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Round float32 `rows` [N, K] to the nearest of 255 levels → int8 [N, K] from -127 to 127, scales float32 [N]."""
    scales = rows.abs().amax(dim=-1) / 127
    return (rows / divisible(scales)[:, None]).round_().clamp_(-127, 127).to(torch.int8), scales


def round_groups(groups: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Round float32 `groups` [..., G] to 16 levels → codes uint8 [..., G], scales [...] of `dtype`.

    A weight is (code - 8) * scale, and a scale may be negative: the greatest weight of a group is given the level -8,
    the longest, whatever its sign (ggml's q4_0). Of RATIOS, each of which clips that weight to a part of it, the scale
    is then refined to the one of least squares for the levels that it gives, sum(w * level) / sum(level^2), and the
    one with the least sum of squared errors is kept (the search of Nagel et al. 2021, "A White Paper on Neural Network
    Quantization", 3.1, and ggml's make_qx_quants). docs/quantization.md says what that gains.
    """
    extreme = groups.gather(-1, groups.abs().argmax(dim=-1, keepdim=True))
    best_scales = best_error = torch.empty(0)
    for ratio in RATIOS:
        levels = nearest(groups, (extreme * (ratio / -8)).to(dtype).float())
        scales = (levels * groups).sum(-1, keepdim=True) / divisible(levels.square().sum(-1, keepdim=True))
        scales = scales.to(dtype).float()
        error = (nearest(groups, scales).mul_(scales) - groups).square_().sum(-1, keepdim=True)
        if ratio == RATIOS[0]:
            best_scales, best_error = scales, error
        else:
            better = error < best_error
            best_scales, best_error = scales.where(better, best_scales), error.where(better, best_error)
    codes = (nearest(groups, best_scales) + 8).to(torch.uint8)
    return codes, best_scales.squeeze(-1).to(dtype)


def nearest(groups: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """The levels from -8 to 7, as float32, that come nearest to `groups` [..., G] by `scales` [..., 1]."""
    return (groups / divisible(scales)).round_().clamp_(-8, 7)


def divisible(scales: torch.Tensor) -> torch.Tensor:
    """`scales` with 1 for 0: zeros divided by it stay zeros."""
    return torch.where(scales == 0, 1, scales)
