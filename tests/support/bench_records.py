"""Records of `codellm bench`, without a process."""

from __future__ import annotations

import attrs

from codellm.model import ModelInfo
from codellm_eval.bench.ask.plan import Plan
from codellm_eval.bench.ask.row import Row
from codellm_eval.bench.records.record import Record
from codellm_eval.stats.repeats import Repeats

INFO = ModelInfo(
    backend="llama-cpp", architecture="starcoder2", parameters=1000, weight_bytes=14_345_000_000, context_length=2048,
    dtype="float16", scheme="q4_k_m", device="cpu", path="/m.gguf",
)  # fmt: skip


def record(row="llama-cpp:q4_k_m", **fields):
    return Record(
        row=Row.parse(row), model="m", plan=Plan(), info=INFO, prefill=Repeats((15000.0, 15100.0)),
        decode=Repeats((88.8, 99.9)), ttft=Repeats((12.345, 10.0)), tpot=Repeats((0.0123, 0.0125)),
        host_peak=15_012_000_000, device_peak=0, bandwidth=2e12, bits_per_byte=1.2345, pass_at_1=0.128, passed=21,
        tasks=164, seconds=10.0,
    ) if not fields else attrs.evolve(record(row), **fields)  # fmt: skip
