"""Loading on `torch-cuda`: the plan, the decoder in its scheme, and what computes its steps."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from codellm.errors import BackendUnavailableError, InvalidValueError
from codellm.prefix_cache import room
from codellm.scheme import is_quantized
from codellm.tokenizer import HFTokenizer
from codellm.torch.decoder import Decoder
from codellm.torch.device import clear, device_of, enough_memory, free_memory
from codellm.torch.load import Plan, plan, spare_bytes
from codellm.torch.model import TorchModel
from codellm_gpu.cuda.chunk_attention import chosen
from codellm_gpu.cuda.engine import CudaEngine
from codellm_gpu.cuda.graphs import MOST, GraphSteps
from codellm_gpu.cuda.kernel import StepKernel
from codellm_gpu.cuda.prefill import Prefill, implementation
from codellm_gpu.cuda.quantized_weights import quantized_weights
from codellm_gpu.cuda.schemes import SCHEMES

if TYPE_CHECKING:
    from codellm.scheme import Scheme
    from codellm.sources import ModelSource
    from codellm.spec import LoadSpec

ROOM = 1 << 29
"""Bytes that the step kernel leaves free beside its copy of the weights: what prompts and graphs take."""


def load_cuda(spec: LoadSpec, source: ModelSource, options: Mapping[str, Any]) -> TorchModel:
    """Load `source`, with every check before its weights are read.

    Raises:
        ModelFileError: the model is broken or not supported.
        InvalidValueError: a field of `spec` that this backend cannot honour.
        NotEnoughMemoryError: it does not fit; says what is needed.
        BackendUnavailableError: torch sees no GPU, or the step kernel was asked for and cannot be made; says why.
    """
    device = device_of("torch-cuda", spec, ("cuda", *_interpreted()))
    if spec.batch_size > MOST:
        raise InvalidValueError(f"torch-cuda runs up to {MOST} sequences together, not {spec.batch_size}")
    limit = None if options["memory_gib"] is None else int(options["memory_gib"] * (1 << 30))
    clear(device, limit)
    with enough_memory(device), torch.inference_mode():
        scheme = next((scheme for scheme in SCHEMES if scheme.name == (source.scheme or spec.scheme)), None)
        packed = scheme is not None and is_quantized(source.scheme)
        bits = None if scheme is None else scheme.bits
        free = free_memory(device, limit) - ((options["prefix_cache"] or 0) << 20)
        made = plan(spec, source, device, free, bits, chunk=options["chunk"], packed=packed)
        attention = implementation(spec.attn_implementation, device, made.dtype)
        kept = room(options["prefix_cache"], spare_bytes(made, free, bits))
        return _loaded(made, scheme, attention, options["kernel"], kept)


def _interpreted() -> tuple[str, ...]:
    """The CPU, where Triton interprets its kernels there: for tests."""
    return ("cpu",) if os.environ.get("TRITON_INTERPRET") == "1" else ()


def _loaded(made: Plan, scheme: Scheme | None, attention: str, kernel: str, kept: int | None) -> TorchModel:
    tokenizer = HFTokenizer.of(made.source)
    decoder, cache = decoder_of(made, scheme), made.cache()
    vocab_size = min(tokenizer.vocab_size, made.config.vocab_size)
    prompts, graphs = Prefill(decoder, cache, chosen(attention, cache.keys[0])), GraphSteps(decoder, cache, vocab_size)
    step = None if kernel == "off" else _kernel(made, decoder, cache, vocab_size, ROOM + (kept or 0), kernel == "on")
    if step is None or made.batch_size > 1:
        graphs.capture(made.batch_size)  # which takes seconds, and no request is to wait for it
    engine = CudaEngine(
        decoder,
        cache,
        prompts,
        graphs,
        step,
        vocab_size=vocab_size,
        context_length=made.context_length,
        chunk=made.chunk,
    )
    info = made.info("torch-cuda", weight_bytes(decoder), scheme, kept)
    return TorchModel(info, tokenizer, engine)


def decoder_of(made: Plan, scheme: Scheme | None) -> Decoder:
    """The decoder of `made`, its projections in `scheme`.

    Raises:
        ModelFileError: a tensor cannot be read, or holds NaN or infinity.
        InvalidValueError: the scheme cannot be made of these weights.
    """
    if scheme is None:
        return made.decoder()
    assert made.source.tensors is not None
    packing = made.source.config.get("quantization_config")
    weights = quantized_weights(scheme.name, made.source.tensors, made.infos, made.dtype, made.device, packing)
    return Decoder(made.config, weights, made.context_length).eval()


def _kernel(made: Plan, decoder: Decoder, cache: Any, vocab_size: int, spared: int, asked: bool) -> StepKernel | None:
    """The step kernel, which leaves `spared` bytes free; None where it cannot be made, unless it was `asked` for."""
    try:
        if made.device.type != "cuda":
            raise BackendUnavailableError("the step kernel runs on a GPU")
        return StepKernel(made.config, decoder, cache, vocab_size, room=spared)
    except BackendUnavailableError:
        if asked:
            raise
        return None


def weight_bytes(decoder: Decoder) -> int:
    """Bytes of weights that one decoded token reads: of an embedding that is no output too, one row."""
    embedding = decoder.embedding.weight
    held = {id(part): part.nbytes for part in (*decoder.parameters(), *decoder.buffers())}
    for table in (decoder.cos, decoder.sin):
        held.pop(id(table))
    if getattr(decoder.lm_head, "weight", None) is not embedding:
        held.pop(id(embedding))
    return sum(held.values())
