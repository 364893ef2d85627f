"""Model strings to model sources."""

from codellm.sources.reference import Known, Reference
from codellm.sources.source import ModelSource, TensorInfo, Tensors

__all__ = ["Known", "ModelSource", "Reference", "TensorInfo", "Tensors"]
