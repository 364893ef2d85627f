"""The projection: however it is computed, it is the product, and the way is chosen by rows, type and processor."""

import pytest
import torch

from codellm.torch import linear
from codellm.torch.linear import UPCAST_ROWS, Linear, upcast_linear

HALVES = (torch.bfloat16, torch.float16)


def projection(dtype, out=70, size=33, bias=True):
    torch.manual_seed(0)
    return Linear(size, out, bias=bias).to(dtype).requires_grad_(False)


def exact(module, x):
    """In float64, then rounded once."""
    bias = None if module.bias is None else module.bias.double()
    return torch.nn.functional.linear(x.double(), module.weight.double(), bias)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("block", [1, 33 * 7, 1 << 20])
def test_widened_is_the_product_rounded_once(monkeypatch, dtype, bias, block):
    monkeypatch.setattr(linear, "BLOCK", block)
    module = projection(dtype, bias=bias)
    x = torch.randn(2, 9, 33).to(dtype)
    found = upcast_linear(x, module.weight, module.bias)
    assert (found.dtype, found.shape) == (dtype, (2, 9, 70))
    expected = exact(module, x)
    assert ((found.double() - expected).abs() <= torch.finfo(dtype).eps * expected.abs() + 1e-6).all()


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32])
@pytest.mark.parametrize("rows", [1, UPCAST_ROWS - 1, UPCAST_ROWS])
@pytest.mark.parametrize("can", [True, False])
def test_many_rows_are_widened_where_the_processor_has_no_product_of_their_type(monkeypatch, dtype, rows, can):
    seen = []
    monkeypatch.setattr(linear, "UPCAST_DTYPES", () if can else HALVES)
    monkeypatch.setattr(
        linear, "upcast_linear", lambda x, weight, bias: seen.append(1) or upcast_linear(x, weight, bias)
    )
    module, x = projection(dtype), torch.randn(1, rows, 33).to(dtype)
    found = module(x)
    assert len(seen) == (dtype != torch.float32 and rows >= UPCAST_ROWS and not can)
    assert torch.allclose(found.double(), exact(module, x), rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("processor", "native"),
    [
        ({"avx512_bw": True, "avx512_bf16": True}, True),  # Zen 4
        ({"avx512_bw": True, "amx_bf16": True}, True),
        ({"avx512_bw": True}, False),  # Cascade Lake: oneDNN emulates
        ({"avx2": True, "avx_ne_convert": True}, True),
        ({"bf16": True}, True),  # Arm
    ],
)
def test_a_product_that_onednn_emulates_is_none(monkeypatch, processor, native):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor)
    assert linear.has_matmul(torch.bfloat16) == native


def test_without_onednn_torch_is_left_to_itself(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert linear.has_matmul(torch.bfloat16)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("rows", [2, UPCAST_ROWS])
def test_a_batch_compiles_whatever_the_processor(dtype, rows):
    module, x = projection(dtype).eval(), torch.randn(rows, 1, 33).to(dtype)
    with torch.inference_mode():
        assert torch.allclose(torch.compile(module, fullgraph=True)(x), module(x), rtol=0.02, atol=0.02)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("way", ["compile", "trace"])
def test_it_stays_one_operation_in_a_compiled_or_traced_step(monkeypatch, way):
    monkeypatch.setattr(linear, "UPCAST_DTYPES", HALVES)
    module, x = projection(torch.bfloat16).eval(), torch.randn(UPCAST_ROWS, 1, 33).bfloat16()
    with torch.inference_mode(way == "compile"), torch.no_grad():
        step = torch.compile(module, fullgraph=True) if way == "compile" else torch.jit.trace(module, x)
        assert torch.equal(step(x), module(x))
    if way == "trace":
        assert "codellm::upcast_linear" in str(step.graph)
