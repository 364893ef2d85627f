"""Model strings to model sources."""

from codellm.sources.reference import Reference, find
from codellm.sources.source import ModelSource, TensorInfo, Tensors

__all__ = ["ModelSource", "Reference", "TensorInfo", "Tensors", "find"]
