"""Saving a model as bitsandbytes quantizes it: transformers loads it, and writes what it has."""

from __future__ import annotations

import torch

from codellm.artifacts.request import QuantizeRequest
from codellm.options import read
from codellm.spec import LoadSpec
from codellm.torch import bitsandbytes
from codellm.torch.device import free_memory
from codellm.torch.load import plan
from codellm.torch.transformers_load import no_bars, open_model
from codellm.torch.weights import DTYPES
from codellm_gpu.backend import REMEDY


def write(request: QuantizeRequest) -> None:
    """Write the request's source as its scheme has it with no options; the other weights keep their type.

    It is written before its first use, for which bitsandbytes puts the weights into another order on a CPU.

    Raises:
        BackendUnavailableError: bitsandbytes is not installed.
        ModelFileError: the source is damaged or not supported.
        NotEnoughMemoryError: it does not fit.
    """
    source, scheme = request.source, request.scheme
    quantization = bitsandbytes.BitsAndBytes(scheme, read({}, bitsandbytes.OPTIONS, scheme.name))
    quantization.require(REMEDY)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = source.dtype if source.dtype in DTYPES else "auto"
    spec = LoadSpec(model=source.name, dtype=dtype, context_length=1)
    made = plan(spec, source, device, free_memory(device), scheme.bits)
    model = open_model(made, quantization, "sdpa")
    model.config.architectures = [type(model).__name__]
    request.progress(1, 2)
    with no_bars():
        model.save_pretrained(request.destination, safe_serialization=True)
    request.progress(2, 2)
