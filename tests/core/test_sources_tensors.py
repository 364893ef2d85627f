"""Weights read from safetensors files, and drawn for dummy models."""

from __future__ import annotations

import json
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codellm.errors import InvalidValueError, ModelFileError, ModelNotFoundError, UnknownNameError
from codellm.sources import TensorInfo
from codellm.sources.dummy import CONFIGS, DummyTensors, dummy_config
from codellm.sources.safetensors import SafetensorsFiles

F32 = np.arange(6, dtype=np.float32).reshape(2, 3)


def packed(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype="F32", shape=(2, 3), offsets=(0, 24), **other):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)} | other


def write(path, content):
    path.write_bytes(content)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def test_tensors_are_views_in_their_shape_and_type(path):
    half = np.array([1.5, -2.0], np.float16)
    bits = np.array([0x3F80, 0xC000], np.uint16)  # 1.0 and -2.0
    header = {
        "__metadata__": {"format": "pt"},
        "a": entry(),
        "b": entry("F16", [2], [24, 28]),
        "c": entry("BF16", [2, 1], [28, 32]),
        "scalar": entry("F32", [], [32, 36]),
        "none": entry("F32", [0, 5], [36, 36]),
    }
    data = F32.tobytes() + half.tobytes() + bits.tobytes() + struct.pack("<f", 0.5)
    tensors = SafetensorsFiles([write(path, packed(header, data))])

    assert list(tensors)[:3] == [
        TensorInfo("a", (2, 3), "float32"),
        TensorInfo("b", (2,), "float16"),
        TensorInfo("c", (2, 1), "bfloat16"),
    ]
    np.testing.assert_array_equal(tensors.read("a"), F32)
    np.testing.assert_array_equal(tensors.read("b"), half)
    np.testing.assert_array_equal(tensors.read("c"), bits.reshape(2, 1))
    assert tensors.read("c").dtype == np.uint16
    assert tensors.read("scalar") == 0.5
    assert tensors.read("none").shape == (0, 5)
    assert not tensors.read("a").flags.owndata
    assert not tensors.read("a").flags.writeable


def test_an_array_stays_valid_after_the_next_is_read(path):
    other = F32 + 10
    header = {"a": entry(), "b": entry(offsets=[24, 48])}
    tensors = SafetensorsFiles([write(path, packed(header, F32.tobytes() + other.tobytes()))])
    first = tensors.read("a")
    np.testing.assert_array_equal(tensors.read("b"), other)
    np.testing.assert_array_equal(first, F32)


def test_a_sharded_checkpoint_is_one(tmp_path):
    one = write(tmp_path / "1.safetensors", packed({"a": entry()}, F32.tobytes()))
    two = write(tmp_path / "2.safetensors", packed({"b": entry()}, (F32 * 2).tobytes()))
    tensors = SafetensorsFiles([one, two])
    assert [info.name for info in tensors] == ["a", "b"]
    np.testing.assert_array_equal(tensors.read("b"), F32 * 2)


def test_a_tensor_in_two_shards_is_refused_with_both_names(tmp_path):
    one = write(tmp_path / "1.safetensors", packed({"a": entry()}, F32.tobytes()))
    two = write(tmp_path / "2.safetensors", packed({"a": entry()}, F32.tobytes()))
    with pytest.raises(ModelFileError, match=r"2\.safetensors: tensor 'a' also stands in .*1\.safetensors"):
        SafetensorsFiles([one, two])


def test_a_missing_tensor_and_a_missing_file_are_named(path):
    tensors = SafetensorsFiles([write(path, packed({"a": entry()}, F32.tobytes()))])
    with pytest.raises(ModelFileError, match="no tensor 'b'"):
        tensors.read("b")
    with pytest.raises(ModelNotFoundError, match=r"gone\.safetensors: no such file"):
        SafetensorsFiles([path.with_name("gone.safetensors")])


