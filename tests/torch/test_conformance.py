"""The backends of codellm-cpu[torch] keep every contract, each in every mode.

In float32 a batch differs from singles in the last bits, since a product of matrices is summed otherwise for one row
than for several: by less than 1e-4 nats. In bfloat16 the same shows in the eighth bit of a logit. bitsandbytes computes
one row with another kernel than several (nf4), and rounds activations by what the whole batch holds (int8).
"""

import subprocess
import sys

import pytest

FLOAT32 = ("--codellm-spec=dtype=float32", "--codellm-tolerance=1e-4")
BFLOAT16 = ("--codellm-spec=dtype=bfloat16", "--codellm-tolerance=0.25")
NUMBERS = ("-k", "test_batching or test_scoring or test_sampling")
"""What a mode changes; the rest is the same code, and each of its checks would trace or compile anew."""
DRAWS = ("-k", f"({NUMBERS[1]}) and not sampled")
"""Where a batch moves log-probabilities by tenths of a nat, half of the draws become others."""


def run(tmp_path, *options):
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "--codellm-spec=threads=1", *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-10_000:]
    return done.stdout


CASES = {
    "eager": FLOAT32,
    "eager, bfloat16": (*BFLOAT16, *NUMBERS),
    "jit": ("--codellm-option=mode=jit", *FLOAT32, *NUMBERS),
    "compile": ("--codellm-option=mode=compile", *FLOAT32, *NUMBERS),
    "compile, bfloat16": ("--codellm-option=mode=compile", *BFLOAT16, *DRAWS),
}
REFERENCE = {
    "float32": (*FLOAT32, *NUMBERS),
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
