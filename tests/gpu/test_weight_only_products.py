"""The kernels that multiply by 8 and 4 bits: interpreted where there is no GPU, and compiled for two kinds of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from codellm_gpu.cuda import weight_only_products as products
from codellm_gpu.cuda.rounding import GROUP
from codellm_gpu.cuda.weight_only import FEW, Int4Linear, Int8Linear

COMPILE = Path(__file__).parents[1] / "support" / "compile_kernels.py"
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
DTYPES = [torch.float16, torch.bfloat16] if CUDA else [torch.float16]  # Triton's interpreter has no bfloat16
SHAPES = [(1, 70, 256), (5, 130, 640), (16, 64, 128), (33, 200, 1024), (64, 129, 384)]


def linear_of(kind, outputs, inputs, dtype, *, zeros=False, bias=True):
    torch.manual_seed(0)
    weight = torch.randn(outputs, inputs, device=DEVICE) * torch.rand(outputs, 1, device=DEVICE) / inputs**0.5
    made = kind.of(weight.to(dtype), torch.randn(outputs, device=DEVICE).to(dtype) if bias else None)
    if zeros:
        points = torch.randint(0, 17, made.scales.shape, dtype=torch.uint8, device=DEVICE)
        made = Int4Linear(made.packed, made.scales, points, made.bias)
    return made


def rows_of(rows, inputs, dtype):
    torch.manual_seed(1)
    return torch.randn(rows, inputs, device=DEVICE).to(dtype)


def plain(linear, dtype):
    """The weights by torch alone, wherever they lie: what `dequantized` gives on a CPU."""
    codes, scales = linear.codes().float(), linear.scales.float()
    if linear.bits == 8:
        return ((codes - 128) * scales[:, None]).to(dtype)
    zeros = torch.full_like(scales, 8) if linear.zeros is None else linear.zeros.float()
    zeros, scales = (part.repeat_interleave(GROUP, dim=1) for part in (zeros, scales))
    return ((codes - zeros) * scales).to(dtype)


KINDS = {
    "8 bits": (Int8Linear, {}),
    "8 bits without bias": (Int8Linear, {"bias": False}),
    "4 bits": (Int4Linear, {}),
    "4 bits without bias": (Int4Linear, {"bias": False}),
    "4 bits, zero points": (Int4Linear, {"zeros": True}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_few_rows_are_multiplied_by_the_weights(shape, dtype, kind):
    (rows, outputs, inputs), (of, fields) = shape, KINDS[kind]
    linear, x = linear_of(of, outputs, inputs, dtype, **fields), rows_of(rows, inputs, dtype)
    expected = x.double() @ plain(linear, torch.float32).double().T
    expected = expected if linear.bias is None else expected + linear.bias.double()
    found = products.added(linear.parts(x), linear.bias, dtype)
    assert found.dtype == dtype
    assert (found.double() - expected).norm() < torch.finfo(dtype).eps * expected.norm()


@pytest.mark.parametrize("inputs", [8, 200])
def test_8_bits_take_inputs_of_any_number(inputs):
    linear, x = linear_of(Int8Linear, 20, inputs, torch.float16), rows_of(3, inputs, torch.float16)
    expected = x.double() @ plain(linear, torch.float32).double().T + linear.bias.double()
    assert (
        products.added(linear.parts(x), linear.bias, torch.float16).double() - expected
    ).norm() < 1e-3 * expected.norm()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("inputs", [128, 640, 2176])
def test_the_weights_written_out_are_those_of_torch(inputs, dtype, kind):
    of, fields = KINDS[kind]
    linear = linear_of(of, 7, inputs, dtype, **fields)
    part = slice(2, 6)
    if of is Int8Linear:
        found = products.int8_floats(linear.levels[part], linear.scales[part], dtype)
    else:
        zeros = None if linear.zeros is None else linear.zeros[part]
        found = products.int4_floats(linear.packed[part], linear.scales[part], zeros, dtype)
    assert torch.equal(found, plain(linear, dtype)[part])


@pytest.mark.parametrize("rows", [1, 2, 16, 17, 32, 64])
@pytest.mark.parametrize(("outputs", "inputs"), [(64, 128), (4608, 18432), (49152, 4608), (5376, 4608), (70, 200)])
def test_tiles_cover_a_product(rows, outputs, inputs):
    tiles = products.tiles_of(rows, outputs, inputs)
    steps = -(-inputs // products.INPUTS)
    assert rows <= tiles.rows
    assert (tiles.parts - 1) * tiles.steps < steps <= tiles.parts * tiles.steps


@pytest.mark.parametrize("capability", [80, 90])
def test_the_kernels_compile_without_a_gpu(capability):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    script = [sys.executable, str(COMPILE), str(capability)]
    done = subprocess.run(script, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("rows", [1, FEW, FEW + 1, 200])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_gpu_computes_what_a_cpu_does(kind, rows):
    of, fields = KINDS[kind]
    linear, x = linear_of(of, 300, 512, torch.bfloat16, **fields), rows_of(rows, 512, torch.bfloat16)
    found = linear(x[None]).double()[0].cpu()
    assert torch.equal(linear.dequantized(slice(0, 300), torch.bfloat16), plain(linear, torch.bfloat16))
    expected = linear.cpu()(x.cpu()).double()
    assert (found - expected).norm() < 1e-2 * expected.norm()


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_product_repeats_and_can_be_captured(kind):
    of, fields = KINDS[kind]
    linear, x = linear_of(of, 4608, 4608, torch.bfloat16, **fields), rows_of(32, 4608, torch.bfloat16)
    for rows in (1, 32):
        part = x[:rows].clone()
        expected = linear(part)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = linear(part)
        for _ in range(20):
            captured.zero_()
            graph.replay()
            assert torch.equal(captured, expected)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [Int8Linear, Int4Linear])
def test_quantizing_takes_little_memory_beside_the_weights(kind):
    weight = torch.randn(18432, 4608, device="cuda").bfloat16()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    made = kind.of(weight, None)
    kept = made.packed.nbytes if kind is Int4Linear else made.levels.nbytes
    assert torch.cuda.max_memory_allocated() - before < kept + 300_000_000
