"""The device that a model runs on: which one, and what is free there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from codellm import machine
from codellm.errors import InvalidValueError

if TYPE_CHECKING:
    from codellm.spec import LoadSpec


def device_of(name: str, spec: LoadSpec, kinds: tuple[str, ...]) -> torch.device:
    """What `spec` asks the backend `name` to run on: one of `kinds`, the first by default. CPU threads are set.

    Raises:
        InvalidValueError: the backend does not run there.
    """
    asked = kinds[0] if spec.device == "auto" else spec.device
    if asked not in kinds:
        raise InvalidValueError(f"{name} runs on the device {' or '.join(kinds)}, not {spec.device!r}")
    if asked == "cpu":
        torch.set_num_threads(spec.threads or machine.default_threads())
    return torch.device(asked)


def free_memory(device: torch.device) -> int:
    """Bytes that a model may take: nine tenths of what is free now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) * 9 // 10
    return machine.available_memory() * 9 // 10
