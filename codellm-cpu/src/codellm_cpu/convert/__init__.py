"""safetensors to GGUF, tensor by tensor."""

from codellm_cpu.convert.writer import convert

__all__ = ["convert"]
