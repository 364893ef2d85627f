"""safetensors to GGUF, tensor by tensor."""

from codellm_cpu.convert.convert import convert

__all__ = ["convert"]
