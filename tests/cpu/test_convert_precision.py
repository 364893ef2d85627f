"""Without loss means: in the precision that the tensors have, whatever config.json says of them."""

from __future__ import annotations

import json
import shutil

import gguf
import numpy as np
import pytest

from codellm.artifacts.ensure import base_scheme, ensure
from codellm.loading import find
from codellm.plugins.registry import registry
from codellm.scheme import PRECISIONS
from codellm.sources import TensorInfo
from codellm_cpu.convert import storage
from support.checkpoints import Arrays, config_of, random_weights, save_safetensors, train_tokenizer

CONFIG = config_of("llama", 600, num_hidden_layers=1, max_position_embeddings=1024)
HALF = {"float16": lambda array: array.astype(np.float16), "bfloat16": storage.to_bfloat16}


class Mixed(Arrays):
    """Weights in types of their own: those that `types` names by a part of their name, else `rest`."""

    def __init__(self, arrays, rest, types):
        self.types = {name: next((dtype for part, dtype in types.items() if part in name), rest) for name in arrays}
        super().__init__({name: HALF.get(self.types[name], np.asarray)(array) for name, array in arrays.items()})

    def infos(self):
        return [TensorInfo(name, array.shape, self.types[name]) for name, array in self.arrays.items()]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_tokenizer("llama3", tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def checkpoint(tmp_path, tokenizer):
    """Write a checkpoint of a stored type, and read it as a user's."""

    def checkpoint(rest, types=None, extra=None, **said):
        tensors = Mixed(random_weights(CONFIG) | (extra or {}), rest, types or {})
        save_safetensors(tmp_path / "model.safetensors", tensors, list(tensors.arrays))
        shutil.copyfile(tokenizer[0], tmp_path / "tokenizer.json")
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer[1]))
        (tmp_path / "config.json").write_text(json.dumps(CONFIG | said))
        return find(str(tmp_path)).fetch(), tensors

    return checkpoint


SAID = {
    "said bfloat16": {"torch_dtype": "bfloat16"},
    "said float16": {"torch_dtype": "float16"},
    "said by transformers 5": {"dtype": "bfloat16"},
    "said float32": {"torch_dtype": "float32"},
    "said nothing": {},
    "said null": {"torch_dtype": None},
    "said auto": {"torch_dtype": "auto"},
}


@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("said", SAID.values(), ids=SAID)
def test_the_precision_is_what_the_tensors_are_stored_in_whatever_the_configuration_says(checkpoint, stored, said):
    source, _ = checkpoint(stored, **said)
    assert source.dtype == stored


MIXED = {  # the rest, what differs, what holds all of it
    "one matrix of float32": ("bfloat16", {"o_proj": "float32"}, "float32"),
    "float32 embedding": ("float16", {"embed": "float32"}, "float32"),
    "both half types": ("bfloat16", {"mlp": "float16"}, "float32"),
    "norms of float32": ("bfloat16", {"norm": "float32"}, "bfloat16"),
    "norms of float32 in float16": ("float16", {"norm": "float32"}, "float16"),
    "norms of another half type": ("float16", {"norm": "bfloat16"}, "float16"),
}


@pytest.mark.parametrize(("rest", "types", "wanted"), MIXED.values(), ids=MIXED)
def test_mixed_types_convert_to_one_that_holds_them_all_exactly(checkpoint, rest, types, wanted):
    source, tensors = checkpoint(rest, types, torch_dtype="bfloat16")
    scheme = registry().scheme(PRECISIONS[source.dtype])
    made = ensure(source, scheme)
    read = {tensor.name: tensor for tensor in gguf.GGUFReader(made.path).tensors}
    assert (
        read["token_embd.weight"].tensor_type.name == {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[wanted]
    )
    for theirs, ours in {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.layers.0.self_attn.o_proj.weight": "blk.0.attn_output.weight",
        "model.layers.0.mlp.down_proj.weight": "blk.0.ffn_down.weight",
        "model.layers.0.input_layernorm.weight": "blk.0.attn_norm.weight",
    }.items():
        data = read[ours].data
        data = data.view(np.uint16) if read[ours].tensor_type.name == "BF16" else data
        got = storage.to_float32(data, "bfloat16" if data.dtype == np.uint16 else str(data.dtype))
        exact = storage.to_float32(tensors.read(theirs), tensors.types[theirs])
        assert np.array_equal(got.reshape(exact.shape), exact), theirs


def test_a_head_of_one_row_beside_the_model_does_not_widen_it(checkpoint):
    source, _ = checkpoint("bfloat16", {"v_head": "float32"}, {"v_head.summary.weight": np.ones((1, 96), np.float32)})
    assert source.dtype == "bfloat16"


def test_a_quantization_starts_from_the_precision_that_the_tensors_have(checkpoint):
    source, _ = checkpoint("float32", torch_dtype="bfloat16")
    base = base_scheme(source, registry().scheme("q8_0"))
    assert base is not None
    assert base.name == "f32"
