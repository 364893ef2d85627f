"""What the schemes int8 and int4 of torch-cuda cost the bundled model, measured on the CPU.

    python tests/benchmarks/weight_only.py --output docs/results/weight-only-demo.json

`plain` is int4 with the greatest weight of a group at level 7 or -7, and no search: what the choice of scales gains.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import common
import heldout
import torch

from codellm.loading import find
from codellm.spec import LoadSpec
from codellm.tokenizer import HFTokenizer
from codellm.torch.decoder import Decoder
from codellm.torch.decoder_engine import DecoderEngine
from codellm.torch.load import Plan, plan
from codellm.torch.model import TorchModel
from codellm_gpu.cuda import weight_only
from codellm_gpu.cuda.quantized_weights import quantized_weights
from codellm_gpu.cuda.rounding import nearest
from codellm_gpu.cuda.schemes import SCHEMES

MODEL = "codellm-demo"
MEMORY = 1 << 33


def planned() -> Plan:
    spec = LoadSpec(model=MODEL, backend="torch-cuda", device="cpu", context_length=1024)
    return plan(spec, find(MODEL).fetch(), torch.device("cpu"), MEMORY)


def decoder_of(made: Plan, scheme: str | None) -> Decoder:
    if scheme is None:
        return made.decoder()
    assert made.source.tensors is not None
    weights = quantized_weights(scheme, made.source.tensors, made.infos, made.dtype, made.device)
    return Decoder(made.config, weights, made.context_length).eval()


def measured(made: Plan, decoder: Decoder) -> tuple[float, list[float]]:
    tokenizer = HFTokenizer.of(made.source)
    engine = DecoderEngine(
        decoder,
        made.cache(),
        vocab_size=tokenizer.vocab_size,
        context_length=made.context_length,
        chunk=made.chunk,
    )
    with TorchModel(made.info("torch-cuda", made.weight_bytes), tokenizer, engine) as model:
        return heldout.losses(model)


def greatest(groups: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """`round_groups` without a search."""
    scales = (groups.abs().amax(-1, keepdim=True) / 7).to(dtype)
    return (nearest(groups, scales.float()) + 8).to(torch.uint8), scales.squeeze(-1)


def row(
    name: str, made: Plan, gate: float, plain: list[float], rounding: Callable[..., Any] = weight_only.round_groups
) -> dict[str, Any]:
    begin = time.perf_counter()
    with patch.object(weight_only, "round_groups", rounding):
        decoder = decoder_of(made, "int4" if name == "plain" else name)
    seconds = time.perf_counter() - begin
    size = sum(part.nbytes for part in decoder.state_dict().values())  # which leaves out the table of rotary angles
    found, bits = measured(made, decoder)
    rise, error = heldout.difference(bits, plain)
    return {
        "scheme": name,
        "bytes": size,
        "bits_per_weight": size * 8 / made.parameters,
        "seconds": seconds,
        "gate": found,
        "gate_rise": found - gate,
        "bound": next((scheme.bound for scheme in SCHEMES if scheme.name == name), None),
        "heldout_rise": rise,
        "heldout_rise_error": error,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    made = planned()
    gate, plain = measured(made, decoder_of(made, None))
    rows = [row("int8", made, gate, plain), row("int4", made, gate, plain), row("plain", made, gate, plain, greatest)]
    for each in rows:
        print(each, flush=True)
    size = sum(document.size for document in heldout.documents())
    common.write(
        given.output,
        model=MODEL,
        dtype=made.name,
        heldout_bytes=size,
        heldout_documents=len(heldout.documents()),
        base={"gate": gate, "heldout": sum(plain) / size},
        rows=rows,
    )


if __name__ == "__main__":
    main()
