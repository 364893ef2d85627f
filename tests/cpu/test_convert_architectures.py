"""Llama, Qwen2 and Qwen3 in GGUF: what stands in the file, and what is refused by name."""

from __future__ import annotations

import contextlib
import json

import gguf
import numpy as np
import pytest
import tokenizers
from tokenizers import pre_tokenizers

from codellm.errors import ModelFileError
from codellm.sources import TensorInfo, Tensors, architectures
from codellm.sources.rope import Rope
from codellm.sources.safetensors import SafetensorsFiles
from codellm_cpu.convert import convert, storage, writer
from codellm_cpu.convert.vocabulary import read_vocabulary
from codellm_cpu.convert.writer import permute
from codellm_cpu.llama.check import FAMILIES
from codellm_cpu.llama.library import open_native
from support.checkpoints import CONFIGS, Arrays, config_of, random_weights, save_safetensors, source_of, train_tokenizer

LINEAR = {"type": "linear", "factor": 4.0}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 32}
LLAMA3 |= {"original_max_position_embeddings": 64}


class Stored(Tensors):
    """Float32 weights as another type has them."""

    def __init__(self, arrays, dtype):
        self.arrays, self.dtype = arrays, dtype

    def infos(self):
        return [TensorInfo(name, array.shape, self.dtype) for name, array in self.arrays.items()]

    def read(self, name):
        array = self.arrays[name]
        return storage.to_bfloat16(array) if self.dtype == "bfloat16" else array.astype(self.dtype)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_tokenizer("llama3", tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def converted(tmp_path, tokenizer):
    """Convert a tiny model, see that llama.cpp loads it, and give its keys and its float32 weights."""

    def converted(model_type, scheme="f32", tensors=None, **changes):
        config = config_of(model_type, 600, **changes)
        path = tmp_path / "tiny.gguf"
        convert(source_of(config, tokenizer, tensors), scheme, path)
        with contextlib.ExitStack() as stack:
            native = open_native(stack, path, repack=False, mmap=True)
            reader = gguf.GGUFReader(path)
            assert native.parameters == sum(int(tensor.n_elements) for tensor in reader.tensors)
        keys = {key: field.contents() for key, field in reader.fields.items()}
        weights = {
            tensor.name: (tensor.tensor_type.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type))
            for tensor in reader.tensors
        }
        return keys, weights

    return converted


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("codellm_cpu/convert/writer.py", writer.ARCHITECTURES),
        ("codellm_cpu/llama/check.py", FAMILIES),
        ("tests/support/checkpoints.py", CONFIGS),
    ],
    ids=["converted", "checked", "made in tests"],
)
def test_an_architecture_is_known_in_every_place(where, names):
    lacking, foreign = (
        architectures.ARCHITECTURES.keys() - names.keys(),
        names.keys() - architectures.ARCHITECTURES.keys(),
    )
    assert not lacking, f"{where} lacks {', '.join(lacking)}: see CONTRIBUTING.md, an architecture"
    assert not foreign, f"codellm/sources/architectures.py lacks {', '.join(foreign)}, which {where} has"


