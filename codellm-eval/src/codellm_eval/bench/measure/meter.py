"""Counters of energy that a machine has: RAPL for its processors, NVML for an NVIDIA GPU."""

from __future__ import annotations

import abc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import attrs

from codellm.errors import MachineError

POWERCAP = Path("/sys/class/powercap")
"""Linux, Documentation/power/powercap/powercap.rst: a folder for each zone, its counter in microjoules."""


class Meter(Protocol):
    """Counts joules. `name` says of what: all that it counts is used, whoever used it, and when idle too.

    It moves every `period` seconds, which is how far off the ends of a window may be.
    """

    @property
    @abc.abstractmethod
    def name(self) -> str: ...

    @property
    @abc.abstractmethod
    def period(self) -> float: ...

    @abc.abstractmethod
    def joules(self) -> float:
        """Joules since some moment; only differences mean something.

        Raises:
            MachineError: the counter is gone.
        """


def meter(device: str) -> Meter:
    """The counter of what `device` uses.

    Raises:
        MachineError: there is none here, or it may not be read; says why, and what mends it.
    """
    kind, _, index = device.partition(":")
    return Nvml.open(int(index or 0)) if kind == "cuda" else Rapl.open()


@attrs.define
class Zone:
    """One counter of RAPL. It starts over after some minutes of work, so its differences are added up."""

    folder: Path
    name: str
    range: int
    """Microjoules at which it starts over."""
    _last: int
    _total: int = 0

    @classmethod
    def open(cls, folder: Path) -> Zone:
        """The zone in `folder`.

        Raises:
            MachineError: it may not be read.
        """
        name = _read(folder / "name")
        return cls(folder, name, int(_read(folder / "max_energy_range_uj")), int(_read(folder / "energy_uj")))

    def joules(self) -> float:
        """Joules since it was opened, if it was asked at least once each time round."""
        now = int(_read(self.folder / "energy_uj"))
        self._total += (now - self._last) % (self.range + 1)
        self._last = now
        return self._total / 1e6


@attrs.frozen
class Rapl:
    """The processors' packages, and the memory where it is counted beside them."""

    zones: Sequence[Zone]
    period: float = 1e-3
    """About a millisecond (Intel 64 and IA-32 Software Developer's Manual, volume 3, on RAPL)."""

    @classmethod
    def open(cls, root: Path = POWERCAP) -> Rapl:
        """Every package of this machine; a part of a package is in its figure already, memory (`dram`) is not.

        Raises:
            MachineError: see `meter`.
        """
        # intel-rapl-mmio counts the same packages once more; AMD's are named intel-rapl too
        folders = sorted(root.glob("intel-rapl:*")) if root.is_dir() else []
        zones = [folder for folder in folders if _read(folder / "name").startswith(("package", "dram"))]
        if not zones:
            raise MachineError(f"{root} has no counter of energy: this machine, or the container, tells none")
        return cls([Zone.open(folder) for folder in zones])

    @property
    def name(self) -> str:
        """Name of what is counted, as `RAPL package-0 + dram`."""
        return f"RAPL {' + '.join(zone.name for zone in self.zones)}"

    def joules(self) -> float:
        return sum(zone.joules() for zone in self.zones)


@attrs.frozen
class Nvml:
    """One NVIDIA GPU, its memory and its board; the host beside it is not counted."""

    name: str
    _handle: Any
    _library: Any
    period: float = 0.1
    """As seen on an H100."""

    @classmethod
    def open(cls, index: int) -> Nvml:
        """The GPU that CUDA calls `index`, among those that CUDA_VISIBLE_DEVICES leaves.

        Raises:
            MachineError: see `meter`.
        """
        try:
            import pynvml
        except ImportError as error:
            raise MachineError('the GPU\'s counter needs nvidia-ml-py; pip install "codellm-eval[energy]"') from error
        try:
            pynvml.nvmlInit()
            visible = _visible(index)
            by_uuid = visible.startswith(("GPU-", "MIG-"))
            handle = pynvml.nvmlDeviceGetHandleByUUID(visible) if by_uuid else _by_index(pynvml, visible)
            found = cls(f"NVML {pynvml.nvmlDeviceGetName(handle)}", handle, pynvml)
        except pynvml.NVMLError as error:
            raise MachineError(f"NVML does not tell GPU {index}'s energy: {error}") from error
        found.joules()
        return found

    def joules(self) -> float:
        try:
            return float(self._library.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3
        except self._library.NVMLError as error:
            raise MachineError(f"{self.name} does not tell its energy: {error}") from error


def _visible(index: int) -> str:
    """The number or the UUID of the GPU that CUDA calls `index`."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return visible[index].strip() if visible != [""] and index < len(visible) else str(index)


def _by_index(pynvml: Any, number: str) -> Any:
    if not number.isdecimal():
        raise MachineError(f"CUDA_VISIBLE_DEVICES names the GPU {number!r}, which is neither a number nor a UUID")
    return pynvml.nvmlDeviceGetHandleByIndex(int(number))


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except PermissionError as error:
        raise MachineError(f"{file} is for root only; sudo chmod a+r {file} opens it until the next boot") from error
    except OSError as error:
        raise MachineError(f"{file} cannot be read ({error.strerror})") from error
