"""Muon: momentum whose matrix updates are orthogonalized, batched over all matrices of one shape.

The method and the polynomial are Keller Jordan's (https://kellerjordan.github.io/posts/muon/). Batching by shape turns
the update of seven layers into four groups of matrix products, which for small matrices is most of the time.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

QUINTIC = (3.4445, -4.7750, 2.0315)  # x -> a x + b x^3 + c x^5 drives singular values near 1
ITERATIONS = 5


def orthogonalize(matrices: Tensor) -> Tensor:
    """Roughly the nearest semi-orthogonal matrix of each of `matrices` [N, rows, columns]: singular values near 1."""
    a, b, c = QUINTIC
    x: Tensor = matrices.bfloat16()
    wide = x.size(-2) <= x.size(-1)
    x = x if wide else x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalized; for the weight matrices inside the layers, not for embeddings or vectors."""

    def __init__(
        self, matrices: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, decay: float = 0.01
    ) -> None:
        by_shape: dict[torch.Size, list[nn.Parameter]] = {}
        for matrix in matrices:
            by_shape.setdefault(matrix.shape, []).append(matrix)
        groups = [{"params": same} for same in by_shape.values()]
        super().__init__(groups, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix from its gradient; a matrix without one raises RuntimeError."""
        for group in self.param_groups:
            matrices, rate = group["params"], group["lr"]
            gradients = torch.stack([_gradient(matrix) for matrix in matrices])  # [N, rows, columns]
            state = self.state[matrices[0]]
            if "velocity" not in state:
                state["velocity"] = torch.zeros_like(gradients)
            velocity = state["velocity"]
            velocity.lerp_(gradients, 1 - group["momentum"])
            update = orthogonalize(gradients.lerp(velocity, group["momentum"])).float()
            scale = max(1.0, update.size(-2) / update.size(-1)) ** 0.5
            torch._foreach_mul_(matrices, 1 - rate * group["decay"])
            torch._foreach_add_(matrices, list(update.unbind()), alpha=-rate * scale)


def _gradient(matrix: nn.Parameter) -> Tensor:
    if matrix.grad is None:
        raise RuntimeError("Muon needs a gradient for every matrix: run backward() first")
    return matrix.grad
