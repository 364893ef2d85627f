"""Weights of 8 and 4 bits: what they are rounded to, how they lie in memory, and that a decoder of them computes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codellm.loading import find
from codellm.sources.architectures import read_config
from codellm.torch.cache import Cache
from codellm.torch.decoder import Decoder
from codellm.torch.weights import Weights
from codellm_gpu.cuda import weight_only
from codellm_gpu.cuda.quantized_weights import quantized_weights
from codellm_gpu.cuda.rounding import GROUP
from codellm_gpu.cuda.weight_only import Int4Linear, Int8Linear, packed_codes, unpacked_codes

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
def test_the_product_is_that_of_the_dequantized_weights(kind, dtype, monkeypatch):
    monkeypatch.setattr(weight_only, "FLOATS", 3 * 2 * GROUP)  # several blocks, the last of them shorter
    weight, bias, x = weights_of((8, 2 * GROUP), 1, dtype), torch.randn(8).to(dtype), torch.randn(2, 5, 2 * GROUP)
    linear = kind.of(weight, bias)
    expected = x.to(dtype).double() @ linear.dequantized(everything(linear), dtype).double().T + bias.double()
    torch.testing.assert_close(linear(x.to(dtype)).double(), expected, atol=0.1, rtol=torch.finfo(dtype).eps * 4)


@pytest.mark.parametrize("kind", [Int8Linear, Int4Linear])
def test_the_blocks_of_a_weight_change_nothing(kind, monkeypatch):
    weight = weights_of((8, 2 * GROUP), 2)
    whole = kind.of(weight, None)
    monkeypatch.setattr(weight_only, "BLOCK", 3 * 2 * GROUP)
    parts = kind.of(weight, None)
    assert torch.equal(whole.codes(), parts.codes())
    assert torch.equal(whole.scales, parts.scales)


def decoder_of(name, scheme, dtype=torch.float32):
    source = find(name).fetch()
    architecture, config = read_config(source)
    infos = architecture.infos(source.tensors, config, name)
    if scheme is None:
        weights = Weights(source.tensors, infos, dtype=dtype, device=CPU)
    else:
        weights = quantized_weights(scheme, source.tensors, infos, dtype, CPU)
    cache = Cache.allocate(config, slots=1, context_length=32, chunk=32, dtype=dtype, device=CPU)
    return Decoder(config, weights, 32).eval(), cache


@torch.no_grad()
@pytest.mark.parametrize(("scheme", "off"), [("int8", 0.05), ("int4", 0.5)])
def test_a_decoder_of_them_comes_near_the_one_it_was_made_from(scheme, off):
    ids, positions = torch.randint(0, 500, (1, 16)), torch.arange(16)[None]
    (plain, cache), (quantized, other) = decoder_of("codellm-demo", None), decoder_of("codellm-demo", scheme)
    expected = plain.all_position_logits(ids, positions, cache)
    found = quantized.all_position_logits(ids, positions, other)
    assert (found - expected).norm() < off * expected.norm()
    assert isinstance(quantized.lm_head, Int8Linear)
    assert torch.equal(quantized.embedding.weight, plain.embedding.weight)
    assert isinstance(quantized.layers[0].attention.qkv, {"int8": Int8Linear, "int4": Int4Linear}[scheme])
