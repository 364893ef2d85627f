"""Model strings to model sources."""

from codellm.sources.source import ModelSource, TensorInfo, Tensors

__all__ = ["ModelSource", "TensorInfo", "Tensors"]
