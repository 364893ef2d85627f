"""StarCoder2 in GGUF against transformers: how much a fault would show, and where llama.cpp computes otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import codellm
from codellm.sources.safetensors import SafetensorsFiles
from codellm.tokenizer import HFTokenizer
from codellm_cpu.convert import convert
from codellm_cpu.convert.storage import to_float32
from support.checkpoints import Arrays, config_of, random_weights, source_of
from support.others_logits import native_logits, transformers_logits

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

DEMO = Path(codellm.__file__).parent / "data" / "codellm-demo"

TOKENIZER = (DEMO / "tokenizer.json", json.loads((DEMO / "tokenizer_config.json").read_text()))
TINY = config_of("starcoder2", 4100, num_hidden_layers=3, tie_word_embeddings=True)


def table_gelu(x):
    """GELU as llama.cpp looks it up: argument and value rounded to half precision within ±10 (ggml-cpu/vec.h)."""
    rounded = torch.nn.functional.gelu(x.half().float(), approximate="tanh").half().float()
    return torch.where(x <= -10, torch.zeros_like(x), torch.where(x >= 10, x, rounded))


FAULTS = {
    "rotary base": lambda weights, config: config.update(rope_theta=6000.0),
    "norm epsilon": lambda weights, config: config.update(norm_epsilon=0.1),
    "norms swapped": lambda weights, config: swap(weights, "input_layernorm.weight", "post_attention_layernorm.weight"),
    "keys' bias lost": lambda weights, config: weights["model.layers.0.self_attn.k_proj.bias"].fill(0),
    "halves of a head swapped": lambda weights, config: rotate(weights["model.layers.0.self_attn.q_proj.weight"]),
}


def swap(weights, one, other):
    for layer in range(TINY["num_hidden_layers"]):
        a, b = f"model.layers.{layer}.{one}", f"model.layers.{layer}.{other}"
        weights[a], weights[b] = weights[b], weights[a]


def rotate(matrix):
    matrix[:] = np.roll(matrix, 8, axis=0)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_the_tolerance_would_notice_a_fault_of_conversion(fault):
    config = dict(TINY)
    weights = random_weights(config)
    ids = list(range(100, 200))
    right = transformers_logits(config, weights, ids)
    fault(weights, config)
    assert np.abs(right - transformers_logits(config, weights, ids)).max() > 5e-3


def test_past_the_sliding_window_llama_cpp_attends_to_more_than_transformers(tmp_path):
    """A fact of llama.cpp's StarCoder2, not of the file: the day this fails, the notes on long contexts must change."""
    config = TINY | {"sliding_window": 16}
    weights = random_weights(config)
    ids = list(range(60))
    path = tmp_path / "tiny.gguf"
    convert(source_of(config, TOKENIZER, Arrays(weights)), "f32", path)

    difference = np.abs(native_logits(path, ids) - transformers_logits(config, weights, ids)).max(axis=1)  # [T]

    assert difference[:16].max() < 1e-3
    assert difference[16:].max() > 5e-3


def test_logits_of_the_bundled_model_equal_those_of_transformers(tmp_path):
    """Within 1e-3 of their norm (2.2e-4 measured). Single logits, of standard deviation 4.2, differ by up to 6.7e-3:
    llama.cpp rounds every GELU to half precision, which moves transformers' own logits by as much (7.1e-3)."""
    config = json.loads((DEMO / "config.json").read_text())
    tensors = SafetensorsFiles([DEMO / "model.safetensors"])
    weights = {
        info.name: np.array(to_float32(tensors.read(info.name), info.dtype)).reshape(info.shape) for info in tensors
    }
    text = 'def add(a, b):\n    """Return the sum of two numbers."""\n    return a + b\n\n\nclass Stack:\n'
    ids = HFTokenizer(DEMO / "tokenizer.json", {}).encode(text)
    path = tmp_path / "demo.gguf"
    convert(source_of(config, TOKENIZER, tensors), "f32", path)

    ours = native_logits(path, ids)
    plain, rounded = transformers_logits(config, weights, ids), transformers_logits(config, weights, ids, table_gelu)

    assert np.linalg.norm(ours - plain) < 1e-3 * np.linalg.norm(plain)
    assert np.linalg.norm(ours - rounded) < np.linalg.norm(ours - plain)
    assert (ours.argmax(axis=1) == plain.argmax(axis=1)).all()
