"""safetensors to GGUF: what stands in the file, and what is refused without leaving one."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import attrs
import gguf
import numpy as np
import pytest

import codellm
from codellm.errors import ArtifactError, InvalidValueError, ModelFileError
from codellm.sources import ModelSource, TensorInfo, Tensors
from codellm.sources.dummy import DummyTensors, dummy_config
from codellm.sources.safetensors import SafetensorsFiles
from codellm.sources.starcoder2 import starcoder2_shapes
from codellm_cpu.convert import convert, storage
from codellm_cpu.files import writing
from support.checkpoints import save_safetensors

DEMO = Path(codellm.__file__).parent / "data" / "codellm-demo"
TOKENIZER_CONFIG = json.loads((DEMO / "tokenizer_config.json").read_text())
CONFIG = dummy_config("tiny") | {"hidden_size": 64, "intermediate_size": 96, "vocab_size": 4000, "norm_epsilon": 3e-5}


class Changed(Tensors):
    """Weights of which some are replaced, added or (None) taken away."""

    def __init__(self, tensors, changes):
        self.tensors, self.changes = tensors, changes

    def infos(self):
        kept = [info for info in self.tensors if info.name not in self.changes]
        names = {np.dtype(np.float32): "float32", np.dtype(np.float16): "float16", np.dtype(np.int32): "int32"}
        new = [
            TensorInfo(name, array.shape, names[array.dtype])
            for name, array in self.changes.items()
            if array is not None
        ]
        return kept + new

    def read(self, name):
        return self.changes[name] if name in self.changes else self.tensors.read(name)


def source(config=CONFIG, dtype="float32", changes=None, **fields):
    tensors = DummyTensors(config, dtype)
    return ModelSource(
        **{
            "name": "test",
            "format": "safetensors",
            "digest": "abc123",
            "config": config,
            "tokenizer": DEMO / "tokenizer.json",
            "tokenizer_config": TOKENIZER_CONFIG,
            "tensors": Changed(tensors, changes) if changes else tensors,
        }
        | fields
    )


def contents(path):
    return {key: field.contents() for key, field in gguf.GGUFReader(path).fields.items()}


def weights(path):
    """Name → (type, float32 values in the shape of the checkpoint)."""
    return {
        tensor.name: (tensor.tensor_type.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type))
        for tensor in gguf.GGUFReader(path).tensors
    }


def test_header_carries_the_model(tmp_path):
    path = tmp_path / "model.gguf"
    config = CONFIG | {"sliding_window": 77, "rope_theta": 123456.0}
    convert(source(config, licence="apache-2.0", revision="main", dummy=True), "bf16", path)
    keys = contents(path)
    expected = {
        "general.architecture": "starcoder2",
        "general.type": "model",
        "general.name": "test",
        "general.license": "apache-2.0",
        "general.file_type": 32,
        "general.quantization_version": 2,
        "codellm.source.digest": "abc123",
        "codellm.source.revision": "main",
        "codellm.source.dummy": True,
        "starcoder2.context_length": 1024,
        "starcoder2.embedding_length": 64,
        "starcoder2.block_count": 2,
        "starcoder2.feed_forward_length": 96,
        "starcoder2.attention.head_count": 4,
        "starcoder2.attention.head_count_kv": 2,
        "starcoder2.attention.sliding_window": 77,
        "starcoder2.rope.dimension_count": 16,
        "starcoder2.rope.freq_base": 123456.0,
        "starcoder2.vocab_size": 4000,
    }
    assert {key: keys[key] for key in expected} == expected
    assert keys["starcoder2.attention.layer_norm_epsilon"] == pytest.approx(3e-5)


def test_a_config_of_transformers_5_carries_its_rope(tmp_path):
    config = {key: value for key, value in CONFIG.items() if key != "rope_theta"} | {"sliding_window": None}
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": 4321.0}
    convert(source(config), "f32", tmp_path / "model.gguf")
    keys = contents(tmp_path / "model.gguf")
    assert keys["starcoder2.rope.freq_base"] == 4321.0
    assert "starcoder2.attention.sliding_window" not in keys


@pytest.mark.parametrize("scheme", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_weight_arrives_rounded_once(tmp_path, dtype, scheme):
    path = tmp_path / "model.gguf"
    convert(source(dtype=dtype), scheme, path)
    tensors, got = DummyTensors(CONFIG, dtype), weights(path)
    assert len(got) == len(starcoder2_shapes(CONFIG))
    pairs = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.bias": "model.norm.bias",
        "blk.1.attn_q.weight": "model.layers.1.self_attn.q_proj.weight",
        "blk.0.attn_k.bias": "model.layers.0.self_attn.k_proj.bias",
        "blk.1.attn_v.weight": "model.layers.1.self_attn.v_proj.weight",
        "blk.0.attn_output.weight": "model.layers.0.self_attn.o_proj.weight",
        "blk.0.attn_norm.weight": "model.layers.0.input_layernorm.weight",
        "blk.1.ffn_norm.bias": "model.layers.1.post_attention_layernorm.bias",
        "blk.1.ffn_up.weight": "model.layers.1.mlp.c_fc.weight",
        "blk.1.ffn_down.bias": "model.layers.1.mlp.c_proj.bias",
    }
    for name, theirs in pairs.items():
        kind, values = got[name]
        exact = storage.to_float32(tensors.read(theirs), dtype)
        assert kind == ("F32" if exact.ndim == 1 else scheme.upper())
        precision = {"F32": 0, "F16": 2**-11, "BF16": 2**-8}[kind]
        np.testing.assert_allclose(values, exact, rtol=precision, atol=2**-25 if kind == "F16" else 0)


def test_rounding_is_to_nearest_ties_to_even():
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -1 - 2**-9, 3.3e38, 1e-40], np.float32)
    (bits,) = storage.slabs(values, "float32", "bfloat16", "t")
    assert [hex(int(value)) for value in bits[:5]] == ["0x3f80", "0x3f80", "0x3f82", "0x3f81", "0xbf80"]
    back = storage.to_float32(bits, "bfloat16")
    np.testing.assert_allclose(back[5:], values[5:], rtol=2**-8, atol=1e-41)


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_model_has_no_output_tensor(tmp_path, tied):
    path = tmp_path / "model.gguf"
    convert(source(CONFIG | {"tie_word_embeddings": tied}), "f16", path)
    assert ("output.weight" in weights(path)) is not tied


def test_a_tied_checkpoint_that_stores_its_output_too_is_written_once(tmp_path):
    stored = {"lm_head.weight": np.zeros((4000, 64), np.float32)}
    stored["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.zeros(8, np.float32)
    convert(source(changes=stored), "f16", tmp_path / "model.gguf")
    assert "output.weight" not in weights(tmp_path / "model.gguf")


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_sharded_files_convert_as_the_weights_they_hold(tmp_path, dtype):
    tensors = DummyTensors(CONFIG, dtype)
    names = [info.name for info in tensors]
    shards = [save_safetensors(tmp_path / f"model-{part}.safetensors", tensors, names[part::2]) for part in range(2)]
    convert(source(dtype=dtype, tensors=SafetensorsFiles(shards)), "bf16", tmp_path / "sharded.gguf")
    convert(source(dtype=dtype), "bf16", tmp_path / "whole.gguf")
    assert (tmp_path / "sharded.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()


def test_progress_counts_bytes_of_weights(tmp_path):
    told = []
    convert(source(), "f16", tmp_path / "model.gguf", lambda done, total: told.append((done, total)))
    totals = {total for _, total in told}
    assert len(totals) == 1
    assert told[0][0] == 0
    assert told[-1][0] == told[-1][1]
    assert told == sorted(told)
    assert 0 < (tmp_path / "model.gguf").stat().st_size - told[-1][0] < 400_000  # the header


NAN = np.full((4000, 64), np.nan, np.float32)
LARGE = np.full((4000, 64), 70000.0, np.float32)
UP = "model.layers.1.mlp.c_fc.weight"
EMBEDDING = "model.embed_tokens.weight"
CHANGES = {
    "missing": ({UP: None}, r"tensor 'model\.layers\.1\.mlp\.c_fc\.weight' missing"),
    "unknown": ({"adapter": np.zeros(3, np.float32)}, "tensor 'adapter' not known in starcoder2"),
    "shape": ({UP: np.zeros((5, 64), np.float32)}, r"has shape \[5, 64\], config\.json makes it \[96, 64\]"),
    "integers": ({UP: np.zeros((96, 64), np.int32)}, "is int32; supported: float32"),
    "NaN": ({EMBEDDING: NAN}, r"'model\.embed_tokens\.weight' holds NaN"),
    "beyond f16": ({EMBEDDING: LARGE}, r"'model\.embed_tokens\.weight' reaches 70000, beyond f16's 65504"),
}


@pytest.mark.parametrize(("changes", "message"), CHANGES.values(), ids=CHANGES.keys())
def test_bad_tensors_are_refused_by_name(tmp_path, changes, message):
    with pytest.raises(ModelFileError, match=message):
        convert(source(changes=changes), "f16", tmp_path / "model.gguf")
    assert not list(tmp_path.iterdir())


def test_many_missing_tensors_are_counted(tmp_path):
    with pytest.raises(ModelFileError, match=r"tensors .* and \d+ more missing"):
        convert(
            source(tensors=Changed(DummyTensors(CONFIG), dict.fromkeys(starcoder2_shapes(CONFIG)))),
            "f16",
            tmp_path / "m",
        )


CONFIGS = {
    "architecture": (
        {"model_type": "phi3"},
        "architecture 'phi3' cannot be converted to GGUF; supported: starcoder2, llama, qwen2, qwen3",
    ),
    "no architecture": ({"model_type": None}, "architecture None"),
    "no layers": ({"num_hidden_layers": 0}, "num_hidden_layers is 0, not a positive whole number"),
    "true": ({"num_hidden_layers": True}, "num_hidden_layers is True"),
    "text": ({"hidden_size": "64"}, "hidden_size is '64'"),
    "absurd": ({"num_hidden_layers": 100_000}, "100000 layers, more than llama.cpp's 512"),
    "heads": ({"num_attention_heads": 5}, "do not divide"),
    "head size": ({"head_dim": 32}, "head_dim 32"),
    "activation": ({"hidden_act": "relu"}, "hidden_act 'relu' is not supported"),
    "scaled rope": ({"rope_scaling": {"type": "dynamic"}}, "rope type 'dynamic' is not supported; known: default"),
    "rope no object": ({"rope_parameters": [1]}, r"rope_parameters is \[1\]"),
    "rope base": ({"rope_theta": -1}, "rope_theta is -1"),
    "epsilon": ({"norm_epsilon": "tiny"}, "norm_epsilon is 'tiny'"),
    "window": ({"sliding_window": 0}, "sliding_window is 0"),
    "vocabulary": ({"vocab_size": 100}, "but the embedding has 100 rows"),
}


@pytest.mark.parametrize(("change", "message"), CONFIGS.values(), ids=CONFIGS.keys())
def test_bad_configurations_are_refused_by_field(tmp_path, change, message):
    with pytest.raises(ModelFileError, match=message):
        convert(
            attrs.evolve(
                source(tensors=DummyTensors(CONFIG | {"vocab_size": 100} if "vocab_size" in change else CONFIG)),
                config=CONFIG | change,
            ),
            "f16",
            tmp_path / "m",
        )
    assert not list(tmp_path.iterdir())


def test_a_source_without_weights_or_tokenizer_says_so(tmp_path):
    with pytest.raises(ModelFileError, match="no weights to convert"):
        convert(source(tensors=None), "f16", tmp_path / "m")
    with pytest.raises(ModelFileError, match=r"no tokenizer\.json to convert"):
        convert(source(tokenizer=None), "f16", tmp_path / "m")
    with pytest.raises(InvalidValueError, match="conversion to 'q4_0'"):
        convert(source(), "q4_0", tmp_path / "m")


def test_a_full_disk_is_noticed_before_writing(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 100_000})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ArtifactError, match=r"needs \d\.\d MB, 0\.1 MB are free in .*; free some space"):
        convert(source(), "f16", tmp_path / "model.gguf")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_leaves_no_file(tmp_path):
    """In a process whose files may not grow past 200 kB: the system refuses the write as a full disk does."""
    script = f"""
