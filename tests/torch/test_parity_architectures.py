"""Every architecture that converts computes what transformers computes: float32 GGUF against float32 safetensors."""

from __future__ import annotations

import numpy as np
import pytest

from codellm_cpu.convert import convert
from support.checkpoints import config_of, random_weights, source_of, train_tokenizer
from support.native import native_logits

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

ATOL = 1e-3  # half-precision GELU of StarCoder2; the others are below a tenth of it

SCALED = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
CASES = {  # architecture, family of the tokenizer, changes of config.json
    "starcoder2": ("starcoder2", "starcoder2", {}),
    "qwen2": ("qwen2", "qwen2", {}),
    "qwen2 with linear rope": ("qwen2", "qwen2", {"rope_scaling": {"type": "linear", "factor": 2.0}}),
    "codellama": ("llama", "codellama", {}),
    "deepseek-coder": ("llama", "deepseek", {"rope_scaling": {"type": "linear", "factor": 4.0}}),
    "llama 3": ("llama", "llama3", {"rope_scaling": SCALED | {"original_max_position_embeddings": 64}}),
    "every bias": ("llama", "llama3", {"attention_bias": True, "mlp_bias": True}),
    "heads of their own size": ("llama", "llama3", {"head_dim": 24}),
    "no groups": ("llama", "llama3", {"num_key_value_heads": 6}),
}


def theirs(config, weights, ids):
    """transformers' logits [T, V] in float32."""
    model_config = transformers.AutoConfig.for_model(**config, attn_implementation="eager")
    model = transformers.AutoModelForCausalLM.from_config(model_config).eval()
    left = model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()}, strict=False)
    assert not left.unexpected_keys
    assert set(left.missing_keys) <= {"lm_head.weight"}
    model.tie_weights()
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


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

    ours, expected = native_logits(tmp_path / "tiny.gguf", ids), theirs(config, weights, ids)

    assert expected.std() > 0.3  # logits that say something
    np.testing.assert_allclose(ours, expected, rtol=0, atol=ATOL)
    chosen = expected[np.arange(len(ids)), ours.argmax(axis=1)]
    assert (expected.max(axis=1) - chosen).max() <= 2 * ATOL  # the greedy token, but for ties
