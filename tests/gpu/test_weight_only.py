"""Weights of 8 and 4 bits: what they are rounded to, how they lie in memory, and that a decoder of them computes."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codellm.artifacts import quality
from codellm.errors import InvalidValueError, ModelFileError
from codellm.loading import find
from codellm.sources import TensorInfo
from codellm.spec import LoadSpec
from codellm.tokenizer import HFTokenizer
from codellm.torch.decoder import Decoder
from codellm.torch.decoder_engine import DecoderEngine
from codellm.torch.load import plan
from codellm.torch.model import TorchModel
from codellm_gpu.cuda.quantized_weights import quantized_weights
from codellm_gpu.cuda.rounding import GROUP
from codellm_gpu.cuda.schemes import SCHEMES
from codellm_gpu.cuda.weight_only import Int4Linear, Int8Linear, packed_codes, unpacked_codes
from support.checkpoints import Arrays, config_of, random_weights

CPU = torch.device("cpu")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
shapes = st.tuples(st.integers(1, 9), st.integers(1, 3)).map(lambda shape: (shape[0], shape[1] * GROUP))
seeds = st.integers(0, 2**31)


def weights_of(shape, seed, dtype=torch.float32):
    torch.manual_seed(seed)
    return (torch.randn(shape) * torch.rand(shape[0], 1)).to(dtype)


def everything(linear):
    return slice(0, linear.out_features)


@given(shapes, seeds, st.sampled_from(DTYPES))
def test_8_bits_are_off_by_half_a_level_at_most(shape, seed, dtype):
    weight = weights_of(shape, seed, dtype)
    linear = Int8Linear.of(weight, None)
    assert linear.scales.dtype == torch.float32
    torch.testing.assert_close(linear.scales, weight.float().abs().amax(1) / 127)
    off = (linear.dequantized(everything(linear), torch.float32) - weight.float()).abs()
    assert (off <= linear.scales[:, None] * 0.501).all()


@given(shapes, seeds, st.sampled_from(DTYPES))
def test_4_bits_lose_less_than_plain_rounding_of_the_greatest_weight(shape, seed, dtype):
    weight = weights_of(shape, seed, dtype)
    linear = Int4Linear.of(weight, None)
    assert linear.scales.shape == (shape[0], shape[1] // GROUP)
    assert linear.scales.dtype == (torch.float16 if dtype == torch.float32 else dtype)
    groups = weight.float().view(shape[0], -1, GROUP)
    scales = groups.abs().amax(-1, keepdim=True) / 7
    plain = (groups / scales).round() * scales
    found = linear.dequantized(everything(linear), torch.float32).view_as(groups)
    error, allowed = ((values - groups).square().sum(-1) for values in (found, plain))
    assert (error <= allowed * 1.01).all()


@given(shapes, seeds)
def test_codes_and_scales_say_what_the_weights_are(shape, seed):
    weight = weights_of(shape, seed)
    eight, four = Int8Linear.of(weight, None), Int4Linear.of(weight, None)
    assert eight.codes().dtype == four.codes().dtype == torch.uint8
    assert eight.codes().shape == four.codes().shape == weight.shape
    plain = (eight.codes().float() - 128) * eight.scales[:, None]
    assert torch.equal(plain, eight.dequantized(everything(eight), torch.float32))
    plain = (four.codes().float() - 8) * four.scales.float().repeat_interleave(GROUP, dim=1)
    assert torch.equal(plain, four.dequantized(everything(four), torch.float32))
    assert eight.zeros is four.zeros is None


@given(shapes, seeds)
def test_two_codes_a_byte_come_back(shape, seed):
    torch.manual_seed(seed)
    codes = torch.randint(0, 16, shape, dtype=torch.uint8)
    packed = packed_codes(codes)
    assert packed.shape == (shape[0], shape[1] // 2)
    assert torch.equal(unpacked_codes(packed), codes)
    first, middle = codes[0, 0], codes[0, GROUP // 2]
    assert packed[0, 0] == first + 16 * middle


@given(shapes, seeds)
def test_zero_points_move_the_levels(shape, seed):
    torch.manual_seed(seed)
    codes = torch.randint(0, 16, shape, dtype=torch.uint8)
    groups = (shape[0], shape[1] // GROUP)
    zeros, scales = torch.randint(0, 17, groups, dtype=torch.uint8), torch.rand(groups).half()
    linear = Int4Linear.of_codes(codes, scales, zeros, None)
    wide = [part.float().repeat_interleave(GROUP, dim=1) for part in (zeros, scales)]
    assert torch.equal(linear.dequantized(everything(linear), torch.float32), (codes.float() - wide[0]) * wide[1])


@pytest.mark.parametrize("kind", [Int8Linear, Int4Linear])
def test_a_row_of_zeros_stays_one(kind):
    linear = kind.of(torch.zeros(2, GROUP), None)
    assert not linear.dequantized(everything(linear), torch.float32).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [Int8Linear, Int4Linear])
def test_the_product_is_that_of_the_dequantized_weights(kind, dtype):
    class Small(kind):
        floats = 3 * 2 * GROUP  # several blocks, the last of them shorter

    weight, bias, x = weights_of((8, 2 * GROUP), 1, dtype), torch.randn(8).to(dtype), torch.randn(2, 5, 2 * GROUP)
    linear = Small.of(weight, bias)
    expected = x.to(dtype).double() @ linear.dequantized(everything(linear), dtype).double().T + bias.double()
    torch.testing.assert_close(linear(x.to(dtype)).double(), expected, atol=0.1, rtol=torch.finfo(dtype).eps * 4)


@pytest.mark.parametrize("kind", [Int8Linear, Int4Linear])
def test_the_blocks_of_a_weight_change_nothing(kind):
    class Small(kind):
        block = 3 * 2 * GROUP

    weight = weights_of((8, 2 * GROUP), 2)
    whole = kind.of(weight, None)
    parts = Small.of(weight, None)
    assert torch.equal(whole.codes(), parts.codes())
    assert torch.equal(whole.scales, parts.scales)


def planned(name, dtype="float32"):
    spec = LoadSpec(model=name, device="cpu", dtype=dtype, context_length=512)
    return plan(spec, find(name).fetch(), CPU, 1 << 32)


def decoder_of(made, scheme):
    weights = quantized_weights(scheme, made.source.tensors, made.infos, made.dtype, CPU)
    return Decoder(made.config, weights, made.context_length).eval()


def gate(made, decoder):
    """Bits per byte of the quality gate's text."""
    tokenizer = HFTokenizer.of(made.source)
    sizes = {"vocab_size": tokenizer.vocab_size, "context_length": made.context_length, "chunk": made.chunk}
    with TorchModel(made.info("torch-cuda", 1), tokenizer, DecoderEngine(decoder, made.cache(), **sizes)) as model:
        return quality.bits_per_byte(model, quality.gate_text())


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_a_decoder_of_them_is_within_the_bound_of_the_scheme(scheme):
    made = planned("codellm-demo")
    plain, quantized = made.decoder(), decoder_of(made, scheme)
    [bound] = [known.bound for known in SCHEMES if known.name == scheme]
    assert gate(made, quantized) < gate(made, plain) + bound
    assert isinstance(quantized.lm_head, Int8Linear)
    assert torch.equal(quantized.embedding.weight, plain.embedding.weight)
    assert isinstance(quantized.layers[0].attention.qkv, {"int8": Int8Linear, "int4": Int4Linear}[scheme])


