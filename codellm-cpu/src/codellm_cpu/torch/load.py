"""Loading on our own decoder, on the CPU."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from codellm.errors import BackendUnavailableError, InvalidValueError
from codellm.prefix_cache import room
from codellm.tokenizer import HFTokenizer
from codellm.torch.decoder_engine import DecoderEngine
from codellm.torch.device import device_of, free_memory
from codellm.torch.load import plan, spare_bytes
from codellm.torch.model import TorchModel
from codellm.torch.steps import compiled, forget, traced

if TYPE_CHECKING:
    from codellm.sources import ModelSource
    from codellm.spec import LoadSpec
    from codellm.torch.cache import Cache
    from codellm.torch.decoder import Decoder
    from codellm.torch.steps import Step


def load_decoder(spec: LoadSpec, source: ModelSource, mode: str, prefix_cache: int | None = 0) -> TorchModel:
    """Load `source` on our own decoder, whose step is traced or compiled as `mode` says.

    `prefix_cache` is the option's value: see `codellm.prefix_cache`.

    Raises:
        ModelFileError: the model is broken or not supported.
        InvalidValueError: a field of `spec` that this backend cannot honour.
        NotEnoughMemoryError: it does not fit; says what is needed.
        BackendUnavailableError: `mode` is "compile", and there is no compiler.
    """
    if spec.attn_implementation is not None:
        raise InvalidValueError("torch-cpu has one attention; attn_implementation is transformers-cpu's")
    if mode == "compile":
        check_compiler()
    device = device_of("torch-cpu", spec, ("cpu",))
    free = free_memory(device) - ((prefix_cache or 0) << 20)
    made = plan(spec, source, device, free)
    tokenizer = HFTokenizer.of(source)
    decoder, cache = made.decoder(), made.cache()
    engine = DecoderEngine(
        decoder,
        cache,
        vocab_size=min(tokenizer.vocab_size, made.config.vocab_size),
        context_length=made.context_length,
        chunk=made.chunk,
        step=_step(mode, decoder, cache),
        forget=forget if mode == "jit" else None,
    )
    kept = room(prefix_cache, spare_bytes(made, free))
    return TorchModel(made.info("torch-cpu", made.weight_bytes, prefix_cache=kept), tokenizer, engine)


def _step(mode: str, decoder: Decoder, cache: Cache) -> Step:
    if mode == "compile":
        return compiled(decoder, cache)
    return traced(decoder, cache) if mode == "jit" else decoder.decode


def check_compiler() -> None:
    """See that Inductor finds the C++ compiler that it calls.

    Raises:
        BackendUnavailableError: it does not.
    """
    name = os.environ.get("CXX") or "g++"  # torch._inductor.config.cpp.cxx
    if shutil.which(name) is None:
        raise BackendUnavailableError(
            f"-o mode=compile needs a C++ compiler, and {name} is not on the PATH; install it or name another in CXX, "
            "or choose mode=jit"
        )
