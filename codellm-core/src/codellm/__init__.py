"""Optimized inference of code language models, and honest evaluation of what each optimization costs.

Everything a user or a plugin author needs is a name of this package; each is imported when first used, so that
`import codellm` costs nothing.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

from codellm._version import __version__

if TYPE_CHECKING:
    from codellm.artifacts.request import Artifact, QuantizeRequest
    from codellm.backend import Availability, Backend
    from codellm.chat import Message
    from codellm.errors import CodellmError
    from codellm.finding import Finding
    from codellm.hookspec import hookimpl
    from codellm.loading import load
    from codellm.model import Memory, Model, ModelInfo
    from codellm.result import Result, Timing, TokenLogprobs
    from codellm.sampler import Sampler
    from codellm.sampling import SamplingParams
    from codellm.scheme import Scheme
    from codellm.sequence import Sequence, Token
    from codellm.slots import Slots
    from codellm.sources import ModelSource
    from codellm.spec import LoadSpec
    from codellm.tokenizer import ByteTokenizer, Tokenizer

_HOMES = {
    "Artifact": "artifacts.request",
    "Availability": "backend",
    "Backend": "backend",
    "ByteTokenizer": "tokenizer",
    "CodellmError": "errors",
    "Finding": "finding",
    "LoadSpec": "spec",
    "Memory": "model",
    "Message": "chat",
    "Model": "model",
    "ModelInfo": "model",
    "ModelSource": "sources",
    "QuantizeRequest": "artifacts.request",
    "Result": "result",
    "Sampler": "sampler",
    "SamplingParams": "sampling",
    "Scheme": "scheme",
    "Sequence": "sequence",
    "Slots": "slots",
    "Timing": "result",
    "Token": "sequence",
    "TokenLogprobs": "result",
    "Tokenizer": "tokenizer",
    "hookimpl": "hookspec",
    "load": "loading",
}

__all__ = [
    "Artifact",
    "Availability",
    "Backend",
    "ByteTokenizer",
    "CodellmError",
    "Finding",
    "LoadSpec",
    "Memory",
    "Message",
    "Model",
    "ModelInfo",
    "ModelSource",
    "QuantizeRequest",
    "Result",
    "Sampler",
    "SamplingParams",
    "Scheme",
    "Sequence",
    "Slots",
    "Timing",
    "Token",
    "TokenLogprobs",
    "Tokenizer",
    "__version__",
    "hookimpl",
    "load",
]


_RENAMED = {"Places": "Slots"}
"""Names of 0.1 that are gone in 0.3, as docs/hooks.md says."""


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        name = _warned(name, _RENAMED[name])
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'codellm' has no attribute {name!r}")
    return getattr(importlib.import_module(f"codellm.{home}"), name)


def _warned(old: str, new: str) -> str:
    told = f"codellm.{old}, deprecated since 0.1 and gone in 0.3: take codellm.{new}"
    warnings.warn(told, DeprecationWarning, stacklevel=3)
    return new
