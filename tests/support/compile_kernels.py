"""Compile the weight-only kernels for a compute capability, with no GPU: `python compile_kernels.py 90`."""

from __future__ import annotations

import sys
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from codellm_gpu.cuda import weight_only_products as products

ALIGNED = ("inputs", "outputs", "each")
"""Whole numbers that are multiples of 16 in models, which Triton makes use of."""
TYPES = {"levels": "*i8", "packed": "*u8", "zeros": "*u8", "parts": "*fp32"}


def compiled(kernel: Any, capability: int, dtype: str, *, warps: int = 4, stages: int = 4, **constants: Any) -> Any:
    """What Triton makes of `kernel` for values of `dtype` where TYPES has no other, with its `constants`."""
    signature, attributes = {}, {}
    types = TYPES | ({"out": "*fp32"} if "ROWS" in constants else {})
    for number, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
            continue
        whole = name in {"rows", "groups", "count", *ALIGNED}
        signature[name] = "i32" if whole else types.get(name, f"*{dtype}")
        if not whole or name in ALIGNED:
            attributes[(number,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def compile_all(capability: int) -> None:
    for dtype in ("bf16", "fp16"):
        for rows in (1, 32, 64):
            tiles = products.tiles_of(rows, 4608, 4608)
            sizes = {"ROWS": tiles.rows, "OUTPUTS": tiles.outputs}
            how = {"warps": tiles.warps, "stages": tiles.stages}
            compiled(products._int8, capability, dtype, **how, **sizes, INPUTS=products.INPUTS)
            compiled(products._int4, capability, dtype, **how, **sizes, HALF=64, ZEROS=False, zeros=None)
            compiled(products._int4, capability, dtype, **how, **sizes, HALF=64, ZEROS=True)
        compiled(products._add, capability, dtype, PARTS=4, BIAS=True, BLOCK=256)
        compiled(products._int8_floats, capability, dtype, INPUTS=1024)
        compiled(products._int4_floats, capability, dtype, GROUPS=16, HALF=64, ZEROS=True)


if __name__ == "__main__":
    compile_all(int(sys.argv[1]))
