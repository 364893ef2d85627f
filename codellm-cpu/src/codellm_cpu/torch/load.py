"""From a load spec to a model on the CPU: on our own decoder, or on transformers'."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import torch

from codellm import machine
from codellm.errors import BackendUnavailableError, InvalidValueError
from codellm.model import ModelInfo
from codellm.torch.decoder_engine import DecoderEngine
from codellm.torch.load import CHUNK, free_memory, plan
from codellm.torch.model import TorchModel
from codellm.torch.steps import compiled, forget, traced

if TYPE_CHECKING:
    from codellm.scheme import Scheme
    from codellm.sources import ModelSource
    from codellm.spec import LoadSpec
    from codellm.tokenizer import HFTokenizer
    from codellm.torch.cache import Cache
    from codellm.torch.decoder import Decoder
    from codellm.torch.load import Plan
    from codellm.torch.steps import Step

ATTENTIONS = ("sdpa", "eager")


def load_decoder(spec: LoadSpec, source: ModelSource, mode: str) -> TorchModel:
    """Load `source` on our own decoder.

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
    made, tokenizer = _plan("torch-cpu", spec, source)
    decoder, cache = made.decoder(), made.cache()
    engine = DecoderEngine(
        decoder,
        cache,
        vocabulary=min(tokenizer.vocab_size, made.config.vocabulary),
        context=made.context,
        chunk=CHUNK,
        step=_step(mode, decoder, cache),
        forget=forget if mode == "jit" else None,
    )
    return TorchModel(_info("torch-cpu", made, made.weight_bytes), tokenizer, engine)


def load_transformers(spec: LoadSpec, source: ModelSource, scheme: Scheme | None) -> TorchModel:
    """Load `source` on transformers' model.

    Raises:
        ModelFileError: the model is broken or not supported.
        InvalidValueError: a field of `spec` that this backend cannot honour.
        NotEnoughMemoryError: it does not fit; says what is needed.
    """
    attention = spec.attn_implementation or "sdpa"
    if attention not in ATTENTIONS:
        raise InvalidValueError(f"transformers-cpu: attn_implementation is {' or '.join(ATTENTIONS)}, not {attention}")
    made, tokenizer = _plan("transformers-cpu", spec, source, scheme)
    from codellm.torch.transformers_engine import TransformersEngine, open_model, weight_bytes

    model = open_model(made, scheme.name if scheme is not None else None, attention)
    info = _info("transformers-cpu", made, weight_bytes(model), scheme)
    engine = TransformersEngine(
        model,
        made.cache(),
        vocabulary=min(tokenizer.vocab_size, made.config.vocabulary),
        context=made.context,
        chunk=CHUNK,
    )
    return TorchModel(info, tokenizer, engine)


def _plan(name: str, spec: LoadSpec, source: ModelSource, scheme: Scheme | None = None) -> tuple[Plan, HFTokenizer]:
    if spec.device not in ("auto", "cpu"):
        raise InvalidValueError(f"{name} runs on the device cpu, not {spec.device!r}")
    device = torch.device("cpu")
    made = plan(spec, source, device, free_memory(device), None if scheme is None else scheme.bits)
    torch.set_num_threads(spec.threads or machine.default_threads())
    return made, made.tokenizer()


def _info(name: str, made: Plan, weight_bytes: int, scheme: Scheme | None = None) -> ModelInfo:
    return ModelInfo(
        backend=name,
        architecture=str(made.source.config["model_type"]),
        parameters=made.parameters,
        weight_bytes=weight_bytes,
        context_length=made.context,
        dtype=made.name,
        scheme="none" if scheme is None else scheme.name,
        device="cpu",
        path=str(made.source.path or ""),
        batch_size=made.places,
        threads=torch.get_num_threads(),
        dummy=made.source.dummy,
    )


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
