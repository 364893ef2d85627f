"""CPU backends: llama.cpp, and the way from safetensors to GGUF."""
