"""Every architecture that converts computes what transformers computes: float32 GGUF against float32 safetensors."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import codellm
from codellm.errors import CodellmError
from codellm.loading import find
from codellm.sources.architectures import ARCHITECTURES
from codellm.tokenizer import HFTokenizer
from codellm_cpu.convert import convert
from codellm_cpu.convert.numpy_model import EXACT, NumpyModel
from codellm_cpu.convert.probes import CODE
from codellm_cpu.convert.storage import to_float32
from codellm_cpu.convert.writer import read_config
from support.checkpoints import Arrays, config_of, random_weights, save_safetensors, source_of, train_tokenizer
from support.others_logits import native_logits, transformers_logits

pytest.importorskip("torch")
pytest.importorskip("transformers")

ATOL = 1e-3  # half-precision GELU of StarCoder2; the others are below a tenth of it

SCALED = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
CASES = {  # architecture, family of the tokenizer, changes of config.json
    "starcoder2": ("starcoder2", "starcoder2", {}),
    "starcoder2 without biases": ("starcoder2", "starcoder2", {"use_bias": False}),
    "one key-value head": ("starcoder2", "starcoder2", {"num_key_value_heads": 1}),
    "window not reached": ("starcoder2", "starcoder2", {"sliding_window": 128}),
    "qwen2": ("qwen2", "qwen2", {}),
    "qwen2 with linear rope": ("qwen2", "qwen2", {"rope_scaling": {"type": "linear", "factor": 2.0}}),
    "qwen3": ("qwen3", "qwen2", {}),
    "qwen3 with yarn": ("qwen3", "qwen2", {"rope_scaling": YARN}),
    "codellama": ("llama", "codellama", {}),
    "deepseek-coder": ("llama", "deepseek", {"rope_scaling": {"type": "linear", "factor": 4.0}}),
    "llama 3": ("llama", "llama3", {"rope_scaling": SCALED | {"original_max_position_embeddings": 64}}),
    "qwen2 with yarn": ("qwen2", "qwen2", {"rope_scaling": YARN}),
    "starcoder2 with yarn": ("starcoder2", "starcoder2", {"rope_scaling": YARN}),
    "llama with yarn": ("llama", "llama3", {"rope_scaling": YARN | {"attention_factor": 1.3}}),
    "yarn by deepseek's scales": ("llama", "llama3", {"rope_scaling": YARN | {"mscale": 0.7, "mscale_all_dim": 0.4}}),
    "yarn of short heads": ("qwen2", "qwen2", {"rope_scaling": YARN, "num_attention_heads": 12}),
    "yarn beside which the context stands": (
        "llama",
        "llama3",
        {"rope_scaling": {"type": "yarn", "factor": 8.0}, "original_max_position_embeddings": 32},
    ),
    "yarn of the model's own context": (
        "qwen2",
        "qwen2",
        {"rope_scaling": {"type": "yarn", "factor": 4.0}, "max_position_embeddings": 32},
    ),
    "every bias": ("llama", "llama3", {"attention_bias": True, "mlp_bias": True}),
    "heads of their own size": ("llama", "llama3", {"head_dim": 24}),
    "no groups": ("llama", "llama3", {"num_key_value_heads": 6}),
}


def test_every_architecture_is_compared():
    lacking = ARCHITECTURES.keys() - {model_type for model_type, _, _ in CASES.values()}
    assert not lacking, f"CASES lacks {', '.join(lacking)}: see CONTRIBUTING.md, an architecture"


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_logits_and_greedy_tokens_equal_those_of_transformers(tmp_path, case, tied):
    model_type, family, changes = case
    tokenizer = train_tokenizer(family, tmp_path)
    config = config_of(model_type, 600, tie_word_embeddings=tied, **changes)
    weights = random_weights(config)
    source = source_of(config, tokenizer)
    convert(source, "f32", tmp_path / "tiny.gguf")
    ids = [int(id) for id in np.random.default_rng(1).integers(0, 600, 100)]

    ours, expected = native_logits(tmp_path / "tiny.gguf", ids), transformers_logits(config, weights, ids)

    assert expected.std() > 0.3  # logits that say something
    np.testing.assert_allclose(ours, expected, rtol=0, atol=ATOL)
    chosen = expected[np.arange(len(ids)), ours.argmax(axis=1)]
    assert (expected.max(axis=1) - chosen).max() <= 2 * ATOL  # the greedy token, but for ties


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_reference_that_conversions_are_held_against_equals_transformers(tmp_path, case, tied):
    model_type, family, changes = case
    config = config_of(model_type, 600, tie_word_embeddings=tied, **changes)
    weights = random_weights(config)
    source = source_of(config, train_tokenizer(family, tmp_path))
    ids = [int(id) for id in np.random.default_rng(1).integers(0, 600, 100)]

    exact, rounded = NumpyModel(source.tensors, read_config(source)[1], (EXACT, 8)).logits(ids)

    expected = transformers_logits(config, weights, ids)
    np.testing.assert_allclose(exact, expected, rtol=0, atol=1e-5)
    assert 1e-4 < np.abs(rounded - expected).max() < 0.05


def test_the_reference_of_the_bundled_model_equals_transformers():
    source = find("codellm-demo").fetch()
    weights = {info.name: np.array(to_float32(source.tensors.read(info.name), info.dtype)) for info in source.tensors}
    ids = HFTokenizer(source.tokenizer, source.tokenizer_config).encode(CODE)
    [logits] = NumpyModel(source.tensors, read_config(source)[1]).logits(ids)
    np.testing.assert_allclose(logits, transformers_logits(dict(source.config), weights, ids), rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Write a checkpoint of a configuration; its folder and weights."""
    tokenizer = train_tokenizer("llama3", tmp_path_factory.mktemp("tokenizer"))

    def checkpoint(config):
        folder, weights = tmp_path_factory.mktemp("checkpoint"), random_weights(config)
        save_safetensors(folder / "model.safetensors", Arrays(weights), list(weights))
        (folder / "config.json").write_text(json.dumps(config))
        shutil.copyfile(tokenizer[0], folder / "tokenizer.json")
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer[1]))
        return folder, weights

    return checkpoint


