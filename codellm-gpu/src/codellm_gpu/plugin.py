"""What codellm-gpu brings to codellm. It only registers: everything heavy is imported when it is called."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from codellm.hookspec import hookimpl

if TYPE_CHECKING:
    from codellm.backend import Backend


@hookimpl
def codellm_backends() -> Iterable[Backend]:
    """Those that run on CUDA."""
    from codellm_gpu.backend import TransformersCudaBackend

    return (TransformersCudaBackend(),)
