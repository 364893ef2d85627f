"""Processor, memory and GPUs."""

from __future__ import annotations

from pathlib import Path

import attrs

from codellm.cli.doctor.section import Section
from codellm.cli.output import size
from codellm.errors import MachineError
from codellm.finding import Finding
from codellm.system import machine
from codellm.system.cgroup import ROOT
from codellm.system.gpu import Gpu, gpus

_MEASURED = 256 << 20
"""Bytes that measuring the bandwidth allocates: left out where less than twice as much is free."""


def hardware(root: Path = ROOT) -> Section:
    """What bounds the speed here, by the kernel's word below `root`.

    Takes a quarter of a second: the bandwidth of memory is measured.
    """
    cores, threads = machine.physical_cores(), machine.default_threads()
    features = machine.cpu_features(root)
    total, available = machine.total_memory(), machine.available_memory(root)
    bandwidth = machine.read_bandwidth(threads, _MEASURED) if available > 2 * _MEASURED else None
    rows, gpu_findings = _gpus()
    counted = "an unknown number of" if cores is None else cores
    read = "not measured: too little memory is free"
    if bandwidth is not None:
        read = f"{size(round(bandwidth))}/s, measured just now with {_threads(threads)}"
    return Section(
        title="Machine",
        findings=(
            Finding(topic="processor", value=machine.cpu_name(root)),
            Finding(topic="cores", value=f"{counted} physical; codellm uses {_threads(threads)}"),
            Finding(topic="instructions", value=" ".join(features) or "not known on this system"),
            Finding(topic="memory", value=f"{size(total)}, of which {size(available)} available"),
            Finding(topic="memory reads", value=read),
            *gpu_findings,
        ),
        facts={
            "cpu": {
                "name": machine.cpu_name(root),
                "physical_cores": cores,
                "threads": threads,
                "features": list(features),
            },
            "memory": {"total_bytes": total, "available_bytes": available, "read_bytes_per_second": bandwidth},
            "gpus": rows,
        },
    )


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count != 1)}"


def _gpus() -> tuple[list[dict[str, object]], list[Finding]]:
    """The GPUs as JSON has them, and as lines."""
    try:
        found = gpus()
    except MachineError as error:
        remedy = "run `nvidia-smi`, and reinstall the NVIDIA driver where it fails too"
        return [], [Finding(topic="GPU", value=str(error), ok=False, remedy=remedy)]
    lines = [Finding(topic=f"GPU {index}", value=_describe(gpu)) for index, gpu in enumerate(found)]
    return [attrs.asdict(gpu) for gpu in found], lines or [Finding(topic="GPU", value="none found")]


def _describe(gpu: Gpu) -> str:
    memory = "memory shared with the processor" if gpu.memory_bytes is None else size(gpu.memory_bytes)
    return f"{gpu.name}, {memory}, driver {gpu.driver}, compute capability {gpu.compute_capability}"
