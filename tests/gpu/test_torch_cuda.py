"""The backend `torch-cuda`: on a CPU, where Triton interprets its kernels, and on a GPU."""

from __future__ import annotations

import pytest
import torch

import codellm
from codellm.errors import BackendUnavailableError, InvalidValueError
from support.conformance import DRAWS, run

NAME = "torch-cuda"


def load(model="dummy:tiny", **fields):
    return codellm.load(model, backend=NAME, **fields)


def test_it_is_chosen_before_transformers():
    from codellm_gpu.backend import TransformersCudaBackend
    from codellm_gpu.cuda.backend import TorchCudaBackend

    assert TorchCudaBackend.preference > TransformersCudaBackend.preference
    assert {scheme.name for scheme in TorchCudaBackend().schemes()} >= {"int8", "int4"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="interprets")
class TestOnTheCpu:
    def test_it_answers_as_our_decoder_does(self):
        prompt, params = "def add(a, b):", codellm.SamplingParams(max_tokens=6, ignore_eos=True)
        with (
            load(device="cpu", dtype="float32") as model,
            codellm.load("dummy:tiny", backend="torch-cpu", dtype="float32") as other,
        ):
            assert model.generate(prompt, params).token_ids == other.generate(prompt, params).token_ids
            assert model.info.backend == NAME
            assert model.info.weight_bytes == other.info.weight_bytes

    def test_several_sequences_are_as_each_alone(self):
        prompts = ["a", "def f(x):\n    return", "import os\n"]
        params = codellm.SamplingParams(max_tokens=4, ignore_eos=True)
        with load(device="cpu", dtype="float32", batch_size=2) as model:
            together = [result.token_ids for result in model.generate_batch(prompts, params)]
            assert together == [model.generate(prompt, params).token_ids for prompt in prompts]

    @pytest.mark.parametrize("scheme", ["int8", "int4"])
    def test_schemes_are_applied_while_loading(self, scheme):
        with load(device="cpu", dtype="float16", scheme=scheme) as model:
            assert model.info.scheme == scheme
            with load(device="cpu", dtype="float16") as plain:
                assert model.info.weight_bytes < plain.info.weight_bytes
            assert len(model.generate("x", codellm.SamplingParams(max_tokens=2, ignore_eos=True)).token_ids) == 2

    def test_more_sequences_than_a_step_has_rows_are_refused(self):
        with pytest.raises(InvalidValueError, match="up to 64 sequences together, not 65"):
            load(device="cpu", batch_size=65)

    def test_the_kernel_that_is_asked_for_says_why_it_cannot_be(self):
        with pytest.raises(BackendUnavailableError, match="the step kernel runs on a GPU"):
            load(device="cpu", options={"kernel": "on"})

    def test_without_the_interpreter_it_needs_a_gpu(self, monkeypatch):
        monkeypatch.delenv("TRITON_INTERPRET")
        with pytest.raises(InvalidValueError, match="torch-cuda runs on the device cuda"):
            load(device="cpu")


@pytest.mark.gpu
class TestOnAGpu:
    @pytest.mark.parametrize("kernel", ["on", "off"])
    @pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
    def test_it_passes_the_conformance_kit(self, dtype, kernel, tmp_path):
        options = (f"--codellm-backend={NAME}", f"--codellm-spec=dtype={dtype}", "--codellm-tolerance=0.3", *DRAWS)
        assert f"backend {NAME}" in run(tmp_path, *options, f"--codellm-option=kernel={kernel}")

    def test_it_is_what_a_gpu_gets(self):
        with codellm.load("codellm-demo") as model:
            assert model.info.backend == NAME

    @pytest.mark.parametrize("scheme", [None, "int8", "int4"])
    def test_a_step_is_near_that_of_the_graphs(self, scheme):
        found = []
        for kernel in ("on", "off"):
            with load("codellm-demo", scheme=scheme, dtype="bfloat16", options={"kernel": kernel}) as model:
                found.append(model.generate("def add(a, b):\n    ", codellm.SamplingParams(max_tokens=24)).token_ids)
        assert found[0][:4] == found[1][:4]  # further on a tie in bfloat16 may part them
