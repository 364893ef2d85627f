"""transformers-cuda as a user meets it where there is no GPU."""

import re
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

import codellm
from codellm.errors import BackendUnavailableError, InvalidValueError
from codellm.loading import find
from codellm.plugins.registry import registry
from codellm.system import gpu

PAGE = Path(__file__).parents[2] / "docs" / "gpu.md"
GPU = gpu.Gpu(name="NVIDIA H200", memory_bytes=150 << 30, driver="580.1", compute_capability="9.0")


def command(*arguments):
    return subprocess.run([sys.executable, "-m", "codellm", *arguments], capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    "line", re.findall(r"^codellm (generate -b .* --device cpu .*)$", PAGE.read_text(), re.MULTILINE)
)
def test_a_command_of_the_documentation_works(line):
    done = command(*(part.strip("'") for part in re.findall(r"'[^']*'|\S+", line)), "--max-tokens", "4")
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert "Warning" not in done.stderr


def driver(monkeypatch, folder, script):
    """A machine whose nvidia-smi, the only program there, is this script; None for none."""
    program = folder / "nvidia-smi"
    if script is not None:
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return program


def test_without_a_gpu_it_says_what_to_do_and_runs_on_the_cpu(monkeypatch, tmp_path):
    driver(monkeypatch, tmp_path, None)
    with pytest.raises(BackendUnavailableError, match="no NVIDIA GPU is found; install NVIDIA's driver"):
        codellm.load("codellm-demo", backend="transformers-cuda")
    with codellm.load("codellm-demo", backend="transformers-cuda", device="cpu") as model:
        assert model.info.device == "cpu"


def test_a_driver_in_trouble_is_the_reason(monkeypatch, tmp_path):
    program = driver(monkeypatch, tmp_path, "echo no; exit 9")
    assert registry().backend("transformers-cuda").availability().reason == f"{program} failed: no"


def test_with_a_gpu_it_is_chosen_for_what_torch_cuda_has_not(monkeypatch, tmp_path):
    driver(monkeypatch, tmp_path, "echo 'NVIDIA H200, 143771, 580.159.04, 9.0'")
    spec = codellm.LoadSpec(model="codellm-demo")
    assert registry().choose(spec, "safetensors").name == "torch-cuda"
    assert registry().choose(attrs.evolve(spec, scheme="bnb-nf4"), "safetensors").name == "transformers-cuda"
    assert registry().choose(attrs.evolve(spec, device="cpu"), "safetensors").name == "llama-cpp"


def test_another_device_is_refused():
    with pytest.raises(InvalidValueError, match="transformers-cuda runs on the device cuda or cpu, not 'mps'"):
        registry().backend("transformers-cuda").load(
            codellm.LoadSpec(model="codellm-demo", device="mps"), find("codellm-demo").fetch()
        )


def test_a_torch_that_sees_no_gpu_says_what_to_do(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    found = registry().backend("transformers-cuda")
    with pytest.raises(BackendUnavailableError, match=r"sees no CUDA GPU.*pip install --force-reinstall torch"):
        found.load(codellm.LoadSpec(model="codellm-demo"), find("codellm-demo").fetch())
    assert found.bandwidth("cuda") is None
    assert found.bandwidth("cpu") > 0
