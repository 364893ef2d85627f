"""The conformance kit as its users run it, and how far the numbers of a torch backend may move.

In float32 a batch differs from singles in the last bits, since a product of matrices is summed otherwise for one row
than for several: by less than 1e-4 nats. In bfloat16 the same shows in the eighth bit of a logit.
"""

import subprocess
import sys

FLOAT32 = ("--codellm-spec=dtype=float32", "--codellm-tolerance=1e-4")
BFLOAT16 = ("--codellm-spec=dtype=bfloat16", "--codellm-tolerance=0.25")
NUMBERS = ("-k", "test_batching or test_scoring or test_sampling")
"""What a mode changes; the rest is the same code, and each of its checks would trace or compile anew."""
DRAWS = ("-k", f"({NUMBERS[1]}) and not sampled")
"""Where a batch moves log-probabilities by tenths of a nat, half of the draws become others."""


def run(folder, *options):
    """What pytest says; with one thread on the CPU, since several sum in another order."""
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "--codellm-spec=threads=1", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-10_000:]
    return done.stdout
