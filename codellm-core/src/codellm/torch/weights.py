"""Modules of a decoder made of the tensors of a source: each is read once, and converted on the way."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from codellm.errors import ModelFileError
from codellm.sources.dummy import DummyTensors
from codellm.torch.linear import Linear
from codellm.torch.pages import use_large_pages

if TYPE_CHECKING:
    from collections.abc import Callable

    from codellm.sources import TensorInfo, Tensors

M = TypeVar("M", bound=nn.Module)

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Weights:
    """Makes modules in `dtype` on `device`; `infos` are the tensors that the architecture asks for.

    What is read is mapped from its file and copied to its place: beside the model itself memory holds one tensor.

    Raises (all methods that read):
        ModelFileError: a tensor cannot be read, or holds NaN or infinity.
    """

    def __init__(
        self, tensors: Tensors, infos: dict[str, TensorInfo], *, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._tensors, self._infos = tensors, infos
        self.dtype, self.device = dtype, device

    def has(self, name: str) -> bool:
        """Whether the architecture asks for a module `name`."""
        return f"{name}.weight" in self._infos

    def linear(self, *names: str) -> nn.Module:
        """The projections `names`, which take the same input, as one: their outputs follow each other."""
        return self._linear(*names)

    def _linear(self, *names: str) -> Linear:
        shapes = [self._infos[f"{name}.weight"].shape for name in names]
        bias = f"{names[0]}.bias" in self._infos
        linear = self._empty(Linear, shapes[0][1], sum(out for out, _ in shapes), bias=bias)
        row = 0
        for name, (out, _) in zip(names, shapes, strict=True):
            self._fill(linear.weight[row : row + out], f"{name}.weight")
            if bias:
                self._fill(linear.bias[row : row + out], f"{name}.bias")
            row += out
        return linear

    def norm(self, name: str, epsilon: float) -> nn.Module:
        """A layer norm where it has a bias, else an RMS norm."""
        size = self._infos[f"{name}.weight"].shape[0]
        kind = nn.LayerNorm if f"{name}.bias" in self._infos else RMSNorm
        norm = self._empty(kind, size, eps=epsilon)
        for part, values in norm.named_parameters():
            self._fill(values, f"{name}.{part}")
        return norm

    def embedding(self, name: str) -> nn.Embedding:
        """Read the rows of all tokens."""
        embedding = self._empty(nn.Embedding, *self._infos[f"{name}.weight"].shape)
        self._fill(embedding.weight, f"{name}.weight")
        return embedding

    def lm_head(self, embedding: nn.Embedding) -> nn.Module:
        """The output projection: its own weights, or the embedding's where the model has none."""
        if self.has("lm_head"):
            return self._linear("lm_head")
        lm_head = Linear(embedding.embedding_dim, embedding.num_embeddings, bias=False, device="meta")
        lm_head.weight = embedding.weight
        return lm_head

    def _empty(self, kind: type[M], *sizes: int, **fields: Any) -> M:
        with torch.device("meta"):
            module = kind(*sizes, **fields)
        module = module.to(self.dtype).to_empty(device=self.device).requires_grad_(False)
        for values in module.parameters():
            use_large_pages(values)
        return module

    def _fill(self, target: torch.Tensor, name: str) -> None:
        target.copy_(as_tensor(self._tensors, self._infos[name], self.device))
        if not target.sum(dtype=torch.float32).isfinite():  # one number instead of a mask as large as the tensor
            raise ModelFileError(
                f"tensor {name!r} holds NaN or infinity, or more than {str(target.dtype).removeprefix('torch.')} can; "
                "fetch the checkpoint again or choose another dtype"
            )


class RMSNorm(nn.Module):
    """Norm by the root mean square, computed in float32, then the weight: Zhang and Sennrich 2019."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Norm `x` [..., H] → [..., H]."""
        exact = x.float()
        normed = exact * torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * normed.to(x.dtype)


def drawn(tensors: DummyTensors, info: TensorInfo, device: torch.device) -> torch.Tensor:
    """A tensor of dummy weights, drawn on `device`: of the same distribution as the host's, and as repeatable there."""
    distribution = tensors.distribution(info.name)
    empty = torch.empty(info.shape, dtype=DTYPES[info.dtype], device=device)
    if not distribution.std:
        return empty.fill_(distribution.mean)
    return empty.normal_(
        distribution.mean,
        distribution.std,
        generator=torch.Generator(device).manual_seed(distribution.seed % (1 << 63)),
    )


def as_tensor(
    tensors: Tensors,
    info: TensorInfo,
    device: torch.device,
    draw: Callable[[DummyTensors, TensorInfo, torch.device], torch.Tensor] = drawn,
) -> torch.Tensor:
    """A tensor of a source in its stored type: a view on its file, good until the next is read.

    Dummy weights for a GPU are drawn there, by `draw`: none is worth its way through the host.

    Raises:
        ModelFileError: it cannot be read.
    """
    if isinstance(tensors, DummyTensors) and device.type == "cuda":
        return draw(tensors, info, device)
    values = tensors.read(info.name)
    with warnings.catch_warnings():
        # the file is mapped for reading alone, and torch has no read-only tensors; nobody writes into this one
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        plain = torch.from_numpy(values.view("<i2") if info.dtype == "bfloat16" else values)
    return plain.view(torch.bfloat16) if info.dtype == "bfloat16" else plain
