"""The step kernel of a model: compiled once for its shape and the GPU, then launched for each token."""

from __future__ import annotations

import hashlib
import importlib.util
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
import torch

from codellm.errors import BackendUnavailableError
from codellm.system.cache import cache_path, keep_file
from codellm_gpu.cuda import tape
from codellm_gpu.cuda.shape import WARPS, Gpu, Launch, Shape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codellm.sources.architecture import Config
    from codellm.torch.cache import Cache
    from codellm.torch.decoder import Decoder


SOURCE = ("layout", "instructions", "exchange", "ring", "product", "activations", "attention", "step")
"""The parts of the kernel's source, in the order in which they are compiled as one."""


def source() -> str:
    """The source of the kernel."""
    folder = files("codellm_gpu.cuda") / "step"
    return "\n".join((folder / f"{part}.cu").read_text() for part in SOURCE)


def compile_step(macros: Mapping[str, str], capability: tuple[int, int]) -> bytes:
    """Machine code of the kernel, from the cache where it was compiled before (NVRTC takes about 3 s).

    Raises:
        BackendUnavailableError: cuda-core or NVRTC is not installed, or refuses the source.
    """
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.core") is None:
        raise BackendUnavailableError("cuda-core is not installed; pip install cuda-core")
    import cuda.core

    text, arch = source(), f"sm_{capability[0]}{capability[1]}"
    facts = [text, repr(sorted(macros.items())), arch, cuda.core.__version__]
    path = cache_path() / "kernels" / f"{hashlib.sha256(chr(0).join(facts).encode()).hexdigest()[:32]}.cubin"
    if path.is_file():
        return path.read_bytes()
    code = _compiled(text, macros, arch)
    keep_file(path, code)
    return code


def _compiled(text: str, macros: Mapping[str, str], arch: str) -> bytes:
    from cuda.core import Program, ProgramOptions

    options = ProgramOptions(std="c++17", arch=arch, define_macro=list(macros.items()))
    try:
        return bytes(Program(text, "c++", options).compile("cubin").code)
    except Exception as error:  # whatever is missing: NVRTC's library, an architecture it does not know, a header
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BackendUnavailableError(f"NVRTC cannot compile the step kernel for {arch} ({reason})") from error


class StepKernel:
    """The step of `decoder` for one sequence of `cache`: weights laid out on a tape, kernel ready.

    Raises:
        BackendUnavailableError: it cannot be made, or its copy of the weights leaves fewer than `room` bytes free.
    """

    def __init__(self, config: Config, decoder: Decoder, cache: Cache, vocab_size: int, room: int = 0) -> None:
        device = decoder.embedding.weight.device
        shape, gpu = Shape.of(config, decoder), Gpu.of(device)
        dtype = decoder.embedding.weight.dtype
        reason = shape.fault(gpu) if dtype.itemsize == 2 else f"it computes in bfloat16 and float16, not {dtype}"
        if reason is not None:
            raise BackendUnavailableError(f"the step kernel: {reason}")
        launch = Launch.of(shape, gpu)
        self._load(compile_step(shape.macros(gpu), gpu.capability), launch)
        blocks, size = launch.blocks, shape.group_bytes
        try:
            self.tape = tape.Tape.of(decoder, blocks=blocks, warps=WARPS, size=size, zeros=shape.zeros)
        except torch.OutOfMemoryError:
            raise no_room() from None
        torch.cuda.empty_cache()  # of what was packed
        if torch.cuda.mem_get_info(device)[0] < room:
            raise no_room()
        self._keep(shape, launch, decoder, cache, vocab_size)

    def _load(self, code: bytes, launch: Launch) -> None:
        from cuda.bindings import driver
        from cuda.core import Device, LaunchConfig, ObjectCode

        torch.cuda.init()  # type: ignore[no-untyped-call]
        index = torch.cuda.current_device()
        self._device = Device(index)
        self._device.set_current()
        self._code = ObjectCode.from_cubin(code)
        self._kernel = self._code.get_kernel("step")
        attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        (status,) = driver.cuKernelSetAttribute(attribute, launch.shared_bytes, int(self._kernel.handle), index)
        if status != driver.CUresult.CUDA_SUCCESS:
            raise BackendUnavailableError(f"the driver grants the step kernel no shared memory ({status.name})")
        self._config = LaunchConfig(
            grid=launch.blocks, block=(WARPS + 1) * 32, shmem_size=launch.shared_bytes, is_cooperative=True
        )

    def _keep(self, shape: Shape, launch: Launch, decoder: Decoder, cache: Cache, vocab_size: int) -> None:
        config = shape.config
        device = decoder.embedding.weight.device

        def room(*extents: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.zeros(extents, dtype=dtype, device=device)

        hidden, heads, intermediate = shape.columns
        rows = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim
        slots = len(cache.keys[0])
        self.logits = room(slots, tape.shape_of(decoder.lm_head)[0])
        self._chosen = [(room(slots, dtype=torch.int64), room(slots)) for _ in range(2)]
        self._turn, self.likeliest = 0, self._chosen[0]
        self._cache = cache  # whose memory the addresses below are of
        keys, values = (
            torch.tensor([layer.data_ptr() for layer in part], device=device) for part in (cache.keys, cache.values)
        )
        self._tensors = (
            *(self.tape.data, self.tape.starts, self.tape.pages, self.tape.vectors, self.tape.norms),
            *(decoder.embedding.weight, decoder.cos, decoder.sin, keys, values),
        )
        self._scratch = (
            *(room(shape.padded(heads), dtype=torch.int16), room(shape.padded(intermediate), dtype=torch.int16)),
            *(room(3, hidden), room(rows)),
            room(config.num_attention_heads, launch.splits, config.head_dim + 4),
            *(room(launch.blocks + 1, dtype=torch.int64), room(launch.blocks, 2)),
            torch.zeros(160, dtype=torch.int32, device=device).index_fill_(0, torch.tensor([2], device=device), 1),
        )
        sizes = map(np.int32, (cache.ring, cache.window, config.num_hidden_layers, vocab_size, self.logits.shape[1]))
        self._arguments = (
            *(tensor.data_ptr() for tensor in (*self._tensors, *self._scratch)),
            *sizes,
        )

    def __call__(self, ids: torch.Tensor, slot: int, position: int) -> torch.Tensor:
        """Compute the token that `ids` [P] has for `slot`, at `position` → logits [P, V] in float32, of it alone.

        `likeliest` then has the likeliest id after it and the logarithm of its probability, both [P]. The logits are
        good until the next step, those until the one after it.
        """
        from cuda.core import Stream, launch

        self._turn ^= 1
        self.likeliest = self._chosen[self._turn]
        own = (tensor[slot].data_ptr() for tensor in (self.logits, ids, *self.likeliest))
        stream = Stream.from_handle(torch.cuda.current_stream().cuda_stream)
        launch(stream, self._config, self._kernel, *self._arguments, np.int32(slot), np.int32(position), *own)
        return self.logits


def no_room() -> BackendUnavailableError:
    """The error of a GPU that does not hold the weights twice."""
    return BackendUnavailableError("the step kernel: the GPU has no room for its copy of the weights")
