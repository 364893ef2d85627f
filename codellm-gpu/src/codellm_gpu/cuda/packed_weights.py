"""Modules of a decoder made of checkpoints of GPTQ and AWQ in 4 bits: their codes, in the layout of `Int4Linear`.

The forms are those of AutoGPTQ's qlinear modules and of AutoAWQ's modules/linear/gemm.py, as `codellm.sources.packed`
describes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from codellm.errors import InvalidValueError, ModelFileError
from codellm.torch.gptq import by_gptqmodel, checkpoint_format
from codellm.torch.weights import Weights, as_tensor
from codellm_gpu.cuda.rounding import GROUP
from codellm_gpu.cuda.weight_only import Int4Linear, Int8Linear

if TYPE_CHECKING:
    from torch import nn

    from codellm.sources import TensorInfo, Tensors

OUTPUTS = (0, 4, 1, 5, 2, 6, 3, 7)
"""Where a word of AWQ holds each of its 8 outputs: it was packed in the order 0, 2, 4, 6, 1, 3, 5, 7."""


class PackedWeights(Weights):
    """Takes the projections of a checkpoint as they are stored; the output projection is rounded to 8 bits.

    `packing` is the `quantization_config` of its config.json.

    Raises (all methods that read):
        InvalidValueError: it is packed in a way that this backend does not compute with; says which does.
        ModelFileError: a tensor cannot be read, holds NaN or infinity, or zero points that could be two things.
    """

    def __init__(
        self,
        packing: Mapping[str, Any],
        tensors: Tensors,
        infos: dict[str, TensorInfo],
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__(tensors, infos, dtype=dtype, device=device)
        self._packing = packing
        size = packing.get("group_size", packing.get("q_group_size"))
        if size != GROUP:
            raise InvalidValueError(f"torch-cuda takes 4 bits in groups of {GROUP}, not {size}; {self._remedy}")

    @property
    def _awq(self) -> bool:
        return bool(self._packing["quant_method"] == "awq")

    @property
    def _remedy(self) -> str:
        if self._awq:
            return "take the model's original weights with the scheme int4"
        return "name the backend transformers-cuda"

    def has(self, name: str) -> bool:
        return super().has(name) or f"{name}.qweight" in self._infos

    def linear(self, *names: str) -> Int4Linear:
        """See `Weights.linear`."""
        codes, scales, zeros = map(torch.cat, zip(*map(self._parts, names), strict=True))
        biases = [f"{name}.bias" for name in names if f"{name}.bias" in self._infos]
        bias = torch.cat([self._read(name).to(self.dtype) for name in biases]) if biases else None
        return Int4Linear.of_codes(codes, scales, None if (zeros == 8).all() else zeros, bias)

    def lm_head(self, embedding: nn.Embedding) -> Int8Linear:
        """See `Weights.lm_head`; of a model without one it is a copy of the embedding, in 8 bits."""
        return Int8Linear.of(self._linear("lm_head").weight if self.has("lm_head") else embedding.weight, None)

    def _parts(self, name: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The codes [N, K], scales [N, K / G] and zero points [N, K / G] of a projection."""
        if f"{name}.qweight" not in self._infos:
            raise InvalidValueError(f"tensor {name}.weight is not packed, while others are; {self._remedy}")
        words, points, scales = (self._read(f"{name}.{part}") for part in ("qweight", "qzeros", "scales"))
        if scales.dtype == torch.float32:
            scales = scales.half()
        if not scales.isfinite().all():
            raise ModelFileError(f"tensor {name + '.scales'!r} holds NaN or infinity; fetch the checkpoint again")
        if self._awq:
            return awq_codes(words), scales.T, awq_codes(points)
        self._check_order(name)
        return gptq_codes(words), scales.T, self._gptq_zeros(name, points)

    def _check_order(self, name: str) -> None:
        groups = self._read(f"{name}.g_idx")
        if not torch.equal(groups, torch.arange(len(groups), dtype=groups.dtype, device=groups.device) // GROUP):
            raise InvalidValueError(
                f"the columns of {name} are grouped by their activations (desc_act), which torch-cuda does not compute "
                f"with; {self._remedy}"
            )

    def _gptq_zeros(self, name: str, words: torch.Tensor) -> torch.Tensor:
        """The zero points; what `codellm.torch.gptq.check_zeros` refuses is refused here."""
        zeros = nibbles(words).flatten(1).T
        if checkpoint_format(self._packing) == "gptq_v2":
            return zeros
        if not self._packing.get("sym", True) and not by_gptqmodel(self._packing) and (zeros == 15).any():
            raise ModelFileError(
                f"tensor {name + '.qzeros'!r} holds zero points that AutoGPTQ could not store; "
                "quantize the original weights anew"
            )
        return (zeros + 1) & 15

    def _read(self, name: str) -> torch.Tensor:
        return as_tensor(self._tensors, self._infos[name], self.device).to(self.device, copy=True)


def gptq_codes(words: torch.Tensor) -> torch.Tensor:
    """Codes of GPTQ: int32 [K / 8, N], of 8 neighbouring inputs each → uint8 [N, K]."""
    return nibbles(words).transpose(0, 1).flatten(1)


def awq_codes(words: torch.Tensor) -> torch.Tensor:
    """Codes or zero points of AWQ: int32 [K, N / 8], of 8 outputs each → uint8 [N, K]."""
    return nibbles(words)[..., list(OUTPUTS)].flatten(1).T


def nibbles(words: torch.Tensor) -> torch.Tensor:
    """The 8 numbers of 4 bits in each word, from its lowest bits on: int32 [R, C] → uint8 [R, C, 8]."""
    octets = words.contiguous().view(torch.uint8).view(*words.shape, 4)
    return torch.stack((octets & 15, octets >> 4), dim=-1).flatten(-2)
