"""Loading a GGUF file: every check that is cheaper before llama.cpp than after it."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

from codellm.errors import BackendError, InvalidValueError, ModelFileError
from codellm.model import ModelInfo
from codellm.prefix_cache import room
from codellm.system import machine
from codellm_cpu.llama import tiles
from codellm_cpu.llama.build import KEEP_TILES
from codellm_cpu.llama.gaps import gaps
from codellm_cpu.llama.library import LOG, ContextShape, library, open_context, open_native
from codellm_cpu.llama.memory import MOST_IDS, Need, fitting_context
from codellm_cpu.llama.model import LlamaCppModel
from codellm_cpu.llama.probe import checked, require_probed
from codellm_cpu.llama.threads import decode_threads, fewest, model_kind
from codellm_cpu.schemes import FILE_TYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from codellm.sources import ModelSource
    from codellm.spec import LoadSpec
    from codellm_cpu.llama.header import Header
    from codellm_cpu.llama.library import NativeContext, NativeModel
    from codellm_cpu.llama.options import Options

DEFAULT_CONTEXT = 4096
_TILED_ROWS = 8
"""Rows from which on ggml multiplies k-quants in tiles (ggml-cpu/tiled/tiled.cpp, ggml_tiled_min_batch)."""
_STORED = 16
"""Texts that are stored at most where nobody says how much: llama.cpp takes the memory of all of them at once."""
_SCORE_ROWS = 128
"""Rows of logits of one decode: 128 of a vocabulary of 49152 are 25 MB, and a matrix product is at its best by then."""


def load(spec: LoadSpec, source: ModelSource, options: Options) -> LlamaCppModel:
    """Load the GGUF file of `source`, with as much context as memory takes.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelFileError: the file is broken, or llama.cpp refuses it or does not survive it.
        InvalidValueError: a field of `spec` that this backend cannot honour.
        NotEnoughMemoryError: it does not fit in memory; says what is needed.
        BackendError: llama.cpp cannot make the context, or cannot repack weights and is asked to.
    """
    _check_spec(spec)
    if options.repack:
        require_tiles(library())
    if source.path is None:
        raise ModelFileError(f"{source.name}: there is no GGUF file to load")
    header = checked(source.path)
    chunk = max(options.chunk, spec.batch_size)
    outputs = min(chunk, max(_SCORE_ROWS, spec.batch_size))
    need = Need.of(header, chunk=chunk, outputs=outputs, kept=(options.prefix_cache or 0) << 20)
    available = machine.available_memory()
    fits = fitting_context(source.path.name, header, spec, need, available)
    require_probed(source.path)
    threads = spec.threads or machine.default_threads()
    repack = repacked(options.repack, _file_type(header), spec.batch_size, machine.cpu_features())
    with contextlib.ExitStack() as stack:
        native = open_native(stack, source.path, repack=repack, mmap=options.mmap)
        LOG.tell(source.path)
        context_length = _context_length(spec, native, header, fits)
        stored = _stored(options.prefix_cache, need, available, context_length, spec.batch_size)
        shape = ContextShape(
            context_length=context_length,
            slots=spec.batch_size,
            chunk=chunk,
            outputs=outputs,
            threads=threads,
            flash_attn=options.flash_attn,
            stored=stored,
        )
        context = open_context(stack, native, shape)
        LOG.tell(source.path)
        if spec.threads is None:
            threads = _measured_threads(context, source.scheme or _file_type(header), header, threads)
            context.decode_with(threads)
        info = ModelInfo(
            backend="llama-cpp",
            architecture=header.architecture,
            parameters=native.parameters,
            weight_bytes=header.decode_bytes,
            context_length=shape.context_length,
            dtype="float32",  # of the activations; the weights are as the scheme says, the key-value cells float16
            scheme=source.scheme or _file_type(header),
            device="cpu",
            path=str(source.path),
            batch_size=spec.batch_size,
            threads=threads,
            dummy=source.dummy,
            prefix_cache=None if stored is None else stored * need.context_bytes(context_length),
        )
        model = LlamaCppModel(info, native, context, stack.pop_all())
    for gap in gaps(header, model.tokenizer):
        LOG.note(source.path, gap)
    return model


def _check_spec(spec: LoadSpec) -> None:
    if spec.device not in ("auto", "cpu"):
        raise InvalidValueError(f"llama-cpp runs on the device cpu, not {spec.device!r}")
    if spec.dtype != "auto":
        raise InvalidValueError(
            f"llama-cpp takes its precision from the scheme; use --scheme instead of dtype {spec.dtype}"
        )
    if spec.attn_implementation is not None:
        raise InvalidValueError("llama-cpp has no attn_implementation; use the option -o flash-attn=on|off")
    if spec.batch_size > MOST_IDS:
        raise InvalidValueError(f"llama-cpp runs at most {MOST_IDS} sequences together, not {spec.batch_size}")


def repacked(asked: bool | None, scheme: str, batch_size: int, features: Collection[str]) -> bool:
    """Whether weights are repacked: where nobody `asked`, a token alone is faster so, but not always many rows.

    From 8 rows on, ggml multiplies k-quants in tiles on its own (ggml-cpu/tiled), unless they are repacked. With
    AVX-512 VNNI the tiles are faster: StarCoder2-3B in q4_k_m computes a prompt 1.5 times as fast, and 32 sequences
    1.3 times, while a token alone takes 1.3 times as long. Repacked for AMX it is 1.6 times as fast with 32 sequences
    as in the tiles. Other quantizations have no tiles.
    """
    if asked is not None:
        return asked
    tiled = "_k" in scheme and "avx512_vnni" in features and "amx_int8" not in features
    return not (tiled and batch_size >= _TILED_ROWS)


def require_tiles(lib: Any, multiplies: Callable[[], bool] = tiles.multiply) -> None:
    """See that weights can be repacked by `lib`, the module of llama.cpp: see `tiles.usable`.

    Raises:
        BackendError: they cannot.
    """
    if not tiles.usable(lib, multiplies):
        raise BackendError(
            "llama-cpp cannot repack weights: this build of llama.cpp dies of the processor's matrix tiles; "
            f"leave out -o repack=on, or compile it again: {KEEP_TILES}"
        )


def _context_length(spec: LoadSpec, native: NativeModel, header: Header, fits: int) -> int:
    """Tokens of one sequence: as asked, or what the model was trained for, up to 4096 and to what memory `fits`.

    llama.cpp ignores StarCoder2's sliding window and attends to the whole context. Within the window that is the same;
    past it the results would silently differ from the model's, so the context ends there.
    """
    limit, why = native.trained_context, "it was trained for"
    window = header.number("attention.sliding_window")
    if window and window < limit and not native.honoured_window:
        limit, why = window, "its sliding window spans, past which llama.cpp would compute something else"
    asked = spec.context_length
    if asked is None:
        return min(limit, DEFAULT_CONTEXT, fits)
    if asked > limit:
        raise InvalidValueError(
            f"{native.path.name} takes a context_length of at most the {limit} tokens {why}, not {asked}"
        )
    return asked


def _stored(asked: int | None, need: Need, available: int, context_length: int, slots: int) -> int | None:
    """Texts that can be stored beside the `slots` with an option of that value; None: not even in those."""
    kept = room(asked, need.spare(available, context_length, slots))
    if kept is None:
        return None
    return min(kept // need.context_bytes(context_length), MOST_IDS - slots, _STORED if asked is None else MOST_IDS)


def _measured_threads(context: NativeContext, scheme: str, header: Header, most: int) -> int:
    """The threads for a token of one sequence, which is computed at a slot that is empty again afterwards."""
    context.tokens[0], context.positions[0], context.slots[0], context.wanted[0] = 0, 0, 0, 1

    def step() -> None:
        context.trim(0, 0)
        context.decode(1)

    kind = model_kind(scheme, header.decode_bytes)
    threads = decode_threads(kind, most, functools.partial(fewest, step, context.decode_with))
    context.clear()
    return threads


def _file_type(header: Header) -> str:
    """The scheme by the header's `general.file_type` (llama.h, llama_ftype)."""
    names = {0: "f32", 1: "f16", 32: "bf16"} | {kind.number: name for name, kind in FILE_TYPES.items()}
    number = header.scalars.get("general.file_type")
    return names.get(number, "gguf") if isinstance(number, int) else "gguf"
