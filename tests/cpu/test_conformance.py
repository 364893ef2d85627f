"""llama-cpp keeps every contract: the one line that any backend author runs."""

import subprocess
import sys

import pytest

pytest.importorskip("llama_cpp")


@pytest.mark.parametrize(
    ("scheme", "tolerance"),
    # q8_0's kernels compute a row alike however many there are. Those of k-quants round inputs otherwise from 8 rows
    # on, which moves unlikely tokens by tenths of a nat: 0.25 here on a processor of Intel's, 0.2 on one of AMD's.
    [("q8_0", 0), ("f16", 0.05), ("q4_k_m", 0.4)],
)
def test_llama_cpp_passes_the_conformance_kit(scheme, tolerance, tmp_path):
    hold_kit(scheme, tolerance, tmp_path)


def test_llama_cpp_passes_the_conformance_kit_where_prefixes_are_kept(tmp_path):
    """A prompt is then cut where it parts from an earlier one, which moves rounding."""
    hold_kit("q8_0", 0.05, tmp_path, "--codellm-option=prefix_cache=auto")


def hold_kit(scheme, tolerance, tmp_path, *options):
    command = ["--codellm-backend=llama-cpp", f"--codellm-spec=scheme={scheme}", "--codellm-spec=threads=1"]
    command += [f"--codellm-tolerance={tolerance}", *options]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *command], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-10_000:]
    assert f"backend llama-cpp, model codellm-demo, scheme {scheme}" in done.stdout
