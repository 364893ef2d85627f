"""What checkpoints of GPTQ and bitsandbytes cost the bundled model: written, loaded again, measured on the CPU.

    nox -s gptq

writes docs/results/gptq-demo.json, in an environment of its own: gptqmodel wants an older numpy.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import common
import heldout

import codellm
from codellm.artifacts import calibration
from codellm.artifacts.ensure import ensure
from codellm.loading import find
from codellm.plugins.registry import registry

MODEL = "codellm-demo"
BACKEND = "transformers-cpu"
SCHEMES = ("gptq-int8", "gptq-int4", "gptq-int3", "bnb-int8", "bnb-nf4", "bnb-fp4")


def measured(model: str) -> tuple[float, list[float]]:
    with codellm.load(model, backend=BACKEND, threads=1) as loaded:
        return heldout.losses(loaded)


def row(scheme: str, gate: float, plain: list[float]) -> dict[str, Any]:
    """Make the checkpoint behind the gate, and measure it from its directory, as anybody would load it."""
    made = ensure(find(MODEL).fetch(), registry().scheme(scheme))
    assert made.path is not None
    manifest = json.loads((made.path.parent / "manifest.json").read_text())
    found, bits = measured(str(made.path))
    rise, error = heldout.difference(bits, plain)
    return {
        "scheme": scheme,
        "bytes": manifest["bytes"],
        "bits_per_weight": manifest["weight_bytes"] * 8 / manifest["parameters"],
        "seconds": manifest["seconds"],
        "gate": found,
        "gate_rise": found - gate,
        "bound": registry().scheme(scheme).bound,
        "heldout_rise": rise,
        "heldout_rise_error": error,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    gate, plain = measured(MODEL)
    rows = []
    for scheme in SCHEMES:
        rows.append(row(scheme, gate, plain))
        print(rows[-1], flush=True)
    size = sum(document.size for document in heldout.documents())
    common.write(
        given.output,
        model=MODEL,
        backend=BACKEND,
        calibration={"text": "codellm", "sha256": calibration.bundled().digest},
        heldout_bytes=size,
        heldout_documents=len(heldout.documents()),
        base={"gate": gate, "heldout": sum(plain) / size},
        rows=rows,
    )


if __name__ == "__main__":
    main()
