"""What the step kernel is compiled for, and that NVRTC compiles it: without a GPU."""

from __future__ import annotations

import attrs
import pytest

from codellm.errors import BackendUnavailableError
from codellm.sources.architectures import ARCHITECTURES
from codellm.sources.dummy import dummy_config
from codellm_gpu.cuda import kernel
from codellm_gpu.cuda.shape import WARPS, Gpu, Launch, Shape

H200 = Gpu(capability=(9, 0), blocks=132, shared_bytes=232448)
A100 = Gpu(capability=(8, 0), blocks=108, shared_bytes=166912)
RTX_4090 = Gpu(capability=(8, 9), blocks=128, shared_bytes=101376)
MODELS = ("starcoder2-3b", "starcoder2-7b", "starcoder2-15b", "codellama-7b", "llama-3.1-8b", "qwen2.5-coder-1.5b",
          "qwen2.5-coder-7b", "qwen3-0.6b", "qwen3-8b")  # fmt: skip


def shape(model: str, bits: int = 16, **fields) -> Shape:
    raw = dummy_config(model)
    kind = raw["model_type"]
    starcoder2 = kind == "starcoder2"
    made = Shape(
        config=ARCHITECTURES[kind].read(raw, model),
        layer_bits=bits,
        head_bits=16 if bits == 16 else 8,
        fp16=False,
        zeros=False,
        scale_fp16=False,
        gated=not starcoder2,
        rms=not starcoder2,
        qk_norm=kind == "qwen3",
        biases=(starcoder2 or kind == "qwen2", starcoder2, starcoder2, starcoder2, False),
    )
    return attrs.evolve(made, **fields)


@pytest.mark.parametrize("gpu", [H200, A100, RTX_4090], ids=["H200", "A100", "4090"])
@pytest.mark.parametrize("bits", [16, 8, 4])
@pytest.mark.parametrize("model", MODELS)
def test_the_published_models_fit(model, bits, gpu):
    made = shape(model, bits)
    launch = Launch.of(made, gpu)
    if gpu is RTX_4090 and launch.pages < 2:
        assert "shared memory" in (made.fault(gpu) or "")
        return
    assert made.fault(gpu) is None
    assert launch.shared_bytes <= gpu.shared_bytes
    assert 1 <= launch.flight <= launch.pages
    assert launch.blocks % 2 == 0
    assert launch.tiles * 8 <= WARPS * 32
    assert launch.splits * made.config.num_key_value_heads <= launch.blocks


@pytest.mark.parametrize(
    ("model", "bits", "gpu", "fields"),
    [
        ("starcoder2-7b", 16, H200, {}),
        ("starcoder2-7b", 4, A100, {}),
        ("llama-3.1-8b", 4, H200, {"zeros": True, "scale_fp16": True}),
        ("qwen2.5-coder-1.5b", 8, RTX_4090, {"fp16": True}),
        ("qwen3-0.6b", 16, A100, {"fp16": True}),
    ],
)
def test_nvrtc_compiles_it_for_a_gpu_that_is_not_here(model, bits, gpu, fields, monkeypatch, tmp_path):
    pytest.importorskip("cuda.core")
    monkeypatch.setenv("CODELLM_CACHE", str(tmp_path))
    macros = shape(model, bits, **fields).macros(gpu)
    code = kernel.compile_step(macros, gpu.capability)
    assert code[:4] == b"\x7fELF"
    (kept,) = (tmp_path / "kernels").iterdir()
    kept.write_bytes(b"kept")
    assert kernel.compile_step(macros, gpu.capability) == b"kept"  # it is compiled once


def test_a_cache_that_cannot_be_written_costs_only_the_next_compilation(monkeypatch, tmp_path):
    pytest.importorskip("cuda.core")
    (tmp_path / "file").touch()
    monkeypatch.setenv("CODELLM_CACHE", str(tmp_path / "file"))
    macros = shape("qwen3-0.6b").macros(A100)
    assert kernel.compile_step(macros, A100.capability)[:4] == b"\x7fELF"


def test_an_architecture_that_nvrtc_does_not_know_is_told(monkeypatch, tmp_path):
    pytest.importorskip("cuda.core")
    monkeypatch.setenv("CODELLM_CACHE", str(tmp_path))
    with pytest.raises(BackendUnavailableError, match="NVRTC cannot compile the step kernel for sm_31"):
        kernel.compile_step(shape("starcoder2-3b").macros(H200), (3, 1))


@pytest.mark.parametrize(
    ("fields", "gpu", "reason"),
    [
        ({}, attrs.evolve(H200, capability=(7, 5)), "compute capability 7.5"),
        ({"head_dim": 96}, H200, "heads of 96"),
        ({"intermediate_size": 11000}, H200, "no multiple of 128"),
        ({"num_attention_heads": 68}, H200, "17 query heads"),
        ({}, attrs.evolve(H200, shared_bytes=49152), "48 KiB of shared memory"),
    ],
)
def test_it_says_why_it_cannot_be_made(fields, gpu, reason):
    made = shape("starcoder2-7b")
    found = attrs.evolve(made, config=attrs.evolve(made.config, **fields)).fault(gpu)
    assert found is not None
    assert reason in found
