"""The backend `torch-cuda`: `codellm.torch`'s decoder, with steps and weights made for one NVIDIA GPU."""
