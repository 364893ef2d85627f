"""safetensors to GGUF, tensor by tensor, and the check that a file computes what its source does."""

from codellm_cpu.convert.parity import check_parity
from codellm_cpu.convert.writer import convert, outline

__all__ = ["check_parity", "convert", "outline"]