DATA = F32.tobytes()
FAULTS = {
    "empty": (b"", "cut short"),
    "seven bytes": (b"1234567", "cut short"),
    "header past the end": (struct.pack("<Q", 1 << 62) + b"{}", "cut short"),
    "header cut": (packed({"a": entry()}, DATA)[:30], "cut short"),
    "data cut": (packed({"a": entry()}, DATA)[:-1], "tensor 'a': ends at byte"),
    "not JSON": (packed(b"{"), "not valid JSON"),
    "not UTF-8": (packed(b'{"\xff": 1}'), "not valid JSON"),
    "deep": (packed(b"[" * 100_000), "not valid JSON"),
    "a list": (packed([]), "not a JSON object"),
    "a key twice": (packed(b'{"a": 1, "a": 2}'), "key 'a' stands twice"),
    "no fields": (packed({"a": {}}, DATA), "needs dtype, shape and two data_offsets"),
    "not an object": (packed({"a": 3}, DATA), "needs dtype"),
    "three offsets": (packed({"a": entry(offsets=[0, 1, 2])}, DATA), "needs dtype"),
    "unknown type": (packed({"a": entry("F3")}, DATA), "type 'F3' is not known"),
    "eight bits": (packed({"a": entry("F8_E4M3")}, DATA), "'F8_E4M3': weights quantized to floats of so few bits"),
    "a list as type": (packed({"a": entry(["F32"])}, DATA), "is not known"),
    "negative size": (packed({"a": entry(shape=[-2, -3])}, DATA), "is no list of sizes"),
    "true as size": (packed({"a": entry(shape=[True, 6])}, DATA), "is no list of sizes"),
    "many dimensions": (packed({"a": entry(shape=[1] * 99)}, DATA), "is no list of sizes"),
    "offsets swapped": (packed({"a": entry(offsets=[24, 0])}, DATA), "are no range"),
    "offset a float": (packed({"a": entry(offsets=[0.0, 24.0])}, DATA), "are no range"),
    "wrong size": (packed({"a": entry(shape=[2, 2])}, DATA), "24 bytes do not make F32"),
    "huge shape": (packed({"a": entry(shape=[1 << 40, 1 << 40])}, DATA), "do not make F32"),
    "hole": (packed({"a": entry(offsets=[4, 28])}, b"0000" + DATA), "leaves a hole"),
    "overlap": (packed({"a": entry(), "b": entry(offsets=[0, 24])}, DATA), "overlaps"),
    "bytes left": (packed({"a": entry()}, DATA + b"x"), "1 bytes after the last tensor"),
}


@pytest.mark.parametrize(("content", "message"), FAULTS.values(), ids=FAULTS.keys())
def test_a_damaged_file_is_refused_with_its_name_and_fault(path, content, message):
    with pytest.raises(ModelFileError, match=message) as error:
        SafetensorsFiles([write(path, content)])
    assert str(path) in str(error.value)


@given(place=st.integers(0, 200), byte=st.integers(0, 255))
def test_any_changed_byte_is_read_or_refused(tmp_path_factory, place, byte):
    content = bytearray(packed({"a": entry(), "b": entry("BF16", [2, 6], [24, 48])}, DATA * 2))
    content[place % len(content)] = byte
    path = write(tmp_path_factory.mktemp("fuzz") / "model.safetensors", bytes(content))
    try:
        tensors = SafetensorsFiles([path])
        for info in tensors:
            assert tensors.read(info.name).shape == info.shape
    except ModelFileError:
        pass


def test_published_sizes():
    parameters = {name: sum(int(np.prod(info.shape)) for info in DummyTensors(dummy_config(name))) for name in CONFIGS}
    assert parameters["starcoder2-3b"] == 3_030_371_328
    assert parameters["starcoder2-7b"] == 7_173_923_840
    assert 15.9e9 < parameters["starcoder2-15b"] < 16e9
    assert parameters["codellama-7b"] == 6_738_546_688
    assert parameters["llama-3.1-8b"] == 8_030_261_248
    assert parameters["qwen2.5-coder-1.5b"] == 1_543_714_304
    assert parameters["qwen2.5-coder-7b"] == 7_615_616_512
    assert parameters["qwen3-0.6b"] == 596_049_920
    assert parameters["qwen3-8b"] == 8_190_735_360
    with pytest.raises(UnknownNameError, match="did you mean 'starcoder2-7b'"):
        dummy_config("starcoder2-7")


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_dummy_weights_depend_on_seed_and_name_alone(dtype):
    config = dummy_config("tiny")
    one, two = DummyTensors(config, dtype), DummyTensors(config, dtype)
    names = [info.name for info in one]
    forward = {name: one.read(name) for name in names}
    for name in reversed(names):
        np.testing.assert_array_equal(two.read(name), forward[name])
    query, key = forward["model.layers.0.self_attn.q_proj.weight"], forward["model.layers.1.self_attn.q_proj.weight"]
    assert (query != key).any()
    assert (DummyTensors(config, dtype, seed=1).read("model.layers.0.self_attn.q_proj.weight") != query).any()


def test_dummy_weights_have_the_scale_they_claim():
    config = dummy_config("tiny")
    tensors = DummyTensors(config)
    bits = tensors.read("model.layers.0.mlp.c_fc.weight")
    values = (bits.astype(np.uint32) << 16).view(np.float32)
    assert bits.dtype == np.uint16
    assert values.std() == pytest.approx(config["initializer_range"], rel=0.01)
    assert abs(values.mean()) < 1e-4
    assert np.abs(values).max() < 0.1
    assert (tensors.read("model.norm.weight") == 0x3F80).all()  # 1.0
    assert not tensors.read("model.norm.bias").any()


def test_dummy_weights_take_the_memory_of_one_tensor():
    tensors = DummyTensors(dummy_config("tiny") | {"vocab_size": 200_000})
    tensors.read("model.norm.bias")  # the table is made once
    tracemalloc.start()
    try:
        array = tensors.read("model.embed_tokens.weight")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < array.nbytes + 8_000_000


def test_dummy_weights_refuse_what_they_are_not():
    with pytest.raises(InvalidValueError, match="dtype 'int8'"):
        DummyTensors(dummy_config("tiny"), "int8")
    with pytest.raises(ModelFileError, match=r"no tensor 'lm_head\.weight'"):
        DummyTensors(dummy_config("tiny")).read("lm_head.weight")
