"""What codellm-cpu brings to codellm. It only registers: everything heavy is imported when it is called."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from codellm.hookspec import hookimpl

if TYPE_CHECKING:
    from codellm.artifacts.request import Artifact, QuantizeRequest
    from codellm.backend import Backend
    from codellm.finding import Finding
    from codellm.scheme import Scheme
    from codellm.sources import ModelSource


@hookimpl
def codellm_backends() -> Iterable[Backend]:
    """Backends of llama.cpp and of the extra `torch`."""
    from codellm_cpu.llama.backend import LlamaCppBackend
    from codellm_cpu.torch.backend import TorchCpuBackend
    from codellm_cpu.torch.transformers_cpu import TransformersCpuBackend

    return (LlamaCppBackend(), TorchCpuBackend(), TransformersCpuBackend())


@hookimpl
def codellm_schemes() -> Iterable[Scheme]:
    """Schemes of GGUF: conversions, and what llama.cpp quantizes to."""
    from codellm_cpu.schemes import SCHEMES

    return tuple(SCHEMES)


@hookimpl
def codellm_quantize_plan(source: ModelSource, scheme: Scheme, fitted: bool) -> Iterable[str]:
    """Which tensors llama.cpp will give another type than a GGUF scheme's."""
    from codellm_cpu.plan import remarks

    return remarks(source, scheme, fitted=fitted)


@hookimpl
def codellm_quantize(request: QuantizeRequest) -> Artifact | None:
    """Convert and quantize to GGUF; None for a scheme of another plugin."""
    from codellm_cpu.quantize import quantize

    return quantize(request)


@hookimpl
def codellm_doctor() -> Iterable[Finding]:
    """Whether llama.cpp was compiled for this processor."""
    from codellm_cpu.llama.build import examine

    return (examine(),)
