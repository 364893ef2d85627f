"""Our decoder against transformers, in float32: the four architectures, the window, prompts in chunks, batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from codellm.loading import find
from codellm.spec import LoadSpec
from codellm.tokenizer import HFTokenizer
from codellm.torch.cache import Cache
from codellm.torch.decoder_engine import DecoderEngine
from codellm.torch.load import plan
from codellm_cpu.convert.storage import to_float32
from support.checkpoints import Arrays, config_of, random_weights, source_of, train_tokenizer
from support.others_logits import transformers_logits

SCALED = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
CASES = {  # architecture, changes of config.json
    "starcoder2": ("starcoder2", {}),
    "starcoder2 without biases": ("starcoder2", {"use_bias": False}),
    "starcoder2 past its window": ("starcoder2", {"sliding_window": 16}),
    "starcoder2 with llama3 rope": ("starcoder2", {"rope_scaling": SCALED | {"original_max_position_embeddings": 64}}),
    "one key-value head": ("starcoder2", {"num_key_value_heads": 1}),
    "qwen2": ("qwen2", {}),
    "qwen2 with linear rope": ("qwen2", {"rope_scaling": {"type": "linear", "factor": 2.0}}),
    "qwen3": ("qwen3", {}),
    "qwen3 with biases": ("qwen3", {"attention_bias": True}),
    "llama": ("llama", {}),
    "llama 3": ("llama", {"rope_scaling": SCALED | {"original_max_position_embeddings": 64}}),
    "yarn": ("qwen2", {"rope_scaling": YARN}),
    "yarn with other bounds": ("qwen2", {"rope_scaling": YARN | {"beta_fast": 4, "beta_slow": 2, "truncate": False}}),
    "yarn with a factor of its own": ("llama", {"rope_scaling": YARN | {"attention_factor": 1.3}}),
    "yarn by deepseek's scales": ("llama", {"rope_scaling": YARN | {"mscale": 0.7, "mscale_all_dim": 0.4}}),
    "yarn in transformers 5's field": ("starcoder2", {"rope_parameters": YARN | {"rope_theta": 900.0}}),
    "yarn that shrinks": ("llama", {"rope_scaling": YARN | {"factor": 0.5}}),
    "both fields": ("llama", {"rope_scaling": YARN, "rope_parameters": {"rope_type": "linear", "factor": 8.0}}),
    "dynamic, not reached": ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
    "every bias": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "heads of their own size": ("llama", {"head_dim": 24}),
    "no groups": ("llama", {"num_key_value_heads": 6}),
}
LENGTH = 60
RTOL = 1e-4
"""Of the greatest logit."""


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_tokenizer("starcoder2", tmp_path_factory.mktemp("tokenizer"))


def engine_of(source, *, slots=1, context=256, chunk=512):
    spec = LoadSpec(model="tiny", dtype="float32", context_length=context, batch_size=slots)
    made = plan(spec, source, torch.device("cpu"), free=1 << 40)
    cache = Cache.allocate(
        made.config, slots=slots, context_length=context, chunk=chunk, dtype=torch.float32, device=made.device
    )
    return DecoderEngine(made.decoder(), cache, vocab_size=made.config.vocab_size, context_length=context, chunk=chunk)


def in_chunks(engine, ids, chunk, slot=0):
    """Logits after every id, [T, V]."""
    with torch.inference_mode():
        parts = [
            engine.all_position_logits(slot, ids[start : start + chunk], start) for start in range(0, len(ids), chunk)
        ]
        return torch.cat(parts).numpy()


def decoded(engine, ids, slot=0):
    """Logits after every id, [T, V], each computed by a step of its own."""
    rows = []
    with torch.inference_mode():
        for position, id in enumerate(ids):
            tokens, positions = [0] * engine.slots, [0] * engine.slots
            tokens[slot], positions[slot] = id, position
            rows.append(engine.decode(torch.tensor(tokens), positions)[slot].numpy())
    return np.array(rows)


def assert_close(ours, expected):
    assert np.abs(ours - expected).max() <= RTOL * np.abs(expected).max()


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_logits_equal_those_of_transformers(case, tied, tokenizer):
    model_type, changes = case
    config = config_of(model_type, 600, tie_word_embeddings=tied, **changes)
    weights = random_weights(config)
    source = source_of(config, tokenizer, Arrays(weights))
    ids = [int(id) for id in np.random.default_rng(1).integers(0, 600, LENGTH)]
    expected = transformers_logits(config, weights, ids)

    assert expected.std() > 0.3  # logits that say something
    assert_close(in_chunks(engine_of(source), ids, LENGTH), expected)
    assert_close(in_chunks(engine_of(source, chunk=24), ids, 24), expected)  # the ring of a window wraps within a chunk
    assert_close(decoded(engine_of(source, slots=3, chunk=1), ids, slot=1), expected)
    engine = engine_of(source)
    with torch.inference_mode():
        assert_close(engine.prefill(0, ids, 0).numpy(), expected[-1])


def test_heads_of_qwen3_that_no_field_sizes_are_as_large_as_transformers_makes_them(tokenizer):
    config = config_of("qwen3", 600)
    del config["head_dim"]
    weights, ids = random_weights(config), [5, 6, 7]
    engine = engine_of(source_of(config, tokenizer, Arrays(weights)))
    assert_close(in_chunks(engine, ids, 3), transformers_logits(config, weights, ids))


def test_logits_of_the_bundled_model_equal_those_of_transformers():
    source = find("codellm-demo").fetch()
    weights = {info.name: np.array(to_float32(source.tensors.read(info.name), info.dtype)) for info in source.tensors}
    text = "def add(a, b):\n    return a + b\n\n\nclass Stack:\n    def push(self, item):\n" * 4
    ids = HFTokenizer(source.tokenizer, source.tokenizer_config).encode(text)
    expected = transformers_logits(dict(source.config), weights, ids)
    assert_close(in_chunks(engine_of(source), ids, 64), expected)
    assert_close(decoded(engine_of(source, slots=2), ids, slot=1), expected)


def test_a_window_keeps_only_the_cells_it_needs(tokenizer):
    config = config_of("starcoder2", 600, sliding_window=16)
    engine = engine_of(source_of(config, tokenizer), context=256, chunk=24)
    assert engine.cache.keys[0].shape == (1, 16 + 24 - 1, 2, 16)
