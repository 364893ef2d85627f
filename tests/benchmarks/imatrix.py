"""What each scheme costs the bundled model, with and without an importance matrix, and what broken files would cost.

    python tests/benchmarks/imatrix.py --output docs/results/quantization-imatrix.json

Each file is read twice: the quality gate's text gives what its bounds come from, the held-out documents of codellm-eval
(neither the gate's text nor the calibration text) what the matrix is worth. A difference is paired by document, and its
standard error is that of a total over documents drawn at random (a ratio estimate, Cochran, Sampling Techniques, 6.4).
The broken files are in q8_0 with one layer's matrix moved by a row.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import tempfile
from pathlib import Path
from typing import Any

import common
import gguf
import heldout

import codellm
from codellm.artifacts import calibration, quality
from codellm.artifacts.ensure import ensure
from codellm.artifacts.request import QuantizeRequest
from codellm.loading import find
from codellm.plugins.registry import registry
from codellm_cpu.imatrix import matrix
from codellm_cpu.llama.header import read_header
from codellm_cpu.mixture import mix
from codellm_cpu.quantize import weights
from codellm_cpu.quantizer import run_quantizer
from codellm_cpu.schemes import FILE_TYPES

MODEL = "codellm-demo"


def losses(path: Path) -> tuple[float, list[float]]:
    with codellm.load(str(path), threads=1) as model:
        return heldout.losses(model)


def make(job: tuple[Path, str, Path | None, Path]) -> dict[str, Any]:
    """Quantize and measure."""
    base, scheme, weighed, folder = job
    path = folder / f"{scheme}-{weighed is not None}.gguf"
    mixture = mix(base, read_header(base), FILE_TYPES[scheme], matrix=weighed is not None)
    run_quantizer(base, mixture, path, matrix=weighed, threads=1, progress=lambda done, total: None)
    gate, bits = losses(path)
    held = weights(read_header(path))
    path.unlink()
    return {
        "scheme": scheme,
        "matrix": weighed is not None,
        "bits_per_weight": held["weight_bytes"] * 8 / held["parameters"],
        "gate": gate,
        "heldout": bits,
    }


def broken(job: tuple[Path, str, Path]) -> dict[str, Any]:
    """Measure a copy of a file with the rows of one matrix moved on by one."""
    whole, name, folder = job
    path = folder / f"{name}.gguf"
    path.write_bytes(whole.read_bytes())
    tensor = next(tensor for tensor in gguf.GGUFReader(path, "r+").tensors if tensor.name == name)
    tensor.data[:] = tensor.data[[-1, *range(len(tensor.data) - 1)]].copy()
    tensor.data.base.flush() if hasattr(tensor.data.base, "flush") else None
    gate, _ = losses(path)
    path.unlink()
    return {"tensor": name, "gate": gate}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    source = find(MODEL).fetch()
    base = ensure(source, registry().scheme("bf16"))
    whole = ensure(source, registry().scheme("q8_0"))
    assert base.path is not None
    assert whole.path is not None
    text = calibration.bundled()
    request = QuantizeRequest(source=base, scheme=registry().scheme("iq2_xxs"), destination=Path(), threads=1)
    weighed = matrix(request, text, base.path, lambda done, total: None)
    pairs = [
        (kind.name, each)
        for kind in FILE_TYPES.values()
        for each in {"none": [None], "needs": [weighed]}.get(kind.calibration, [None, weighed])
    ]
    layers = [
        name
        for name in read_header(whole.path).tensors
        if name.startswith("blk.") and name.endswith(("ffn_down.weight", "ffn_up.weight", "attn_v.weight"))
    ]
    gate, whole_bits = losses(base.path)
    with (
        tempfile.TemporaryDirectory() as name,
        concurrent.futures.ProcessPoolExecutor(given.processes) as pool,
    ):
        folder = Path(name)
        rows = list(pool.map(make, [(base.path, scheme, each, folder) for scheme, each in pairs]))
        damaged = list(pool.map(broken, [(whole.path, tensor, folder) for tensor in layers]))
    plain = {row["scheme"]: row["heldout"] for row in rows if not row["matrix"]}
    size = sum(document.size for document in heldout.documents())
    for row in rows:
        bits = row.pop("heldout")
        row["gate_rise"] = row["gate"] - gate
        row["heldout"] = sum(bits) / size
        row["heldout_rise"], row["heldout_rise_error"] = heldout.difference(bits, whole_bits)
        if row["matrix"] and row["scheme"] in plain:
            row["of_the_matrix"], row["of_the_matrix_error"] = heldout.difference(bits, plain[row["scheme"]])
        print({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}, flush=True)
    for row in damaged:
        row["gate_rise"] = row["gate"] - gate
        print(row)
    common.write(
        given.output,
        model=MODEL,
        gate_tokens=quality.GATE_TOKENS,
        heldout_bytes=size,
        heldout_documents=len(heldout.documents()),
        protocol="document",
        base={"gate": gate, "heldout": sum(whole_bits) / size},
        rows=rows,
        broken=damaged,
    )


if __name__ == "__main__":
    main()
