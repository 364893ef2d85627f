"""The backend `torch-cuda`: on a CPU, where Triton interprets its kernels, and on a GPU."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

import codellm
from codellm.errors import BackendUnavailableError, InvalidValueError
from support.checkpoints import Arrays, config_of, random_weights, save_safetensors, train_tokenizer
from support.conformance import DRAWS, run

NAME = "torch-cuda"


def load(model, **fields):
    return codellm.load(str(model), backend=NAME, **fields)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model that an interpreter computes in a second, whose sizes int4 takes."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer, tokenizer_config = train_tokenizer("starcoder2", folder)
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = config_of("starcoder2", 600, num_hidden_layers=1, **sizes)
    weights = random_weights(config)
    save_safetensors(folder / "model.safetensors", Arrays(weights), list(weights))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    if tokenizer != folder / "tokenizer.json":
        shutil.copyfile(tokenizer, folder / "tokenizer.json")
    return folder


def test_it_is_chosen_before_transformers():
    from codellm_gpu.backend import TransformersCudaBackend
    from codellm_gpu.cuda.backend import TorchCudaBackend

    assert TorchCudaBackend.preference > TransformersCudaBackend.preference
    assert {scheme.name for scheme in TorchCudaBackend().schemes()} >= {"int8", "int4"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="interprets")
class TestOnTheCpu:
    def test_it_answers_as_our_decoder_does(self, checkpoint):
        prompt, params = "def add(a, b):", codellm.SamplingParams(max_tokens=4, ignore_eos=True)
        with (
            load(checkpoint, device="cpu", dtype="float32") as model,
            codellm.load(str(checkpoint), backend="torch-cpu", dtype="float32") as other,
        ):
            assert model.generate(prompt, params).token_ids == other.generate(prompt, params).token_ids
            assert model.info.backend == NAME
            assert model.info.weight_bytes == other.info.weight_bytes

    def test_several_sequences_are_as_each_alone(self, checkpoint):
        prompts = ["a", "def f(x):", "import os"]
        params = codellm.SamplingParams(max_tokens=2, ignore_eos=True)
        with load(checkpoint, device="cpu", dtype="float32", batch_size=2) as model:
            together = [result.token_ids for result in model.generate_batch(prompts, params)]
            assert together == [model.generate(prompt, params).token_ids for prompt in prompts]

    def test_an_edited_prompt_is_computed_from_its_edit(self, checkpoint):
        text, params = "import os\nimport sys\n" * 8, codellm.SamplingParams(max_tokens=2, ignore_eos=True)
        prompts = [text, f"{text}x", text[:-4] + "re", "a", text]
        with load(checkpoint, device="cpu", dtype="float32", options={"prefix_cache": "auto"}) as model:
            assert model.info.prefix_cache > 0
            results = [model.generate(prompt, params) for prompt in prompts]
        assert [result.cached_tokens > 32 for result in results] == [False, True, True, False, True]
        with load(checkpoint, device="cpu", dtype="float32") as model:
            assert model.info.prefix_cache is None
            assert [result.token_ids for result in results] == [
                model.generate(each, params).token_ids for each in prompts
            ]

    @pytest.mark.parametrize("scheme", ["int8", "int4"])
    def test_schemes_are_applied_while_loading(self, scheme, checkpoint):
        with load(checkpoint, device="cpu", dtype="float16", scheme=scheme) as model:
            assert model.info.scheme == scheme
            with load(checkpoint, device="cpu", dtype="float16") as plain:
                assert model.info.weight_bytes < plain.info.weight_bytes
            assert len(model.generate("x", codellm.SamplingParams(max_tokens=2, ignore_eos=True)).token_ids) == 2

    def test_more_sequences_than_a_step_has_rows_are_refused(self, checkpoint):
        with pytest.raises(InvalidValueError, match="up to 64 sequences together, not 65"):
            load(checkpoint, device="cpu", batch_size=65)

    def test_the_kernel_that_is_asked_for_says_why_it_cannot_be(self, checkpoint):
        with pytest.raises(BackendUnavailableError, match="the step kernel runs on a GPU"):
            load(checkpoint, device="cpu", options={"kernel": "on"})

    def test_without_the_interpreter_it_needs_a_gpu(self, checkpoint, monkeypatch):
        monkeypatch.delenv("TRITON_INTERPRET")
        with pytest.raises(InvalidValueError, match="torch-cuda runs on the device cuda"):
            load(checkpoint, device="cpu")


@pytest.mark.gpu
class TestOnAGpu:
    @pytest.mark.parametrize("kernel", ["on", "off"])
    @pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
    def test_it_passes_the_conformance_kit(self, dtype, kernel, tmp_path):
        options = (f"--codellm-backend={NAME}", f"--codellm-spec=dtype={dtype}", "--codellm-tolerance=0.3", *DRAWS)
        assert f"backend {NAME}" in run(tmp_path, *options, f"--codellm-option=kernel={kernel}")

    def test_it_passes_the_conformance_kit_where_prefixes_are_kept(self, tmp_path):
        options = (f"--codellm-backend={NAME}", "--codellm-spec=dtype=bfloat16", "--codellm-tolerance=0.3", *DRAWS)
        assert f"backend {NAME}" in run(tmp_path, *options, "--codellm-option=prefix_cache=auto")

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
