"""The NVIDIA GPUs of this machine, as its driver tells them: no torch, no CUDA."""

from __future__ import annotations

import shutil
import subprocess

import attrs

from codellm.errors import MachineError

_QUERY = ("--query-gpu=name,memory.total,driver_version,compute_cap", "--format=csv,noheader,nounits")
SECONDS = 10.0
"""That the driver may take: one in trouble answers after minutes, or never."""


@attrs.frozen(kw_only=True)
class Gpu:
    """A GPU. `memory_bytes` is None where it has none of its own but shares the machine's."""

    name: str
    memory_bytes: int | None
    driver: str
    compute_capability: str


def gpus(seconds: float = SECONDS) -> tuple[Gpu, ...]:
    """Every GPU that `nvidia-smi` lists within so many `seconds`; none where it is not installed.

    Raises:
        MachineError: it is installed and fails, hangs, or says what nobody understands.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    try:
        done = subprocess.run(
            [program, *_QUERY], capture_output=True, encoding="utf-8", errors="replace", timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise MachineError(f"{program} did not answer within {seconds:g} s") from error
    except OSError as error:
        raise MachineError(f"{program} cannot be started ({error.strerror})") from error
    if "No devices were found" in done.stdout:
        return ()
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines() or ["without a word"]
        raise MachineError(f"{program} failed: {said[0][:200]}")
    return parse_gpus(done.stdout)


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """The GPUs of the answer to `nvidia-smi --query-gpu=…`: a line each of name, MiB, driver and compute capability.

    Raises:
        MachineError: a line of another kind.
    """
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        fields = [field.strip() for field in line.rsplit(",", 3)]  # only the name may hold commas
        if len(fields) != 4:
            raise MachineError(f"nvidia-smi says {line[:60]!r}, which is no line on a GPU")
        name, memory, driver, capability = fields
        total = int(memory) << 20 if memory.isdecimal() else None
        found.append(Gpu(name=name, memory_bytes=total, driver=driver, compute_capability=capability))
    return tuple(found)
