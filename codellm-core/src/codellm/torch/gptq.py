"""The schemes of GPTQ, whose checkpoints gptqmodel's kernels compute with, through transformers and optimum.

GPTQ is of Frantar et al. 2022. A group of columns shares a scale and a zero point for each row. torch and all of them
are imported when a model is loaded.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from codellm.errors import BackendUnavailableError, InvalidValueError, ModelFileError
from codellm.options import Option, choice
from codellm.scheme import Scheme
from codellm.sources import Tensors
from codellm.torch.quantization import Quantization

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from codellm.sources import ModelSource, TensorInfo

GROUP = 128
"""Columns of a group, as most published checkpoints have it."""


def _scheme(bits: int, bound: float) -> Scheme:
    return Scheme(
        name=f"gptq-int{bits}",
        bits=bits + (16 + bits) / GROUP,  # a scale of 16 bits and a zero point for each group
        applies="file",
        format="safetensors",
        takes=frozenset({"safetensors"}),
        bound=bound,
        calibration="needs",
        description=f"GPTQ's {bits} bits, groups of {GROUP}, for GPUs",
    )


SCHEMES = (_scheme(8, 0.01), _scheme(4, 0.07), _scheme(3, 0.35))
"""The bounds are derived in docs/quantization.md."""

OPTIONS: dict[str, Option[Any]] = {
    "kernel": choice(
        "auto",
        "torch",
        "triton",
        "exllama_v2",
        "marlin",
        help="What computes the products; auto is gptqmodel's choice among what is built for the device.",
        schemes=[scheme.name for scheme in SCHEMES],
    )
}
"""The `-o` options of a checkpoint."""

EXTRA = 'pip install "codellm-gpu[gptq]" --no-build-isolation'
PACKAGES = ("gptqmodel", "optimum", "accelerate")


@attrs.frozen
class Gptq(Quantization):
    """What the checkpoint `source` is in, with the options to load it."""

    scheme: Scheme
    options: Mapping[str, Any]
    source: ModelSource
    stored = True

    @property
    def quantization_config(self) -> Mapping[str, Any]:
        """The `quantization_config` of its config.json."""
        config: Mapping[str, Any] = self.source.config["quantization_config"]
        return config

    @property
    def shifted(self) -> bool:
        """Whether zero points are to be read plus one here.

        gptqmodel 5.8.0 does so itself, but not for the 3 bits that AutoGPTQ packed: there it adds to other bits of a
        word, which undoes what it does when it saves, and nothing else.
        """
        config = self.quantization_config
        return config["bits"] == 3 and checkpoint_format(config) == "gptq" and not by_gptqmodel(config)

    def require(self, remedy: str) -> None:
        require(self.scheme.name)

    def tensors(self, tensors: Tensors) -> Tensors:
        return Shifted(tensors, self.quantization_config["bits"]) if self.shifted else tensors

    def dtype(self, asked: str, device: torch.device) -> str:
        """See `Quantization`: by default the scales' float16, but on CPUs, a hundred times slower in it, bfloat16."""
        if asked == "float32":
            raise InvalidValueError(
                f"{self.source.name}: {self.scheme.name} computes in float16 or bfloat16, not float32"
            )
        return ("float16" if device.type == "cuda" else "bfloat16") if asked == "auto" else asked

    def config(self, dtype: torch.dtype) -> Any:
        import transformers

        raw = self.quantization_config
        check_zeros(self.source, raw)
        return transformers.GPTQConfig(
            bits=raw["bits"],
            group_size=raw["group_size"],
            desc_act=bool(raw.get("desc_act")),
            sym=raw.get("sym", True),
            format="gptq_v2" if self.shifted else checkpoint_format(raw),
            backend=self.options["kernel"],
        )

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        """What gptqmodel prints is not shown, nor that optimum looks at deprecated attributes.

        Raises:
            InvalidValueError: the kernel cannot compute it here.
        """
        logging.getLogger("optimum").setLevel(logging.ERROR)
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
            from logbar import LogBar

            LogBar.shared().setLevel(logging.CRITICAL)
            try:
                yield
            except (ValueError, NotImplementedError, ImportError) as error:
                raise InvalidValueError(
                    f"{self.source.name}: no {self.scheme.name} here with kernel={self.options['kernel']}: {error}"
                ) from error

    def finished(self, model: Any) -> Any:
        """Take away what gptqmodel compiles to unpack weights, which delays the first tokens by a minute."""
        for module in model.modules():
            vars(module).pop("dequantize_weight", None)
        return model


def require(what: str) -> None:
    """See that the extra is installed.

    Raises:
        BackendUnavailableError: it is not.
    """
    lacks = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if lacks:
        raise BackendUnavailableError(f"{what} needs {' and '.join(lacks)}; {EXTRA}")


def checkpoint_format(config: Mapping[str, Any]) -> str:
    """How zero points are stored: `gptq`, minus one, or `gptq_v2`, as they are."""
    return str(config.get("checkpoint_format") or config.get("format") or "gptq")


def by_gptqmodel(config: Mapping[str, Any]) -> bool:
    """Whether gptqmodel wrote a checkpoint, which says so."""
    return "gptqmodel" in str((config.get("meta") or {}).get("quantizer"))


class Shifted(Tensors):
    """The tensors of a checkpoint whose zero points of `bits` are stored minus one, with those as they are."""

    def __init__(self, tensors: Tensors, bits: int) -> None:
        self._tensors, self._bits = tensors, bits

    def infos(self) -> Iterable[TensorInfo]:
        return self._tensors.infos()

    def read(self, name: str) -> npt.NDArray[np.generic]:
        import numpy as np

        values = self._tensors.read(name)
        if not name.endswith(".qzeros"):
            return values
        shifts = np.arange(self._bits, dtype=np.uint8)
        fields = (unpacked(values, self._bits) << shifts).sum(axis=-1, dtype=np.uint8) + 1
        stream = (fields[..., None] >> shifts & 1).reshape(len(values), -1)
        return np.packbits(stream, axis=-1, bitorder="little").view(values.dtype)


def unpacked(values: npt.NDArray[np.generic], bits: int) -> npt.NDArray[np.uint8]:
    """The fields of packed numbers [N, words], each from its lowest bit on: [N, fields, bits] of 0 and 1."""
    import numpy as np

    stream = np.unpackbits(np.ascontiguousarray(values).view(np.uint8), axis=-1, bitorder="little")
    return stream.reshape(len(values), -1, bits)


def check_zeros(source: ModelSource, raw: Mapping[str, Any]) -> None:
    """Refuse zero points that could be two things.

    AutoGPTQ stored them minus one: a zero point of 0 became -1, which spilled into its neighbours when it was packed
    (its qlinear modules' `pack`). gptqmodel wraps around, and reads what it wrote. Symmetric ones never are 0.

    Raises:
        ModelFileError: a zero point is all ones, in a file that gptqmodel did not write.
    """
    if raw.get("sym", True) or checkpoint_format(raw) != "gptq" or by_gptqmodel(raw) or source.tensors is None:
        return
    for info in source.tensors:
        zeros = info.name.endswith(".qzeros")
        if zeros and unpacked(source.tensors.read(info.name), raw["bits"]).all(axis=-1).any():
            raise ModelFileError(
                f"{source.path}: tensor {info.name!r} holds zero points that AutoGPTQ could not store; "
                "quantize the original weights anew"
            )
