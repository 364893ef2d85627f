"""GPUs, as programs that pretend to be nvidia-smi tell them."""

import pytest

from codellm.errors import MachineError
from codellm.system.gpu import Gpu, gpus, parse_gpus

# the first line is that of a real one
TWO = "NVIDIA H200, 143771, 580.159.04, 9.0\nNVIDIA GB10, [N/A], 580.1, 12.1\n"


@pytest.fixture
def pretend(tmp_path, monkeypatch):
    """Puts an nvidia-smi of this shell script, and nothing else, on the path."""

    def write(script):
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        return program

    return write


def test_every_gpu_is_told_with_its_driver(pretend):
    pretend(f"echo '{TWO.strip()}'")
    assert gpus() == (
        Gpu(name="NVIDIA H200", memory_bytes=143771 << 20, driver="580.159.04", compute_capability="9.0"),
        Gpu(name="NVIDIA GB10", memory_bytes=None, driver="580.1", compute_capability="12.1"),
    )


def test_a_name_may_hold_commas():
    assert parse_gpus("A, B, 1, 2, 3.0")[0].name == "A, B"


@pytest.mark.parametrize("text", ["garbage", "NVIDIA H200, 143771", "\x00\x00"])
def test_what_is_no_gpu_is_told(text):
    with pytest.raises(MachineError, match="no line on a GPU"):
        parse_gpus(text)


def test_without_the_driver_there_are_none(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus() == ()


def test_a_driver_without_a_gpu_has_none(pretend):
    pretend("echo 'No devices were found'; exit 6")
    assert gpus() == ()


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18", "version mismatch"),
        ("exit 9", "without a word"),
        ("exec /bin/sleep 60", "did not answer within 0.5 s"),
        ("printf '\\377\\376garbage'", "no line on a GPU"),
    ],
)
def test_a_driver_in_trouble_is_told(script, says, pretend):
    program = pretend(script)
    with pytest.raises(MachineError, match=says) as caught:
        gpus(seconds=0.5)
    assert program.name in str(caught.value)


def test_a_program_that_cannot_be_started_is_told(pretend):
    pretend("").write_text("#!/no/such/interpreter\n")
    with pytest.raises(MachineError, match="cannot be started"):
        gpus()
