"""The backends as a user meets them: choosing, options, refusals in one line, dummy weights, memory."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch

import codellm
from codellm.errors import (
    BackendChoiceError,
    BackendUnavailableError,
    CodellmError,
    InvalidValueError,
    ModelFileError,
    NotEnoughMemoryError,
    UnknownNameError,
)
from codellm.loading import find
from codellm.plugins.registry import registry
from codellm.sources.dummy import DummyTensors
from codellm.spec import LoadSpec
from codellm.torch.load import plan
from codellm.torch.model import TorchModel
from support.checkpoints import Arrays, config_of, random_weights, source_of, train_tokenizer
from support.engines import Wrapped

PAGE = Path(__file__).parents[2] / "docs" / "torch.md"
BOTH = ("torch-cpu", "transformers-cpu")
PARAMS = codellm.SamplingParams(max_tokens=6, ignore_eos=True)


def command(*arguments):
    return subprocess.run([sys.executable, "-m", "codellm", *arguments], capture_output=True, text=True, timeout=300)


def test_llama_cpp_stays_the_one_that_is_chosen():
    assert registry().choose(LoadSpec(model="codellm-demo"), "safetensors").name == "llama-cpp"


def test_a_scheme_of_bitsandbytes_chooses_transformers():
    spec = LoadSpec(model="codellm-demo", scheme="bnb-nf4")
    assert registry().choose(spec, "safetensors").name == "transformers-cpu"


@pytest.mark.parametrize("line", re.findall(r"^codellm (generate -b .*)$", PAGE.read_text(), re.MULTILINE))
def test_a_command_of_the_documentation_works(line):
    done = command(*(part.strip("'") for part in re.findall(r"'[^']*'|\S+", line)), "--max-tokens", "4")
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert "Warning" not in done.stderr


def test_greedy_tokens_are_the_same_on_both_backends_and_in_every_mode():
    found = set()
    ways = [{"backend": "torch-cpu", "options": {"mode": mode}} for mode in ("eager", "jit")]
    ways += [{"backend": "transformers-cpu", "attn_implementation": each} for each in ("eager", "sdpa")]
    for way in ways:
        with codellm.load("codellm-demo", dtype="float32", batch_size=2, **way) as model:
            results = model.generate_batch(["def add(a, b):\n", "import "], codellm.SamplingParams(max_tokens=24))
            found.add(tuple(result.token_ids for result in results))
    assert len(found) == 1


@pytest.mark.parametrize(
    ("backend", "fields", "error", "message"),
    [
        ("torch-cpu", {"options": {"mode": "fast"}}, InvalidValueError, "mode is one of eager, jit, compile"),
        ("torch-cpu", {"options": {"chunk": "5"}}, UnknownNameError, "unknown option 'chunk'"),
        ("torch-cpu", {"attn_implementation": "eager"}, InvalidValueError, "attn_implementation"),
        ("torch-cpu", {"context_length": 5000}, InvalidValueError, "at most the 2048 tokens"),
        ("torch-cpu", {"device": "cuda"}, InvalidValueError, "runs on the device cpu"),
        ("transformers-cpu", {"attn_implementation": "flash"}, InvalidValueError, "sdpa or eager, not flash"),
        ("transformers-cpu", {"options": {"mode": "jit"}}, UnknownNameError, "unknown option 'mode'"),
        ("transformers-cpu", {"options": {"chunk": "0"}}, InvalidValueError, "chunk is a number of tokens from 1 to"),
        ("transformers-cpu", {"options": {"threshold": "6"}}, UnknownNameError, "unknown option 'threshold'"),
        ("transformers-cpu", {"scheme": "bnb-nf4", "options": {"threshold": "6"}}, UnknownNameError, "'threshold'"),
        ("transformers-cpu", {"scheme": "bnb-int8", "options": {"threshold": "-1"}}, InvalidValueError, "above 0, not"),
        ("transformers-cpu", {"scheme": "q4_0"}, UnknownNameError, "scheme of backend 'transformers-cpu'"),
    ],
)
def test_what_cannot_be_honoured_is_refused(backend, fields, error, message):
    with pytest.raises(error, match=message):
        codellm.load("codellm-demo", backend=backend, **fields)


def test_without_a_compiler_the_mode_says_what_to_do(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BackendUnavailableError, match=r"mode=compile needs a C\+\+ compiler, and no-such-compiler"):
        codellm.load("codellm-demo", backend="torch-cpu", options={"mode": "compile"})


@pytest.mark.parametrize("backend", BOTH)
def test_too_little_memory_is_told_before_a_weight_is_read(backend):
    class Unread(DummyTensors):
        def read(self, name):
            raise AssertionError(f"{name} was read")

    source = find("dummy:starcoder2-7b").fetch()
    source = attrs.evolve(source, tensors=Unread(source.config))
    spec = LoadSpec(model=source.name, backend=backend, context_length=16384, batch_size=1_000_000)
    with pytest.raises(NotEnoughMemoryError, match=r"GB of memory \(14\.3 for weights, .* for 1000000 x 16384 tokens"):
        registry().backend(backend).load(spec, source)
    with pytest.raises(NotEnoughMemoryError, match=r"needs 14\.\d GB of memory \(14\.3 for weights.*and 7\.2 are free"):
        plan(LoadSpec(model=source.name), source, torch.device("cpu"), 7_200_000_000)


def test_a_context_that_was_not_asked_for_shrinks_to_what_is_free():
    source, cpu = find("codellm-demo").fetch(), torch.device("cpu")
    spec = LoadSpec(model=source.name, dtype="float32", batch_size=4)
    made = plan(spec, source, cpu, 63_000_000)
    assert made.info("torch-cpu", made.weight_bytes).context_length in range(256, 2048, 256)
    with pytest.raises(NotEnoughMemoryError, match="4 x 2048 tokens of context"):
        plan(attrs.evolve(spec, context_length=2048), source, cpu, 63_000_000)


@pytest.mark.parametrize(
    ("backend", "scheme", "size"),
    [("torch-cpu", None, 2), ("transformers-cpu", None, 2), ("transformers-cpu", "bnb-int8", 1),
     ("transformers-cpu", "bnb-nf4", 0.5625), ("transformers-cpu", "bnb-fp4", 0.5625)],
)  # fmt: skip
def test_dummy_weights_run_and_are_counted(backend, scheme, size):
    with codellm.load("dummy:tiny", backend=backend, scheme=scheme) as model:
        info = model.info
        assert info.dummy
        assert len(model.generate("x", PARAMS).token_ids) == 6
    layers = sum(np.prod(tensor.shape) for tensor in find("dummy:tiny").fetch().tensors if ".layers." in tensor.name)
    rest = 2 * (info.parameters - layers)
    assert info.weight_bytes - rest == pytest.approx(size * layers, rel=0.02)


def test_options_of_bitsandbytes_reach_the_weights():
    def load(scheme, **options):
        return codellm.load("dummy:tiny", backend="transformers-cpu", scheme=scheme, options=options)

    def projection(model):
        return model.engine.model.model.layers[0].mlp.c_fc

    with load("bnb-int8", threshold="3.5") as model:
        assert projection(model).weight.dtype.itemsize == 1
        assert projection(model).state.threshold == 3.5
    with load("bnb-fp4", compute_dtype="float32") as plain, load("bnb-nf4", double_quant="true") as double:
        assert str(projection(plain).compute_dtype) == "torch.float32"
        assert str(projection(double).compute_dtype) == "torch.bfloat16"
        assert projection(plain).weight.quant_type == "fp4"
        assert double.info.weight_bytes < plain.info.weight_bytes


@pytest.mark.parametrize("chunk", ["3", "64"])
def test_the_size_of_a_chunk_changes_no_logits(chunk):
    ids = list(range(100, 140))
    with (
        codellm.load("codellm-demo", backend="transformers-cpu", dtype="float32", options={"chunk": chunk}) as ours,
        codellm.load("codellm-demo", backend="transformers-cpu", dtype="float32") as whole,
    ):
        assert ours.logits(ids) == pytest.approx(whole.logits(ids), abs=1e-4)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_tokenizer("starcoder2", tmp_path_factory.mktemp("tokenizer"))


REFUSED = {
    "architecture": ({"model_type": "gpt2"}, "architecture 'gpt2' is not supported; supported: starcoder2, llama"),
    "longrope": ({"rope_scaling": {"rope_type": "longrope"}}, "rope type 'longrope' is not supported; known: def"),
    "activation": ({"hidden_act": "relu"}, "hidden_act 'relu' is not supported"),
    "shape": ({"intermediate_size": 192}, "has shape .* config.json makes it"),
    "layers": ({"num_hidden_layers": 3}, "and 13 more missing; fetch the checkpoint again"),
}


@pytest.mark.parametrize("backend", BOTH)
@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_supported_is_refused_by_name(backend, changes, message, tokenizer):
    config = config_of("starcoder2", 600)
    source = source_of(config, tokenizer, Arrays(random_weights(config)))
    with pytest.raises(ModelFileError, match=message):
        registry().backend(backend).load(LoadSpec(model="tiny"), attrs.evolve(source, config=config | changes))


@pytest.mark.parametrize("backend", BOTH)
def test_a_gguf_file_is_not_taken_to_a_backend_of_safetensors(tmp_path, backend):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(BackendChoiceError) as caught:
        codellm.load(str(tmp_path / "model.gguf"), backend=backend)
    text = str(caught.value)
    assert f"model.gguf is gguf, which backend '{backend}' does not take (it takes safetensors)" in text
    assert text.endswith("leave out --backend, or name llama-cpp")


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(broken, tokenizer):
    config = config_of("starcoder2", 600)
    weights = random_weights(config)
    weights["model.layers.1.self_attn.k_proj.weight"][3, 4] = broken
    with pytest.raises(ModelFileError, match=r"layers\.1\.self_attn\.k_proj\.weight' holds NaN or infinity"):
        registry().backend("torch-cpu").load(LoadSpec(model="tiny"), source_of(config, tokenizer, Arrays(weights)))


@pytest.mark.parametrize("backend", BOTH)
def test_samples_of_one_prompt_compute_it_once(backend):
    lengths = []

    class Counted(Wrapped):
        def prefill(self, slot, ids, start):
            lengths.append(len(ids))
            return self.engine.prefill(slot, ids, start)

    with codellm.load("codellm-demo", backend=backend, dtype="float32", batch_size=3, context_length=256) as loaded:
        model = TorchModel(loaded.info, loaded.tokenizer, Counted(loaded.engine))
        params = codellm.SamplingParams(max_tokens=5, temperature=1.0, seed=3, ignore_eos=True)
        ids = model.tokenizer.encode("def add(a, b):\n")
        together = model.generate_batch([ids] * 7, params)
        assert lengths == [len(ids)]
        assert len({result.token_ids for result in together}) > 3
        assert model.generate(ids, params).token_ids == together[0].token_ids


def test_closing_a_model_ends_its_stream():
    model = codellm.load("codellm-demo", backend="torch-cpu", options={"mode": "jit"})
    stream = model.stream("def ")
    next(stream)
    model.close()
    with pytest.raises(CodellmError, match="closed"):
        list(stream)


def test_the_bench_measures_both(tmp_path):
    done = command(
        "bench", "--no-quality", "--repeats", "1", "--prompt-tokens", "16", "--new-tokens", "4", "--format", "jsonl",
        "--row", "torch-cpu::dtype=float32", "--row", "transformers-cpu:bnb-nf4", "--output", str(tmp_path / "results"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["scheme"] for row in rows] == ["none", "bnb-nf4"]
    assert all(row["error"] is None and row["limit_share"] > 0 for row in rows)
