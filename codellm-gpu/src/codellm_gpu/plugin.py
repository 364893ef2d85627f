"""What codellm-gpu brings to codellm. It only registers: everything heavy is imported when it is called."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from codellm.hookspec import hookimpl

if TYPE_CHECKING:
    from codellm.artifacts.request import Artifact, QuantizeRequest
    from codellm.backend import Backend
    from codellm.finding import Finding
    from codellm.scheme import Scheme


@hookimpl
def codellm_backends() -> Iterable[Backend]:
    """Backends on CUDA; they run on the CPU where that is asked for."""
    from codellm_gpu.backend import TransformersCudaBackend
    from codellm_gpu.cuda.backend import TorchCudaBackend

    return TorchCudaBackend(), TransformersCudaBackend()


@hookimpl
def codellm_schemes() -> Iterable[Scheme]:
    """Schemes of GPTQ. Those of bitsandbytes are the backends', since they are applied while loading too."""
    from codellm.torch.gptq import SCHEMES

    return SCHEMES


@hookimpl
def codellm_doctor() -> Iterable[Finding]:
    """Whether a step of one sequence can be one kernel here."""
    from codellm_gpu.doctor import examine

    return (examine(),)


@hookimpl
def codellm_quantize(request: QuantizeRequest) -> Artifact | None:
    """Write a checkpoint of GPTQ or bitsandbytes; None for a scheme of another plugin."""
    from codellm_gpu.quantize import quantize

    return quantize(request)
