"""Checkpoints of GPTQ and AWQ, read into projections of 4 bits: their weights are what their numbers mean."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codellm.errors import InvalidValueError, ModelFileError
from codellm.loading import find
from codellm.sources.architectures import read_config
from codellm.sources.packed import packed_infos
from codellm.torch.cache import Cache
from codellm.torch.decoder import Decoder
from codellm.torch.weights import Weights
from codellm_gpu.cuda.packed_weights import awq_codes, gptq_codes
from codellm_gpu.cuda.quantized_weights import quantized_weights
from codellm_gpu.cuda.schemes import SCHEMES
from codellm_gpu.cuda.weight_only import Int4Linear, Int8Linear
from support.checkpoints import Arrays
from support.packed_checkpoints import METHODS, packed_checkpoint, parts_of

CPU = torch.device("cpu")
PARTS = {
    "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.o_proj": ("self_attn.o_proj",),
    "feed_forward.up": ("mlp.gate_proj", "mlp.up_proj"),
    "feed_forward.down": ("mlp.down_proj",),
}


def weights_of(path, dtype=torch.float32):
    source = find(path).fetch()
    architecture, config = read_config(source)
    infos = packed_infos(architecture, source.tensors, config, path)
    packing = source.config["quantization_config"]
    return config, quantized_weights(source.scheme, source.tensors, infos, dtype, CPU, packing)


def decoder_of(path, dtype=torch.float32):
    config, weights = weights_of(path, dtype)
    return Decoder(config, weights, 32).eval(), config


def logits_of(decoder, config):
    cache = Cache.allocate(config, slots=1, context_length=32, chunk=32, dtype=torch.float32, device=CPU)
    with torch.no_grad():
        return decoder.all_position_logits(torch.arange(100, 116)[None], torch.arange(16)[None], cache)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_the_weights_are_those_that_the_numbers_mean(method, symmetric, tmp_path):
    made = packed_checkpoint(tmp_path, method, symmetric=symmetric)
    decoder, config = decoder_of(made.path)
    for number, layer in enumerate(decoder.layers):
        for where, names in PARTS.items():
            linear = layer.get_submodule(where)
            assert isinstance(linear, Int4Linear)
            assert (linear.zeros is None) == symmetric
            expected = np.concatenate([made.plain[f"model.layers.{number}.{name}.weight"] for name in names])
            found = linear.dequantized(slice(0, linear.out_features), torch.float32)
            assert np.array_equal(found.numpy(), expected)
        biases = [made.plain[f"model.layers.{number}.{name}.bias"] for name in PARTS["attention.qkv"]]
        assert np.array_equal(layer.attention.qkv.bias.numpy(), np.concatenate(biases))
    assert isinstance(decoder.lm_head, Int8Linear)

    arrays = Arrays(made.plain)
    plain = Decoder(config, Weights(arrays, {info.name: info for info in arrays}, dtype=torch.float32, device=CPU), 32)
    expected = logits_of(plain, config)
    assert (logits_of(decoder, config) - expected).norm() < 0.02 * expected.norm()  # the output projection is rounded


def test_it_computes_in_the_type_that_is_asked_for(tmp_path):
    decoder, _ = decoder_of(packed_checkpoint(tmp_path, "awq").path, torch.bfloat16)
    qkv = decoder.layers[0].attention.qkv
    assert qkv.scales.dtype == torch.float16
    assert qkv(torch.ones(1, 256, dtype=torch.bfloat16)).dtype == qkv.bias.dtype == torch.bfloat16


@given(st.integers(1, 5), st.integers(1, 3), st.integers(0, 2**31))
def test_what_numpy_packs_is_unpacked(outputs, groups, seed):
    codes = np.random.default_rng(seed).integers(0, 16, (8 * outputs, 128 * groups))
    numbers = codes[:, :groups]  # as good as any zero points
    for method, unpacked in {"gptq_v2": gptq_codes, "awq": awq_codes}.items():
        parts = parts_of(method, codes, numbers.astype(np.float16), numbers)
        found = unpacked(torch.from_numpy(parts["qweight"]))
        assert found.dtype == torch.uint8
        assert np.array_equal(found.numpy(), codes)


@pytest.mark.parametrize(
    ("method", "packing", "remedy"),
    [
        ("gptq", {"group_size": 64}, "in groups of 128, not 64; name the backend transformers-cuda"),
        ("gptq", {"group_size": -1}, "in groups of 128, not -1; name the backend transformers-cuda"),
        ("awq", {"group_size": 32}, "not 32; take the model's original weights with the scheme int4"),
    ],
)
def test_groups_of_another_size_are_refused(method, packing, remedy):
    with pytest.raises(InvalidValueError, match=remedy):
        quantized_weights(f"{method}-int4", Arrays({}), {}, torch.float32, CPU, METHODS[method] | packing)


def test_columns_in_the_order_of_their_activations_are_refused(tmp_path):
    made = packed_checkpoint(tmp_path, "gptq", ordered=False, desc_act=True)
    with pytest.raises(InvalidValueError, match=r"q_proj are grouped .*desc_act.*name the backend transformers-cuda"):
        decoder_of(made.path)


def test_columns_that_are_in_order_whatever_the_configuration_says_are_read(tmp_path):
    decoder_of(packed_checkpoint(tmp_path, "gptq", desc_act=True).path)


def test_zero_points_that_could_be_two_things_are_refused(tmp_path):
    path = packed_checkpoint(tmp_path, "gptq").path
    _, weights = weights_of(path)
    name = "model.layers.0.self_attn.q_proj"
    points = weights._tensors.read(f"{name}.qzeros").copy()
    points[0, 0] = -1
    changed = {info.name: weights._tensors.read(info.name) for info in weights._tensors} | {f"{name}.qzeros": points}
    weights._tensors = Arrays(changed)
    with pytest.raises(ModelFileError, match=r"q_proj\.qzeros' holds zero points that AutoGPTQ could not store"):
        weights.linear(name)


def test_scales_that_are_no_numbers_are_refused(tmp_path):
    path = packed_checkpoint(tmp_path, "awq").path
    _, weights = weights_of(path)
    name = "model.layers.0.self_attn.q_proj"
    scales = weights._tensors.read(f"{name}.scales").copy()
    scales[1, 1] = np.nan
    weights._tensors = Arrays({info.name: weights._tensors.read(info.name) for info in weights._tensors})
    weights._tensors.arrays[f"{name}.scales"] = scales
    with pytest.raises(ModelFileError, match=r"q_proj\.scales' holds NaN or infinity"):
        weights.linear(name)


def test_a_projection_that_is_not_packed_among_those_that_are_is_refused(tmp_path):
    path = packed_checkpoint(tmp_path, "awq").path
    _, weights = weights_of(path)
    name = "model.layers.0.self_attn.q_proj"
    del weights._infos[f"{name}.qweight"]
    with pytest.raises(InvalidValueError, match=r"q_proj\.weight is not packed, while others are"):
        weights.linear(name)


def test_nothing_is_made_in_the_scheme_of_a_checkpoint():
    with pytest.raises(InvalidValueError, match="awq-int4 is read of checkpoints that are stored in it"):
        quantized_weights("awq-int4", Arrays({}), {}, torch.float32, CPU)


def test_the_schemes_are_those_of_the_checkpoints(tmp_path):
    names = {scheme.name for scheme in SCHEMES}
    assert names == {"int8", "int4", "awq-int4", "gptq-int4"}
    for method in METHODS:
        folder = tmp_path / method
        folder.mkdir()
        assert find(packed_checkpoint(folder, method).path).scheme in names
