"""Modules of a decoder with projections of 8 or 4 bits, made of float weights as they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from codellm.errors import InvalidValueError
from codellm.torch.weights import Weights
from codellm_gpu.cuda.packed_weights import PackedWeights
from codellm_gpu.cuda.rounding import GROUP
from codellm_gpu.cuda.weight_only import Int4Linear, Int8Linear, WeightOnlyLinear

if TYPE_CHECKING:
    import torch
    from torch import nn

    from codellm.sources import TensorInfo, Tensors


class QuantizedWeights(Weights):
    """Makes projections of `kind`, and the output projection of 8 bits; norms and embedding stay in `dtype`.

    Each projection is read as floats and then quantized on its device: beside the model, memory holds one of them.
    """

    def __init__(
        self,
        kind: type[Int8Linear | Int4Linear],
        tensors: Tensors,
        infos: dict[str, TensorInfo],
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__(tensors, infos, dtype=dtype, device=device)
        self._kind = kind

    def linear(self, *names: str) -> WeightOnlyLinear:
        """See `Weights.linear`.

        Raises:
            InvalidValueError: the inputs of a projection are no whole groups.
        """
        columns = self._infos[f"{names[0]}.weight"].shape[1]
        if self._kind is Int4Linear and columns % GROUP:
            raise InvalidValueError(
                f"int4 takes groups of {GROUP} inputs, and {names[0]} has {columns}; take the scheme int8"
            )
        linear = self._linear(*names)
        return self._kind.of(linear.weight, linear.bias)

    def lm_head(self, embedding: nn.Embedding) -> Int8Linear:
        """See `Weights.lm_head`; of a model without one it is a copy of the embedding, in 8 bits."""
        own = self.has("lm_head")
        return Int8Linear.of(self._linear("lm_head").weight if own else embedding.weight, None)


def quantized_weights(
    scheme: str,
    tensors: Tensors,
    infos: dict[str, TensorInfo],
    dtype: torch.dtype,
    device: torch.device,
    packing: Mapping[str, Any] | None = None,
) -> Weights:
    """What reads `tensors` into a decoder in `scheme`, one of `codellm_gpu.cuda.schemes`.

    `packing` is the `quantization_config` of a checkpoint that is quantized already, None where there is none.

    Raises (it, and all methods that read):
        ModelFileError: a tensor cannot be read, or holds NaN or infinity.
        InvalidValueError: the scheme cannot be made of these weights; says what can.
    """
    kinds: dict[str, type[Int8Linear | Int4Linear]] = {"int8": Int8Linear, "int4": Int4Linear}
    if scheme in kinds:
        return QuantizedWeights(kinds[scheme], tensors, infos, dtype=dtype, device=device)
    if packing is None:
        raise InvalidValueError(f"{scheme} is read of checkpoints that are stored in it; of other weights take int4")
    return PackedWeights(packing, tensors, infos, dtype=dtype, device=device)