STRETCHED = {
    "yarn": {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}},
    "linear": {"rope_scaling": {"type": "linear", "factor": 4.0}, "max_position_embeddings": 256},
    "llama3": {"rope_scaling": SCALED | {"original_max_position_embeddings": 64}, "max_position_embeddings": 256},
}


@pytest.mark.parametrize("scaling", STRETCHED.values(), ids=STRETCHED)
@pytest.mark.parametrize("backend", ["torch-cpu", "transformers-cpu", "llama-cpp"])
def test_every_backend_computes_a_stretched_context_as_transformers_does(tmp_path, checkpoint, backend, scaling):
    """Through the whole road: the context is the stretched one, and its last token is as far as it goes."""
    config = config_of("llama", 600, **{"max_position_embeddings": 64} | scaling)
    path, weights = checkpoint(config)
    ids = [int(id) for id in np.random.default_rng(1).integers(0, 570, 256)]
    expected = transformers_logits(config, weights, ids)[-1]
    way = {"dtype": "float32"} if backend != "llama-cpp" else {"scheme": "f32", "threads": 1}
    with codellm.load(str(path), backend=backend, context_length=256, **way) as model:
        ours = model.logits(ids)
        np.testing.assert_allclose(ours, expected[: len(ours)], rtol=0, atol=0.02)
        assert model.info.context_length == 256
    with pytest.raises(CodellmError, match=r"takes a context_length of at most (the )?256 tokens"):
        codellm.load(str(path), backend=backend, context_length=512, **way)


@pytest.mark.parametrize("backend", ["torch-cpu", "transformers-cpu"])
def test_dynamic_rope_is_taken_up_to_where_it_would_scale(checkpoint, backend):
    config = config_of("llama", 600, rope_scaling={"type": "dynamic", "factor": 4.0}, max_position_embeddings=64)
    path, weights = checkpoint(config)
    ids = [int(id) for id in np.random.default_rng(1).integers(0, 570, 64)]
    with codellm.load(str(path), backend=backend, dtype="float32") as model:
        ours = model.logits(ids)
    expected = transformers_logits(config, weights, ids)[-1]
    np.testing.assert_allclose(ours, expected[: len(ours)], rtol=0, atol=1e-3)
    with pytest.raises(CodellmError, match="at most the 64 tokens"):
        codellm.load(str(path), backend=backend, context_length=65)
