"""The projection: however it is computed, it is the product, and the way is chosen by rows, type and processor."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from codellm.torch.linear import UPCAST_ROWS, Linear, emulates, has_matmul, multiply_blocks

HALVES = (torch.bfloat16, torch.float16)


class Upcast(Linear):
    """On a processor without a product of matrices in half precision."""

    upcast = HALVES


class Native(Linear):
    """On one that has them."""

    upcast = ()


def projection(dtype, out=70, size=33, bias=True, kind=Linear):
    torch.manual_seed(0)
    return kind(size, out, bias=bias).to(dtype).requires_grad_(False)


class Operations(TorchDispatchMode):
    """The names of the operations of a block."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.name())
        return function(*args, **(kwargs or {}))


def exact(module, x):
    """In float64, then rounded once."""
    bias = None if module.bias is None else module.bias.double()
    return torch.nn.functional.linear(x.double(), module.weight.double(), bias)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("block", [1, 33 * 7, 1 << 20])
def test_widened_is_the_product_rounded_once(dtype, bias, block):
    module = projection(dtype, bias=bias)
    x = torch.randn(2, 9, 33).to(dtype)
    found = multiply_blocks(x, module.weight, module.bias, block)
    assert (found.dtype, found.shape) == (dtype, (2, 9, 70))
    expected = exact(module, x)
    assert ((found.double() - expected).abs() <= torch.finfo(dtype).eps * expected.abs() + 1e-6).all()


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32])
@pytest.mark.parametrize("rows", [1, UPCAST_ROWS - 1, UPCAST_ROWS])
@pytest.mark.parametrize("can", [True, False])
def test_many_rows_are_widened_where_the_processor_has_no_product_of_their_type(dtype, rows, can):
    module, x = projection(dtype, kind=Native if can else Upcast), torch.randn(1, rows, 33).to(dtype)
    with Operations() as seen:
        found = module(x)
    assert seen.names.count("codellm::upcast_linear") == (dtype != torch.float32 and rows >= UPCAST_ROWS and not can)
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
def test_a_product_that_onednn_emulates_is_none(processor, native):
    assert emulates(processor) is not native


def test_without_onednn_torch_is_left_to_itself(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert has_matmul(torch.bfloat16)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("rows", [2, UPCAST_ROWS])
def test_a_batch_compiles_whatever_the_processor(dtype, rows):
    module, x = projection(dtype).eval(), torch.randn(rows, 1, 33).to(dtype)
    with torch.inference_mode():
        assert torch.allclose(torch.compile(module, fullgraph=True)(x), module(x), rtol=0.02, atol=0.02)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("way", ["compile", "trace"])
def test_it_stays_one_operation_in_a_compiled_or_traced_step(way):
    module, x = projection(torch.bfloat16, kind=Upcast).eval(), torch.randn(UPCAST_ROWS, 1, 33).bfloat16()
    with torch.inference_mode(way == "compile"), torch.no_grad():
        step = torch.compile(module, fullgraph=True) if way == "compile" else torch.jit.trace(module, x)
        assert torch.equal(step(x), module(x))
    if way == "trace":
        assert "codellm::upcast_linear" in str(step.graph)