import resource, signal, sys
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parent.parent)]!r}
import test_convert
from codellm.errors import ArtifactError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    test_convert.convert(test_convert.source(), "f16", test_convert.Path({str(tmp_path)!r}) / "model.gguf")
except ArtifactError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "model.gguf: cannot be written (File too large); the partial file is removed" in done.stdout
    assert not list(tmp_path.iterdir())


def test_no_space_left_is_one_clear_line(tmp_path):
    path = tmp_path / "model.gguf"

    def fill():
        with writing(path, 1):
            path.write_bytes(b"GGUF")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ArtifactError, match=r"cannot be written \(No space left on device\); the partial file"):
        fill()
    assert not list(tmp_path.iterdir())


def test_ctrl_c_leaves_no_file(tmp_path):
    def interrupt(done, total):
        if done:
            assert list(tmp_path.iterdir())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source(), "f16", tmp_path / "model.gguf", interrupt)
    assert not list(tmp_path.iterdir())


def test_memory_stays_near_the_largest_tensor(tmp_path):
    """470 MB of shards, in a process of its own: over the start, the peak is below four of its 25 MB tensors."""
    config = CONFIG | {"hidden_size": 1536, "intermediate_size": 8192, "num_hidden_layers": 7, "vocab_size": 4096}
    tensors = DummyTensors(config, "bfloat16")
    shards = []
    for part, names in enumerate(np.array_split([info.name for info in tensors], 4)):
        shards.append(str(save_safetensors(tmp_path / f"{part}.safetensors", tensors, [str(name) for name in names])))
    script = f"""
import resource, sys
from pathlib import Path
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parent.parent)]!r}
import test_convert as t
files = [Path(name) for name in {shards!r}]
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024
t.convert(t.source(dtype="bfloat16"), "bf16", Path({str(tmp_path)!r}) / "small.gguf")
before = peak()
t.convert(t.source({config!r}, tensors=t.SafetensorsFiles(files)), "bf16", Path({str(tmp_path)!r}) / "large.gguf")
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (tmp_path / "large.gguf").stat().st_size > 400_000_000
    assert int(done.stdout) < 2 * 8192 * 1536 * 2 * 2
