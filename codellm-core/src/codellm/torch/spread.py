"""A model that no GPU holds alone, spread over several: each layer lies on one of them, with its keys and values.

What is no layer (embedding, last norm, output) lies on the first, which takes ids and gives logits. Layers follow each
other, so the GPUs compute one after another: this is for size, not for speed.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING

import attrs

from codellm.errors import NotEnoughMemoryError
from codellm.torch.load import Plan, activation_bytes, held, logits_bytes, numel

if TYPE_CHECKING:
    import torch


def spread(made: Plan, free: Mapping[torch.device, int], *, asked: bool) -> Plan:
    """The plan over as many of the devices as it needs, in their order; `free` is how many bytes each has.

    The context is shorter where none was `asked` for and memory is short, as on one device.

    Raises:
        NotEnoughMemoryError: they do not hold it together; says what is needed.
    """
    layers = made.config.num_hidden_layers
    sizes = {info.name: int(numel(info) * held(info, made.dtype, None)) // 8 for info in made.infos.values()}
    inner = sum(size for name, size in sizes.items() if ".layers." in name)
    ends = sum(sizes.values()) - inner + logits_bytes(made)
    rooms = [room - activation_bytes(made) for room in free.values()]
    rooms[0] -= ends
    lengths = [made.context_length] if asked else range(made.context_length, 0, -256)
    for length in lengths:
        counts = share(layers, (inner + made.cache_bytes(length)) // layers, rooms)
        if counts is not None:
            devices = [device for device, count in zip(free, counts, strict=True) for _ in range(count)]
            return attrs.evolve(made, context_length=length, device=next(iter(free)), layer_devices=tuple(devices))
    need = inner + ends + made.cache_bytes(lengths[-1]) + activation_bytes(made) * len(free)
    raise NotEnoughMemoryError(
        f"{made.source.name} in {made.name} needs {need / 1e9:.1f} GB of memory over {len(free)} GPUs, for "
        f"{made.batch_size} x {lengths[-1]} tokens of context, and {sum(free.values()) / 1e9:.1f} are free on them; "
        "take a smaller context_length, batch_size or dtype, or a quantized model"
    )


def share(layers: int, size: int, rooms: Seq[int]) -> list[int] | None:
    """How many of `layers` layers of `size` bytes each room of `rooms` bytes takes: all it holds before the next does.

    None where not all of them find room, or the first has less than none.
    """
    counts: list[int] = []
    for room in rooms:
        counts.append(min(layers - sum(counts), max(0, room) // size))
    return counts if sum(counts) == layers and rooms[0] >= 0 else None
