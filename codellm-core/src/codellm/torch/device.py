"""The device that a model runs on: which one, what is free there, how fast it reads, and what suits it."""

from __future__ import annotations

import contextlib
import functools
import gc
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from codellm.errors import BackendUnavailableError, InvalidValueError, NotEnoughMemoryError
from codellm.system import machine

if TYPE_CHECKING:
    from codellm.spec import LoadSpec

CHUNK = {"cpu": 512, "cuda": 2048}
"""Tokens of a prompt that are computed at once: a product of matrices is at its best by then."""
SCORED = {"cpu": 128, "cuda": 1024}
"""Rows of logits that are turned into probabilities at once: of a vocabulary of 49152 they are 25 and 200 MB."""


def device_of(name: str, spec: LoadSpec, kinds: tuple[str, ...]) -> torch.device:
    """What `spec` asks the backend `name` to run on: one of `kinds`, the first by default. CPU threads are set.

    Raises:
        InvalidValueError: the backend does not run there.
        BackendUnavailableError: torch does not.
    """
    asked = kinds[0] if spec.device == "auto" else spec.device
    if asked not in kinds:
        raise InvalidValueError(f"{name} runs on the device {' or '.join(kinds)}, not {spec.device!r}")
    if asked == "cpu":
        torch.set_num_threads(spec.threads or machine.default_threads())
    elif not torch.cuda.is_available():
        raise BackendUnavailableError(
            f"torch {torch.__version__} sees no CUDA GPU: it was built without CUDA, or for a newer driver; "
            "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu130, or another index"
        )
    else:
        torch.cuda.init()  # type: ignore[no-untyped-call]  # what asks for its memory does not do so by itself
    return torch.device(asked)


def gpus(device: torch.device) -> list[torch.device]:
    """Every GPU that this process sees, where `device` is one: by its number, the current first."""
    if device.type != "cuda":
        return []
    current = torch.cuda.current_device()
    numbers = sorted(range(torch.cuda.device_count()), key=lambda number: number != current)
    return [torch.device("cuda", number) for number in numbers]


def clear(device: torch.device, limit: int | None = None) -> None:
    """Give back what is not used, count peaks from now on, and let this process take at most `limit` bytes."""
    if device.type != "cuda":
        return
    release(device)
    torch.cuda.reset_peak_memory_stats(device)
    total = torch.cuda.mem_get_info(device)[1]
    torch.cuda.set_per_process_memory_fraction(min(1.0, (limit or total) / total), device.index)


def release(device: torch.device) -> None:
    """Give the memory of what is no longer used to other processes: torch keeps it, and Python's cycles do."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()


def free_memory(device: torch.device, limit: int | None = None) -> int:
    """Bytes that a model may take: nine tenths of what is free now, within what `limit` leaves to this process."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        left = free if limit is None else limit - torch.cuda.memory_reserved(device)
        return max(0, min(free, left)) * 9 // 10
    return machine.available_memory() * 9 // 10


def upload(values: Any, device: torch.device, dtype: torch.dtype = torch.long) -> torch.Tensor:
    """Numbers as a tensor on `device`; the host does not wait until what runs there is done."""
    host = torch.tensor(values, dtype=dtype, pin_memory=device.type == "cuda")
    return host.to(device, non_blocking=True)


@contextlib.contextmanager
def enough_memory(device: torch.device) -> Iterator[None]:
    """Say of a device that is full what to do; what was computed is freed, and what lay there before is as it was.

    Raises:
        NotEnoughMemoryError: its memory is full.
    """
    try:
        yield
        return
    except torch.OutOfMemoryError as error:
        said = ". ".join(str(error).split(". ")[:2]).strip()
        traceback.clear_frames(error.__traceback__)  # they hold what was computed
    release(device)
    raise NotEnoughMemoryError(
        f"the memory of the device {device.type} is full ({said}); take a smaller batch_size, context_length or "
        "-o chunk, another attn_implementation than eager, or a quantized model"
    )


@functools.cache
def read_bandwidth(device: torch.device, size: int = 4 << 30, rounds: int = 200) -> float | None:
    """Bytes per second that a GPU reads from its memory: the best of `rounds` passes; None where no buffer fits.

    A pass adds up `size` bytes, far more than a cache holds and enough to hide its beginning and end; decoding reads
    every weight once per token, so this bounds it. An idle GPU's clocks rise only after some passes (an H200 told
    3,649 GB/s in the first 6 ms and 4,400 later). Timed by the GPU's own events.
    """
    try:
        words = torch.ones(size // 4, dtype=torch.float32, device=device)
    except torch.OutOfMemoryError:
        return read_bandwidth(device, size // 4, rounds) if size >= 1 << 30 else None
    best = 0.0
    for _ in range(rounds):
        begin, end = _event(), _event()
        begin.record()
        words.sum()
        end.record()
        end.synchronize()
        best = max(best, size / (begin.elapsed_time(end) / 1e3))
    del words
    release(device)
    return best


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
