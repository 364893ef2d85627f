"""GPU backends: transformers' models on CUDA."""
