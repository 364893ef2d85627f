"""What a model would take in every scheme, as llama.cpp plans it without computing a weight.

    python tests/benchmarks/plan.py --output docs/results/quantization-3b-sizes.json

The codebook schemes take minutes to hours on two cores, their sizes none. The size is that of the file, up to 16 KiB
above it.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import common

from codellm.artifacts.ensure import ensure
from codellm.loading import find
from codellm.plugins.registry import registry
from codellm.scheme import PRECISIONS
from codellm_cpu.llama.header import read_header
from codellm_cpu.quantizer import planned_size
from codellm_cpu.schemes import FILE_TYPES


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="dummy:starcoder2-3b")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    source = find(given.model).fetch()
    path = ensure(source, registry().scheme(PRECISIONS[source.dtype])).path
    assert path is not None
    header = read_header(path)
    count = sum(math.prod(tensor.shape) for tensor in header.tensors.values())
    rest = path.stat().st_size - sum(tensor.size for tensor in header.tensors.values())
    rows = []
    for kind in FILE_TYPES.values():
        size = planned_size(path, header, kind, matrix=kind.calibration in {"wants", "needs"})
        rows.append({"scheme": kind.name, "size": size, "bits_per_weight": (size - rest) * 8 / count})
        print(rows[-1], flush=True)
    common.write(given.output, model=given.model, parameters=count, rows=rows)


if __name__ == "__main__":
    main()
