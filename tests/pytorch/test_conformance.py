"""The backends of codellm-cpu[torch] keep every contract, each in every mode.

What a batch moves is told in support/conformance.py. bitsandbytes computes one row with another kernel than several
(nf4), and rounds activations by what the whole batch holds (int8).
"""

import pytest

from support.conformance import BFLOAT16, DRAWS, FLOAT32, NUMBERS, run

CASES = {
    "eager": FLOAT32,
    "eager, prefixes kept": ("--codellm-option=prefix_cache=auto", *FLOAT32, *NUMBERS),
    "eager, bfloat16": (*BFLOAT16, *NUMBERS),
    "jit": ("--codellm-option=mode=jit", *FLOAT32, *NUMBERS),
    "compile": ("--codellm-option=mode=compile", *FLOAT32, *NUMBERS),
    "compile, bfloat16": ("--codellm-option=mode=compile", *BFLOAT16, *DRAWS),
}
REFERENCE = {
    "float32": (*FLOAT32, *NUMBERS),
    "float32, prefixes kept": ("--codellm-option=prefix_cache=auto", *FLOAT32, *NUMBERS),
    "bnb-nf4": ("--codellm-spec=scheme=bnb-nf4", "--codellm-spec=dtype=float32", "--codellm-tolerance=0.05", *NUMBERS),
    "bnb-int8": ("--codellm-spec=scheme=bnb-int8", "--codellm-spec=dtype=float32", "--codellm-tolerance=1", *DRAWS),
}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES.keys())
def test_torch_cpu_passes_the_conformance_kit(options, tmp_path):
    assert "backend torch-cpu, model codellm-demo" in run(tmp_path, "--codellm-backend=torch-cpu", *options)


@pytest.mark.parametrize("options", REFERENCE.values(), ids=REFERENCE.keys())
def test_transformers_cpu_passes_the_conformance_kit(options, tmp_path):
    assert "backend transformers-cpu, model codellm-demo" in run(
        tmp_path, "--codellm-backend=transformers-cpu", *options
    )


def test_a_traced_model_gives_its_weights_back(tmp_path):
    options = ("--codellm-option=mode=jit", "--codellm-model=dummy:tiny", "-k", "memory_returns")
    assert "1 passed" in run(tmp_path, "--codellm-backend=torch-cpu", *options)
