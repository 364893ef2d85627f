"""Whether llama.cpp was compiled for this processor, and what is said where it was not."""

import json
import sys
from pathlib import Path

import pytest

from codellm_cpu.llama import build
from support.plugin_folder import codellm

INFO = "CPU : SSE3 = 1 | AVX2 = 1 | AVX512 = 1 | AVX512_VNNI = 1 | SVE_CNT = 16 | OPENMP = 1 | REPACK = 1 | "


def test_what_llama_cpp_says_of_itself_is_read():
    assert build.parse_features(INFO) == {"sse3", "avx2", "avx512f", "avx512_vnni"}
    assert build.parse_features("CPU : NEON = 1 | DOTPROD = 1 | MATMUL_INT8 = 1") == {"neon", "dotprod", "i8mm"}
    assert build.parse_features("") == frozenset()


def test_a_build_that_leaves_instructions_unused_is_told_with_the_command_of_the_readme():
    found = build.compare("0.3.36", {"sse3", "avx2"}, ("sse3", "avx2", "avx512f", "avx512bw", "avx512_bf16"))
    assert not found.ok
    assert "without avx512f avx512_bf16," in found.value
    assert found.remedy in (Path(__file__).parents[2] / "README.md").read_text()


def test_a_build_for_another_processor_is_told():
    found = build.compare("0.3.36", {"sse3", "avx2", "amx_int8"}, ("sse3", "avx2"))
    assert not found.ok
    assert "compiled for amx_int8, which this processor lacks" in found.value
    assert build.compare("0.3.36", {"sse3", "avx2"}, ()).ok  # a system that does not tell what its processor has


def test_a_build_for_this_processor_is_fine():
    found = build.compare("0.3.36", {"sse3", "avx2"}, ("sse3", "avx2", "avx512bw"))
    assert (found.ok, found.value) == (True, "0.3.36 uses sse3 avx2")


def test_hook_codellm_doctor_of_the_installed_build():
    found = json.loads(codellm("doctor", "--format", "json").stdout)["findings"]
    [ours] = [
        finding for finding in found if finding["section"] == "Plugins" and finding["topic"] == "llama-cpp-python"
    ]
    assert ours["value"].startswith("0.3.")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "exit code -4"),
        ("raise OSError('libllama.so: cannot open')", "cannot be loaded (OSError: libllama.so: cannot open)"),
        ("import time; time.sleep(60)", "did not answer within 0.5 s"),
    ],
)
def test_a_build_that_does_not_run_here_is_told(code, says):
    found = build.examine(code, 0.5 if "sleep" in code else 60)
    assert not found.ok
    assert says in found.value
    assert found.remedy == build.RECOMPILE


def test_without_llama_cpp_the_installing_command_is_told(monkeypatch):
    monkeypatch.setattr(sys, "path", [])  # where packages are looked for
    assert build.examine().remedy == "pip install llama-cpp-python"
