"""A model over two GPUs computes what it does on one."""

import gc
import importlib.util

import numpy as np
import pytest
import torch

import codellm
from codellm.errors import NotEnoughMemoryError
from codellm.plugins.registry import registry
from codellm.spec import LoadSpec
from support.checkpoints import Arrays, config_of, random_weights, source_of, train_tokenizer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs"),
]

FLASH = pytest.param(
    "flash_attention_2",
    marks=pytest.mark.skipif(importlib.util.find_spec("flash_attn") is None, reason="flash-attn is not installed"),
)
PARAMS = codellm.SamplingParams(max_tokens=24, ignore_eos=True)
PROMPTS = [[1, 2, 3], list(range(5, 75)), [9] * 33]


def tokens(model):
    return [result.token_ids for result in model.generate_batch(PROMPTS, PARAMS)]


@pytest.mark.parametrize("model_type", ["starcoder2", "llama", "qwen2", "qwen3"])
def test_a_tiny_model_with_a_cache_of_two_gpus_generates_as_on_one(model_type, tmp_path):
    config = config_of(model_type, 600, max_position_embeddings=200_000)
    source = source_of(config, train_tokenizer("starcoder2", tmp_path), Arrays(random_weights(config)))
    backend = registry().backend("transformers-cuda")
    fields = {"model": "tiny", "dtype": "float32", "batch_size": 8}
    with backend.load(LoadSpec(**fields, context_length=256), source) as model:
        assert len(model.engine.devices) == 1
        expected = tokens(model)
    options = {"memory_gib": "0.8"}  # a layer's cache takes 0.4 GB, of Qwen3 0.6
    with backend.load(LoadSpec(**fields, context_length=200_000, options=options), source) as model:
        assert [device.index for device in model.engine.devices] == [0, 1]
        assert tokens(model) == expected


@pytest.mark.parametrize("attention", ["sdpa", FLASH])
def test_a_model_larger_than_one_gpu_is_spread(attention):
    fields = {"backend": "transformers-cuda", "attn_implementation": attention, "batch_size": 2, "context_length": 512}
    with codellm.load("dummy:starcoder2-3b", **fields) as model:
        expected, ids = tokens(model), list(range(1, 400))
        logits, scores = model.logits(ids), model.score([ids])
    gc.collect()
    with codellm.load("dummy:starcoder2-3b", options={"memory_gib": "5"}, **fields) as model:
        assert [device.index for device in model.engine.devices] == [0, 1]
        assert tokens(model) == expected
        np.testing.assert_allclose(model.logits(ids), logits, rtol=0, atol=0.02 * np.abs(logits).max())
        np.testing.assert_allclose(model.score([ids])[0], scores[0], rtol=0.02)
        for number in range(2):
            assert 1 << 30 < torch.cuda.memory_allocated(number) < 5 << 30
        assert model.memory().device > 6_000_000_000
    assert sum(map(torch.cuda.memory_allocated, range(2))) < 1 << 28


def test_what_no_two_hold_is_told():
    with pytest.raises(NotEnoughMemoryError, match=r"starcoder2-7b in bfloat16 needs .* GB of memory over \d GPUs"):
        codellm.load("dummy:starcoder2-7b", backend="transformers-cuda", options={"memory_gib": "1.5"})