def test_the_bounds_follow_the_rule_of_the_documentation():
    """Twice the rise measured on the bundled model, rounded up to hundredths; from 0.01 to 1."""
    record = json.loads((Path(__file__).parents[2] / "docs/results/weight-only-demo.json").read_text())
    rows = {row["scheme"]: row for row in record["rows"]}
    for scheme in SCHEMES:
        if scheme.name in {"int8", "int4"}:
            rise = rows[scheme.name]["gate_rise"]
            assert scheme.bound == rows[scheme.name]["bound"] == min(1.0, max(0.01, math.ceil(200 * rise) / 100))


def test_rows_that_are_no_whole_groups_are_refused_before_they_are_read():
    infos = {"lm_head.weight": TensorInfo("lm_head.weight", (8, 96), "float32")}
    weights = quantized_weights("int4", Arrays({}), infos, torch.float32, CPU)
    with pytest.raises(InvalidValueError, match="groups of 128 inputs, and lm_head has 96; take the scheme int8"):
        weights.linear("lm_head")


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_weights_that_are_no_numbers_are_refused(scheme):
    weight = np.ones((8, 128), np.float32)
    weight[3, 5] = np.nan
    infos = {"a.weight": TensorInfo("a.weight", (8, 128), "float32")}
    weights = quantized_weights(scheme, Arrays({"a.weight": weight}), infos, torch.float32, CPU)
    with pytest.raises(ModelFileError, match=r"'a\.weight' holds NaN or infinity"):
        weights.linear("a")


def test_an_output_projection_of_its_own_has_8_bits():
    config = config_of("qwen2", 64, hidden_size=128, num_attention_heads=4)
    arrays = Arrays(random_weights(config))
    infos = {info.name: info for info in arrays.infos()}
    weights = quantized_weights("int4", arrays, infos, torch.float32, CPU)
    lm_head = weights.lm_head(weights.embedding("model.embed_tokens"))
    assert torch.equal(lm_head.codes(), Int8Linear.of(torch.from_numpy(arrays.read("lm_head.weight")), None).codes())
