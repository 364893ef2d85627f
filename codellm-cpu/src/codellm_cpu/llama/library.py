"""llama.cpp as three handles: a model, a context and a batch, over llama-cpp-python's low-level functions.

llama_cpp has no useful types, so it is `Any` here and nowhere else; everything above speaks in ints, bytes and arrays.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import functools
import logging
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from codellm.errors import BackendError, ModelClosedError, ModelFileError
from codellm.sources.regular import shown
from codellm_cpu.llama import tiles

if TYPE_CHECKING:
    import numpy.typing as npt

_WARN, _ERROR, _CONTINUED = 3, 4, 5  # ggml.h, enum ggml_log_level

_HARMLESS = re.compile(
    r"n_ctx"  # it rounds a context up, of which we use what was asked for
    r"|missing pre-tokenizer|\*\*\*|GENERATION QUALITY|CONSIDER REGENERATING"  # gaps.py says it, of which file and key
    r"|out of vocab range, disabling"  # a token that it guessed: we use none of those
    r"|(eos|eot|eom)_id is not in special_eog_ids"  # it then adds it to them
    r"|newline token"  # which nobody here asks for
    r"|^[\w ]*:?\s*$"
)
"""Warnings of llama.cpp that tell a user of ours nothing."""

_logger = logging.getLogger("codellm")

_MOST = 64
"""Warnings kept of one call: a broken file may bring one for each token."""

Watch = Callable[[int, bool, object], bool]
"""Called with a pointer to each operation (ggml_tensor), first with True: whether to be shown what it computed, then
with False when it has: whether to go on. It must not raise."""


class Log:
    """The last lines llama.cpp logged, and which of them were errors: kept for messages, and to be told."""

    def __init__(self) -> None:
        self._lines: collections.deque[tuple[int, str]] = collections.deque(maxlen=64)
        self._warnings: list[str] = []
        self._told: set[str] = set()
        self.callback: Any = None
        """The C wrapper of `write`: llama.cpp keeps a bare pointer to it, so it must live as long."""

    def write(self, level: int, text: bytes, _: object) -> None:
        """Take a line, or a piece of one, from llama.cpp."""
        line = text.decode("utf-8", "replace").rstrip("\n")
        if level == _CONTINUED and self._lines:
            before, start = self._lines.pop()
            self._lines.append((before, (start + line)[-2000:]))
        elif line:
            self._lines.append((level, line[:2000]))
            if level in (_WARN, _ERROR) and len(self._warnings) < _MOST and not _HARMLESS.search(line):
                self._warnings.append(line[:500])

    def clear(self) -> None:
        """Forget everything: a fault that comes now is not explained by an older line."""
        self._lines.clear()
        self._warnings.clear()

    def tell(self, path: Path) -> None:
        """Tell what llama.cpp has warned of since `clear`, of the model in `path`."""
        while self._warnings:
            self.note(path, f"llama.cpp: {self._warnings.pop(0)}")

    def note(self, path: Path, text: str) -> None:
        """Tell something of the model in `path`, once, in one line, as the library tells everything."""
        line = shown(f"{path.name}: {text}")
        if line not in self._told:
            self._told.add(line)
            _logger.warning("%s", line)

    def error(self) -> str:
        """The first line logged as an error, for it names the cause; the last line of any kind where there is none."""
        errors = [line for level, line in self._lines if level == _ERROR]
        lines = errors or [line for _, line in self._lines]
        return (errors[0] if errors else lines[-1]) if lines else "no reason given"


LOG = Log()


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block, which calls llama.cpp: raised in a callback there, it would be lost."""
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, Any]] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        before(*came[0])


@functools.cache
def library() -> Any:
    """The module of llama.cpp's C functions, initialized and silent."""
    import llama_cpp.llama_cpp as lib

    LOG.callback = lib.llama_log_callback(LOG.write)
    lib.llama_log_set(LOG.callback, ctypes.c_void_p(0))
    lib.llama_backend_init()
    return lib


def model_params(
    lib: Any,
    *,
    repack: bool,
    mmap: bool,
    vocab_only: bool = False,
    multiplies: Callable[[], bool] = tiles.multiply,
) -> Any:
    """How `lib` is to load a file on the CPU (llama_model_params): see `tiles.usable` for `multiplies`."""
    params = lib.llama_model_default_params()
    params.n_gpu_layers = 0
    params.use_extra_bufts = repack and tiles.usable(lib, multiplies)
    params.vocab_only = vocab_only
    params.load_mode = lib.LLAMA_LOAD_MODE_MMAP if mmap else lib.LLAMA_LOAD_MODE_NONE
    return params


