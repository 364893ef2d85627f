"""llama.cpp's bare functions, for tests that look at a file rather than at our backend."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path

import numpy as np


def native_logits(path: Path, ids: list[int]) -> np.ndarray:
    """Logits [T, V] of a GGUF file, with float32 keys and values, so that nothing but the file is measured."""
    import llama_cpp.llama_cpp as lib

    silent = lib.llama_log_callback(lambda *_: None)
    lib.llama_log_set(silent, ctypes.c_void_p(0))
    lib.llama_backend_init()
    with contextlib.ExitStack() as stack:
        model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
        assert model
        stack.callback(lib.llama_model_free, model)
        params = lib.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = len(ids)
        params.n_threads = params.n_threads_batch = 1
        params.type_k = params.type_v = 0  # F32
        params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        context = lib.llama_init_from_model(model, params)
        assert context
        stack.callback(lib.llama_free, context)
        batch = lib.llama_batch_init(len(ids), 0, 1)
        stack.callback(lib.llama_batch_free, batch)
        batch.n_tokens = len(ids)
        for place, id in enumerate(ids):
            batch.token[place], batch.pos[place] = id, place
            batch.n_seq_id[place], batch.seq_id[place][0], batch.logits[place] = 1, 0, 1
        assert lib.llama_decode(context, batch) == 0
        size = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
        rows = np.ctypeslib.as_array(lib.llama_get_logits(context), shape=(len(ids), size)).copy()
        lib.llama_log_set(lib.llama_log_callback(0), ctypes.c_void_p(0))
        return rows
