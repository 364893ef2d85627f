"""Logits as others compute them, for tests that look at a model rather than at our backends."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def native_logits(path: Path, ids: list[int]) -> np.ndarray:
    """Logits [T, V] of a GGUF file, by llama.cpp's bare functions.

    Keys and values are float32, so that nothing but the file is measured.
    """
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


def transformers_logits(
    config: dict[str, Any],
    weights: dict[str, np.ndarray],
    ids: list[int],
    activation: Callable[[Any], Any] | None = None,
) -> np.ndarray:
    """Logits [T, V] of transformers in float32; `activation` replaces that of the feed-forward layers."""
    import torch
    import transformers

    model_config = transformers.AutoConfig.for_model(**config, attn_implementation="eager")
    model = transformers.AutoModelForCausalLM.from_config(model_config, dtype=torch.float32).eval()
    left = model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()}, strict=False)
    assert not left.unexpected_keys
    assert set(left.missing_keys) <= {"lm_head.weight"}
    model.tie_weights()
    if activation is not None:
        for layer in model.model.layers:
            layer.mlp.act.forward = activation
    with torch.no_grad():
        logits: np.ndarray = model(torch.tensor([ids])).logits[0].numpy()
        return logits