@pytest.mark.parametrize("model_type", ["llama", "qwen2"])
def test_header_carries_the_model(converted, model_type):
    keys, _ = converted(model_type, rope_scaling=LINEAR)
    expected = {
        "context_length": 256,
        "embedding_length": 96,
        "block_count": 2,
        "feed_forward_length": 160,
        "attention.head_count": 6,
        "attention.head_count_kv": 2,
        "rope.dimension_count": 16,
        "rope.freq_base": 5000.0,
        "rope.scaling.type": "linear",
        "rope.scaling.factor": 4.0,
        "vocab_size": 600,
    }
    assert keys["general.architecture"] == model_type
    assert {key: keys[f"{model_type}.{key}"] for key in expected} == expected
    assert keys[f"{model_type}.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-4)
    assert f"{model_type}.attention.key_length" not in keys


def test_heads_of_their_own_size_have_keys(converted):
    keys, weights = converted("llama", head_dim=24)
    assert (keys["llama.attention.key_length"], keys["llama.attention.value_length"]) == (24, 24)
    assert keys["llama.rope.dimension_count"] == 24
    assert weights["blk.0.attn_q.weight"][1].shape == (144, 96)


def test_the_heads_of_qwen3_have_norms(converted):
    arrays = random_weights(config_of("qwen3", 600))
    keys, weights = converted("qwen3", tensors=Arrays(arrays))
    assert (keys["general.architecture"], keys["qwen3.attention.key_length"]) == ("qwen3", 24)
    assert len(weights) == len(arrays)
    for layer in range(2):
        for part in ("q_norm", "k_norm"):
            _, values = weights[f"blk.{layer}.attn_{part}.weight"]
            np.testing.assert_array_equal(values, arrays[f"model.layers.{layer}.self_attn.{part}.weight"])


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("scheme", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_weight_of_qwen2_arrives_rounded_once(converted, dtype, scheme, tied):
    arrays = random_weights(config_of("qwen2", 600, tie_word_embeddings=tied))
    tensors = Stored(arrays, dtype)
    _, got = converted("qwen2", scheme, tensors, tie_word_embeddings=tied)
    assert len(got) == len(arrays)
    assert ("output.weight" in got) is not tied
    pairs = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
        "blk.1.attn_norm.weight": "model.layers.1.input_layernorm.weight",
        "blk.1.attn_q.weight": "model.layers.1.self_attn.q_proj.weight",
        "blk.0.attn_q.bias": "model.layers.0.self_attn.q_proj.bias",
        "blk.0.attn_k.weight": "model.layers.0.self_attn.k_proj.weight",
        "blk.0.attn_v.bias": "model.layers.0.self_attn.v_proj.bias",
        "blk.1.attn_output.weight": "model.layers.1.self_attn.o_proj.weight",
        "blk.1.ffn_norm.weight": "model.layers.1.post_attention_layernorm.weight",
        "blk.0.ffn_gate.weight": "model.layers.0.mlp.gate_proj.weight",
        "blk.0.ffn_up.weight": "model.layers.0.mlp.up_proj.weight",
        "blk.1.ffn_down.weight": "model.layers.1.mlp.down_proj.weight",
    }
    for name, theirs in pairs.items():
        kind, values = got[name]
        exact = storage.to_float32(tensors.read(theirs), dtype)
        assert kind == ("F32" if exact.ndim == 1 else scheme.upper())
        precision = {"F32": 0, "F16": 2**-11, "BF16": 2**-8}[kind]
        np.testing.assert_allclose(values, exact, rtol=precision, atol=2**-25 if kind == "F16" else 0)


def test_queries_and_keys_of_llama_are_put_in_the_order_of_its_rope(converted):
    arrays = random_weights(config_of("llama", 600, attention_bias=True, mlp_bias=True))
    _, got = converted("llama", tensors=Arrays(arrays), attention_bias=True, mlp_bias=True)
    for name, theirs, heads in (("attn_q", "q_proj", 6), ("attn_k", "k_proj", 2)):
        for part in ("weight", "bias"):
            halves = arrays[f"model.layers.1.self_attn.{theirs}.{part}"].reshape(heads, 16, -1)
            written = got[f"blk.1.{name}.{part}"][1].reshape(heads, 16, -1)
            np.testing.assert_array_equal(written[:, 0::2], halves[:, :8])
            np.testing.assert_array_equal(written[:, 1::2], halves[:, 8:])
    for name, theirs in (
        ("attn_v", "self_attn.v_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("ffn_up", "mlp.up_proj"),
    ):
        np.testing.assert_array_equal(got[f"blk.1.{name}.bias"][1], arrays[f"model.layers.1.{theirs}.bias"])


def test_the_rows_of_a_bfloat16_head_are_moved_as_they_are():
    rows = np.arange(8, dtype=np.uint16).reshape(8, 1)
    assert permute(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert permute(rows, 1)[:, 0].tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


def test_llama_3_scaling_is_a_tensor(converted):
    keys, weights = converted("llama", rope_scaling=LLAMA3)
    kind, factors = weights["rope_freqs.weight"]
    assert (kind, factors.shape) == ("F32", (8,))
    assert factors[0] == 1.0  # a fast wave stays
    assert factors[-1] == 8.0  # a slow one is stretched
    assert (np.diff(factors) >= 0).all()
    assert "llama.rope.scaling.type" not in keys


def test_divisors_of_default_and_linear_rope():
    assert Rope(theta=1e4).freq_factors(8).tolist() == [1, 1, 1, 1]
    assert Rope(theta=1e4, rope_type="linear", factor=4.0).freq_factors(8).tolist() == [4, 4, 4, 4]


@pytest.mark.parametrize("model_type", ["starcoder2", "llama", "qwen2", "qwen3"])
def test_yarn_has_keys_and_its_context_is_the_stretched_one(converted, model_type):
    keys, weights = converted(model_type, rope_scaling=YARN | {"attention_factor": 1.5})
    scaling = {key.split("scaling.")[1]: value for key, value in keys.items() if "rope.scaling" in key}
    assert scaling.pop("attn_factor") == pytest.approx(1.5 / (0.1 * np.log(16) + 1))  # llama.cpp multiplies by the rest
    assert scaling == {"type": "yarn", "factor": 16.0, "original_context_length": 32}
    assert keys[f"{model_type}.context_length"] == 512
    assert "rope_freqs.weight" not in weights


def test_a_first_llama_without_groups_converts(converted):
    keys, _ = converted("llama", num_key_value_heads=None)
    assert keys["llama.attention.head_count_kv"] == 6


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("model_type", ["llama", "qwen2"])
def test_sharded_files_convert_as_the_weights_they_hold(tmp_path, tokenizer, model_type, dtype):
    config = config_of(model_type, 600)
    tensors = Stored(random_weights(config), dtype)
    names = [info.name for info in tensors]
    shards = [save_safetensors(tmp_path / f"model-{part}.safetensors", tensors, names[part::3]) for part in range(3)]
    convert(source_of(config, tokenizer, SafetensorsFiles(shards)), "bf16", tmp_path / "sharded.gguf")
    convert(source_of(config, tokenizer, tensors), "bf16", tmp_path / "whole.gguf")
    assert (tmp_path / "sharded.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()


REFUSED = {
    "activation": ("llama", {"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported; known: silu"),
    "dynamic rope": ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope type 'dynamic' is not"),
    "yarn's fast bound": ("qwen2", {"rope_scaling": YARN | {"beta_fast": 16}}, "yarn with beta_fast 16.0 cannot be co"),
    "yarn's slow bound": ("llama", {"rope_scaling": YARN | {"beta_slow": 2}}, "yarn with beta_slow 2.0 cannot be conv"),
    "yarn's loose bounds": ("llama", {"rope_scaling": YARN | {"truncate": False}}, "yarn with truncate False cannot"),
    "half a token": (
        "qwen2",
        {"rope_scaling": YARN | {"original_max_position_embeddings": 32.5}},
        "yarn with original_max_position_embeddings 32.5 cannot be converted to GGUF, llama.cpp computes with 32;",
    ),
    "llama 3's rope": (
        "qwen2",
        {"rope_scaling": LLAMA3},
        "'llama3' is not supported; known: default, linear",
    ),
    "rope without factor": ("llama", {"rope_scaling": {"type": "linear"}}, "factor is None, not a positive number"),
    "blend": ("llama", {"rope_scaling": LLAMA3 | {"low_freq_factor": 4.0}}, "low_freq_factor is not below"),
    "part of a head": ("llama", {"partial_rotary_factor": 0.5}, r"partial_rotary_factor 0\.5 is not supported"),
    "window": ("qwen2", {"use_sliding_window": True}, "use_sliding_window True is not supported"),
    "layers with windows": ("qwen2", {"layer_types": ["sliding_attention"]}, "layer_types is supported only"),
    "window of qwen3": ("qwen3", {"use_sliding_window": True}, "use_sliding_window True is not supported"),
    "biases of qwen3": ("qwen3", {"attention_bias": True}, "attention_bias cannot be converted to GGUF"),
    "layers of qwen3 with windows": ("qwen3", {"layer_types": ["sliding_attention"]}, "layer_types is supported only"),
    "multimodal rope": ("qwen2", {"use_mrope": True}, "use_mrope True"),
    "head of qwen2": ("qwen2", {"head_dim": 32}, "head_dim 32 is not hidden_size / num_attention_heads"),
    "odd head": ("llama", {"head_dim": 15}, "heads of 15 values cannot be rotated in pairs"),
    "epsilon": ("llama", {"rms_norm_eps": 0}, "rms_norm_eps is 0, not a positive number"),
    "heads": ("qwen2", {"num_key_value_heads": 4}, "6 heads, 4 key-value heads do not divide"),
    "no groups in qwen2": ("qwen2", {"num_key_value_heads": None}, "num_key_value_heads is None"),
}


@pytest.mark.parametrize(("model_type", "changes", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_llama_cpp_would_compute_otherwise_is_refused(tmp_path, tokenizer, model_type, changes, message):
    source = source_of(config_of(model_type, 600, **changes), tokenizer, Arrays({}))
    with pytest.raises(ModelFileError, match=f"configuration of tiny: .*{message}"):
        convert(source, "f32", tmp_path / "tiny.gguf")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bias", ["self_attn.o_proj.bias", "mlp.up_proj.bias"])
def test_a_bias_that_the_architecture_does_not_know_is_refused(tmp_path, tokenizer, bias):
    config = config_of("qwen2", 600)
    weights = random_weights(config) | {f"model.layers.0.{bias}": np.zeros(96, np.float32)}
    with pytest.raises(ModelFileError, match=f"'model.layers.0.{bias}' not known in qwen2"):
        convert(source_of(config, tokenizer, Arrays(weights)), "f32", tmp_path / "tiny.gguf")


def model(**changes):
    return lambda data: data["model"].update(changes)


def without_last_merge(data):
    """The pairs of a token are listed together: leave one of several out."""
    merges = [tuple(pair) for pair in data["model"]["merges"]]
    made = ["".join(pair) for pair in merges]
    merges.pop(next(place for place, token in enumerate(made) if made.count(token) > 1))
    data["model"]["merges"] = merges


def torn_merges(data):
    merges = [tuple(pair) for pair in data["model"]["merges"]]
    made = ["".join(pair) for pair in merges]
    merges.append(merges.pop(next(place for place, token in enumerate(made) if made.count(token) > 1)))
    data["model"]["merges"] = merges


def without_byte(data):
    data["model"]["vocab"]["byte"] = data["model"]["vocab"].pop("<0x41>")


def metaspace(data):
    data["normalizer"] = None
    data["pre_tokenizer"] = json.loads(pre_tokenizers.Metaspace().__getstate__())


CHARACTERS = {
    "metaspace": (metaspace, r"normalizer and pre-tokenizer \(Metaspace\) cannot be converted; supported: Prepend"),
    "other normalizer": (lambda data: data.update(normalizer={"type": "NFKC"}), r"\(NFKC\) cannot be converted"),
    "a pair not listed": (without_last_merge, "make a token but are no merge, which scores cannot say"),
    "pairs of one token apart": (torn_merges, "stand apart, which scores cannot say"),
    "no byte": (without_byte, "byte_fallback without a token <0x41>"),
    "merge of nothing": (model(merges=[["a", "<nothing>"]]), "merge 'a <nothing>' is not of three tokens"),
}


@pytest.mark.parametrize(("change", "message"), CHARACTERS.values(), ids=CHARACTERS.keys())
def test_vocabularies_of_characters_that_scores_cannot_express_are_refused(tmp_path, change, message):
    path, names = train_tokenizer("codellama", tmp_path)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(ModelFileError, match=message):
        read_vocabulary(path, names, {}, 600)


def test_a_vocabulary_of_characters_has_scores_and_kinds(tmp_path):
    path, names = train_tokenizer("codellama", tmp_path)
    convert(source_of(config_of("llama", 600), (path, names)), "f32", tmp_path / "tiny.gguf")
    fields = gguf.GGUFReader(tmp_path / "tiny.gguf").fields
    keys = {key.removeprefix("tokenizer.ggml."): field.contents() for key, field in fields.items()}
    ids = tokenizers.Tokenizer.from_file(str(path)).get_vocab()
    assert (keys["model"], keys["pre"], keys["add_space_prefix"], keys["add_bos_token"]) == (
        "llama",
        "default",
        True,
        True,
    )
    assert "merges" not in keys
    kinds, kind = keys["token_type"], gguf.TokenType
    assert [kinds[ids[token]] for token in ("<unk>", "<s>", "<0x0A>", "▁<PRE>", "a")] == [
        kind.UNKNOWN,
        kind.CONTROL,
        kind.BYTE,
        kind.CONTROL,
        kind.NORMAL,
    ]
    assert kinds[599] == kind.UNUSED
    roles = {"bos": "<s>", "eos": "</s>", "fim_pre": "▁<PRE>", "fim_suf": "▁<SUF>", "fim_mid": "▁<MID>"}
    assert {role: keys[f"{role}_token_id"] for role in roles} == {role: ids[text] for role, text in roles.items()}
    first = json.loads(path.read_text())["model"]["merges"][0]
    assert max(keys["scores"]) == keys["scores"][ids["".join(first)]] == 0.0
