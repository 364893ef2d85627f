"""The backend of codellm-gpu keeps every contract; here on the CPU, on a GPU by test_cuda.py."""

from support.conformance import BFLOAT16, FLOAT32, NUMBERS, run

BACKEND = ("--codellm-backend=transformers-cuda", "--codellm-spec=device=cpu")


def test_transformers_cuda_passes_the_conformance_kit(tmp_path):
    assert "backend transformers-cuda, model codellm-demo" in run(tmp_path, *BACKEND, *FLOAT32)


def test_in_bfloat16_too(tmp_path):
    run(tmp_path, *BACKEND, *BFLOAT16, *NUMBERS)