class NativeModel:
    """A loaded GGUF file with its vocabulary; with `vocab_only` nothing else of it is read.

    Raises:
        ModelFileError: llama.cpp refuses the file; the message carries its reason.
    """

    def __init__(self, path: Path, *, repack: bool, mmap: bool, vocab_only: bool = False) -> None:
        self.lib = lib = library()
        self.path = path
        params = model_params(lib, repack=repack, mmap=mmap, vocab_only=vocab_only)
        LOG.clear()
        self._handle: int | None = lib.llama_model_load_from_file(os.fsencode(path), params)
        if not self._handle:
            raise ModelFileError(f"{path}: llama.cpp cannot load it: {LOG.error()}")
        if lib.llama_model_has_encoder(self._handle) or lib.llama_model_is_recurrent(self._handle):
            self.close()
            raise ModelFileError(f"{path}: only decoder-only transformers are supported")
        self._vocab: int = lib.llama_model_get_vocab(self._handle)

    @property
    def handle(self) -> int:
        """The native pointer. Raises ModelClosedError after `close`: llama.cpp would follow it into freed memory."""
        if self._handle is None:
            raise ModelClosedError(f"the model {self.path.name} is closed")
        return self._handle

    @property
    def vocab(self) -> int:
        """The native pointer of the vocabulary, which the model owns."""
        _ = self.handle
        return self._vocab

    def meta(self, key: str) -> str | None:
        """A scalar of the file's header as text."""
        buffer = ctypes.create_string_buffer(1024)
        length = self.lib.llama_model_meta_val_str(self.handle, key.encode(), buffer, len(buffer))
        return None if length < 0 else buffer.value.decode("utf-8", "replace")

    @property
    def chat_template(self) -> str | None:
        """The header's `tokenizer.chat_template`."""
        text: bytes | None = self.lib.llama_model_chat_template(self.handle, None)
        return None if text is None else text.decode("utf-8", "replace")

    @property
    def vocab_size(self) -> int:
        """Number of tokens, and of logits of each position."""
        return int(self.lib.llama_vocab_n_tokens(self.vocab))

    @property
    def parameters(self) -> int:
        """Number of weights in the file."""
        return int(self.lib.llama_model_n_params(self.handle))

    @property
    def trained_context(self) -> int:
        """Tokens of context the model was trained for."""
        return int(self.lib.llama_model_n_ctx_train(self.handle))

    @property
    def honoured_window(self) -> int:
        """The sliding window llama.cpp computes with; 0 where it attends to everything."""
        return int(self.lib.llama_model_n_swa(self.handle))

    def close(self) -> None:
        """Free the native memory. May be called twice."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            self.lib.llama_model_free(handle)


@attrs.frozen(kw_only=True)
class ContextShape:
    """The sizes of a context: tokens of one sequence, sequences, tokens of one decode, rows of logits of one decode.

    `threads` compute; `NativeContext.decode_with` sets others for decodes of one token. `stored` counts the ids past
    those of the slots that only store what sequences have left; None: nothing is kept of a sequence.
    """

    context_length: int
    slots: int
    chunk: int
    outputs: int
    threads: int
    flash_attn: str = "auto"
    stored: int | None = None


class NativeContext:
    """The working memory of a model: key-value cells of every slot, and one batch that is filled again and again.

    `tokens`, `positions`, `slots` and `wanted` [chunk] are llama.cpp's own batch arrays: write row i, then `decode`
    the first n rows. `wanted` marks the rows whose logits are computed.

    `watch` is shown each operation: see `Watch`.

    Raises:
        BackendError: llama.cpp cannot make the context; the message carries its reason.
    """

    def __init__(self, model: NativeModel, shape: ContextShape, watch: Watch | None = None) -> None:
        self._lib = lib = model.lib
        self._path = model.path
        self.shape = shape
        self.decoded_tokens = 0
        """Tokens computed since loading: what sharing a prefix saves shows here."""
        self.spoilt = False
        """Whether NaN was computed, which whoever looks at the logits sets: `clear` then zeroes the cells."""
        params = lib.llama_context_default_params()
        ids = shape.slots + (shape.stored or 0)
        params.n_ctx = shape.context_length * ids
        params.n_batch = params.n_ubatch = shape.chunk
        params.n_seq_max = ids
        params.n_outputs_max = shape.outputs
        params.n_threads = params.n_threads_batch = shape.threads
        params.flash_attn_type = {
            "auto": lib.LLAMA_FLASH_ATTN_TYPE_AUTO,
            "on": lib.LLAMA_FLASH_ATTN_TYPE_ENABLED,
            "off": lib.LLAMA_FLASH_ATTN_TYPE_DISABLED,
        }[shape.flash_attn]
        # Cells of its own for every slot: in one shared buffer each sequence looks at the cells of all others to find
        # them masked, which cost a sixth of the speed at 16 slots.
        params.kv_unified = False
        params.no_perf = True
        self._watch = lib.ggml_backend_sched_eval_callback(watch) if watch is not None else None  # a bare pointer there
        if self._watch is not None:
            params.cb_eval = self._watch
        LOG.clear()
        self._handle: int | None = lib.llama_init_from_model(model.handle, params)
        if not self._handle:
            raise BackendError(f"{model.path}: llama.cpp cannot make a context: {LOG.error()}")
        self._memory: int = lib.llama_get_memory(self._handle)
        self._vocab_size = model.vocab_size
        self._allocate_batch(shape.chunk)
        self._rows: npt.NDArray[np.float32] | None = None
        self._address = 0

    def _allocate_batch(self, size: int) -> None:
        self.tokens = np.zeros(size, np.int32)
        self.positions = np.zeros(size, np.int32)
        self.slots = np.zeros(size, np.int32)
        self.wanted = np.zeros(size, np.int8)
        self._counts = np.ones(size, np.int32)  # each row belongs to one sequence
        start, step = self.slots.ctypes.data, self.slots.itemsize
        self._slot_pointers = np.arange(start, start + step * size, step, dtype=np.uintp)
        int32 = ctypes.POINTER(ctypes.c_int32)
        self._batch = self._lib.llama_batch(
            n_tokens=0,
            token=self.tokens.ctypes.data_as(int32),
            embd=None,
            pos=self.positions.ctypes.data_as(int32),
            n_seq_id=self._counts.ctypes.data_as(int32),
            seq_id=self._slot_pointers.ctypes.data_as(ctypes.POINTER(int32)),
            logits=self.wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )

    @property
    def handle(self) -> int:
        """The native pointer. Raises ModelClosedError after `close`."""
        if self._handle is None:
            raise ModelClosedError("the model is closed")
        return self._handle

    def decode_with(self, threads: int) -> None:
        """Compute decodes of one token with `threads`; all others stay as they are."""
        self._lib.llama_set_n_threads(self.handle, threads, self.shape.threads)

    def decode(self, rows: int) -> npt.NDArray[np.float32]:
        """Compute the first `rows` rows of the batch → logits [wanted rows, V], valid until the next call.

        Raises:
            BackendError: llama.cpp failed; the message says how.
        """
        self._batch.n_tokens = rows
        LOG.clear()
        code = self._lib.llama_decode(self.handle, self._batch)
        if code:
            meaning = {1: "no room left in the key-value cells", 2: "aborted", -1: "an invalid batch"}
            reason = meaning.get(code, f"error {code}")
            raise BackendError(f"llama.cpp could not compute a batch of {rows} tokens: {reason}; {LOG.error()}")
        LOG.tell(self._path)
        self.decoded_tokens += rows
        return self._logits()

    def prefill(
        self, slot: int, ids: npt.NDArray[np.int32], start: int, stop: int, *, wanted: bool
    ) -> npt.NDArray[np.float32]:
        """Compute `ids[start:stop]` (at most a chunk) at `slot` → logits [V] after the last, until the next `decode`.

        Rows whose logits nobody asks for cost no output matrix: they are computed only where `wanted`.
        """
        rows = stop - start
        self.tokens[:rows] = ids[start:stop]
        self.positions[:rows] = np.arange(start, stop)
        self.slots[:rows] = slot
        self.wanted[:rows] = 0
        self.wanted[rows - 1] = wanted
        logits: npt.NDArray[np.float32] = self.decode(rows)[0]
        return logits

    def _logits(self) -> npt.NDArray[np.float32]:
        """A view of llama.cpp's output rows, mapped anew only when they have moved: mapping costs more than a look."""
        pointer = self._lib.llama_get_logits(self.handle)
        address = ctypes.cast(pointer, ctypes.c_void_p).value or 0
        if self._rows is None or address != self._address:
            self._address = address
            self._rows = (
                np.ctypeslib.as_array(pointer, shape=(self.shape.outputs, self._vocab_size))
                if address
                else np.zeros((1, self._vocab_size), np.float32)  # nothing was asked for yet
            )
        return self._rows

    def clear(self) -> None:
        """Forget every slot; where NaN was computed, zero its cells too: it would count even where it is masked."""
        if self._handle is not None:
            self._lib.llama_memory_clear(self._memory, self.spoilt)
            self.spoilt = False

    def trim(self, slot: int, length: int) -> None:
        """Keep the first `length` tokens of `slot`."""
        _ = self.handle
        self._lib.llama_memory_seq_rm(self._memory, slot, length, -1)

    def copy(self, source: int, target: int, length: int) -> None:
        """Give `target` the first `length` tokens of `source` in place of its own.

        The next `decode` copies the whole buffer of the slot: llama.cpp aborts when asked for a part of one.
        """
        _ = self.handle
        self._lib.llama_memory_seq_cp(self._memory, source, target, -1, -1)
        self._lib.llama_memory_seq_rm(self._memory, target, length, -1)

    def close(self) -> None:
        """Free the native memory. May be called twice."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            self._rows = None
            self._lib.llama_free(handle)


def open_native(
    stack: contextlib.ExitStack, path: Path, *, repack: bool, mmap: bool, vocab_only: bool = False
) -> NativeModel:
    """Load `path` for as long as `stack` is open, deaf to Ctrl-C meanwhile."""
    with uninterrupted():
        model = NativeModel(path, repack=repack, mmap=mmap, vocab_only=vocab_only)
        stack.callback(model.close)
    return model


def open_context(
    stack: contextlib.ExitStack, model: NativeModel, shape: ContextShape, watch: Watch | None = None
) -> NativeContext:
    """Make a context of `model` for as long as `stack` is open, deaf to Ctrl-C meanwhile."""
    with uninterrupted():
        context = NativeContext(model, shape, watch)
        stack.callback(context.close)
    return context
