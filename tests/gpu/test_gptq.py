"""GPTQ: what is refused without gptqmodel; with it, its checkpoints and AutoGPTQ's compute what they say."""

import importlib.util
import json
import math
from pathlib import Path

import attrs
import numpy as np
import pytest

import codellm
from codellm.artifacts.calibration import Calibration
from codellm.artifacts.ensure import ensure
from codellm.errors import ArtifactError, BackendUnavailableError, InvalidValueError, ModelFileError
from codellm.loading import find
from codellm.plugins.registry import registry
from codellm.torch import bitsandbytes, gptq
from codellm_gpu import save_gptq
from support.checkpoints import Arrays, config_of, random_weights, save_safetensors, train_tokenizer
from support.packages import pretend_absent, pretend_installed

GROUP = 128
BITS = (8, 4, 3)
PLACE = {"backend": "transformers-cpu", "context_length": 64}
needs_gptqmodel = pytest.mark.skipif(
    importlib.util.find_spec("gptqmodel") is None, reason="gptqmodel is not installed; `nox -s gptq` runs this"
)


def pack(values, bits):
    """Whole numbers [N, M] as AutoGPTQ packs them along N, from the lowest bit on: int32 [N · bits / 32, M]."""
    stream = (values.T[..., None] >> np.arange(bits)) & 1  # [M, N, bits]
    flat = stream.reshape(len(stream), -1).astype(np.uint8)
    return np.ascontiguousarray(np.packbits(flat, axis=-1, bitorder="little").view(np.int32).T)


@attrs.frozen
class Old:
    """A checkpoint as AutoGPTQ wrote it, and the weights that its numbers mean."""

    path: str
    plain: dict[str, np.ndarray]


def auto_gptq(folder, bits, *, sym=False, zero=None, order=False):
    """Random numbers in AutoGPTQ's form: zero points are stored minus one, and each column says its group."""
    _, tokenizer_config = train_tokenizer("llama3", folder)
    config = config_of(
        "llama", 590, hidden_size=256, intermediate_size=384, num_attention_heads=4, tie_word_embeddings=True
    )
    plain = random_weights(config)
    stored, random = dict(plain), np.random.default_rng(bits)
    for name in [name for name in plain if ".layers." in name and plain[name].ndim == 2]:
        (rows, columns), stem = plain[name].shape, name.removesuffix("weight")
        levels = random.integers(0, 2**bits, (columns, rows))
        zeros = random.integers(1, 2**bits, (columns // GROUP, rows))
        zeros = np.full_like(zeros, 2 ** (bits - 1)) if sym else zeros
        if zero is not None:
            zeros[0, 0] = zero
        scales = random.uniform(0.5, 1.5, zeros.shape).astype(np.float16) / np.float16(10 * 2**bits)
        group = np.arange(columns, dtype=np.int32) // GROUP
        group = random.permutation(group) if order else group
        plain[name] = (scales[group].astype(np.float32) * (levels - zeros[group])).T.astype(np.float32)
        del stored[name]
        stored |= {f"{stem}qweight": pack(levels, bits), f"{stem}scales": scales, f"{stem}g_idx": group}
        stored[f"{stem}qzeros"] = np.ascontiguousarray(pack((zeros - 1).T, bits).T)
    (folder / "config.json").write_text(json.dumps(config | {"torch_dtype": "float16"}))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    packing = {"bits": bits, "group_size": GROUP, "damp_percent": 0.01, "desc_act": order, "sym": sym}
    (folder / "quantize_config.json").write_text(
        json.dumps(packing | {"true_sequential": True, "model_name_or_path": None})
    )
    stored = {name: array.astype(np.float16) if array.dtype == np.float32 else array for name, array in stored.items()}
    save_safetensors(folder / f"gptq_model-{bits}bit-{GROUP}g.safetensors", Arrays(stored), sorted(stored))
    return Old(str(folder), plain)


def test_without_gptqmodel_it_says_what_to_install(tmp_path, monkeypatch):
    pretend_absent(monkeypatch, "gptqmodel")
    pretend_installed(monkeypatch, "optimum", "accelerate")
    old = auto_gptq(tmp_path, 4)
    with pytest.raises(BackendUnavailableError, match=r'gptq-int4 needs gptqmodel; pip install "codellm-gpu'):
        codellm.load(old.path, **PLACE)
    with pytest.raises(BackendUnavailableError, match=r"gptq-int4 needs gptqmodel;"):
        ensure(find("codellm-demo").fetch(), registry().scheme("gptq-int4"), calibration=Calibration("x", "x"))


def test_float32_is_refused(tmp_path, monkeypatch):
    pretend_installed(monkeypatch, *gptq.PACKAGES)
    with pytest.raises(InvalidValueError, match="gptq-int4 computes in float16 or bfloat16, not float32"):
        codellm.load(auto_gptq(tmp_path, 4).path, dtype="float32", **PLACE)


@pytest.mark.parametrize("bits", BITS)
def test_a_zero_point_that_auto_gptq_could_not_store_is_refused(tmp_path, bits):
    source = find(auto_gptq(tmp_path, bits, zero=2**bits).path).fetch()  # stored minus one: all ones, as -1 would be
    with pytest.raises(ModelFileError, match=r"qzeros' holds zero points that AutoGPTQ could not store"):
        gptq.check_zeros(source, source.config["quantization_config"])


def test_what_does_not_fit_is_refused(tmp_path):
    source = attrs.evolve(find("codellm-demo").fetch(), config=config_of("starcoder2", 590))
    with pytest.raises(InvalidValueError, match=r"columns of a multiple of 128 .* is \[96, 96\]"):
        save_gptq.check_sizes(source)
    with pytest.raises(InvalidValueError, match="calibration text short: has 1 tokens, GPTQ needs 512"):
        save_gptq.windows(find("codellm-demo").fetch(), Calibration("short", "a"))


@needs_gptqmodel
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("form", [{}, {"sym": True}, {"order": True}], ids=["asymmetric", "symmetric", "act-order"])
def test_a_checkpoint_of_auto_gptq_is_what_the_formula_says(tmp_path, bits, form):
    """A weight is its group's scale times what is over the zero point, and the stored zero point is one too small."""
    import torch

    old = auto_gptq(tmp_path, bits, **form)
    with codellm.load(old.path, dtype="float16", options={"kernel": "torch"}, **PLACE) as model:
        assert model.info.scheme == f"gptq-int{bits}"
        assert model.info.parameters == sum(array.size for array in old.plain.values())
        for name, module in model.engine.model.named_modules():
            if hasattr(module, "qweight"):
                found = module.dequantize_weight().float().T.numpy()
                assert np.allclose(found, old.plain[f"{name}.weight"], rtol=2e-3, atol=1e-6), name
        ids = [1, 2, 3, 4]
        quantized = model.logits(ids)
    import transformers

    config = transformers.AutoConfig.from_pretrained(old.path)
    plain = {name: torch.from_numpy(array) for name, array in old.plain.items()}
    reference = transformers.LlamaForCausalLM.from_pretrained(
        None, config=config, state_dict=plain, dtype=torch.float32
    )
    with torch.inference_mode():
        expected = reference(torch.tensor([ids])).logits[0, -1].numpy()
    assert np.abs(quantized - expected[: len(quantized)]).max() < 0.01 * np.abs(expected).max()


@needs_gptqmodel
@pytest.mark.parametrize("bits", BITS)
def test_the_demo_is_quantized_passes_the_gate_and_loads_again(bits):
    scheme = registry().scheme(f"gptq-int{bits}")
    made = ensure(find("codellm-demo").fetch(), scheme)
    figures = json.loads((made.path.parent / "manifest.json").read_text())["quality"]
    assert -0.01 < figures["bits_per_byte"] - figures["reference"] < scheme.bound
    with codellm.load(str(made.path), **PLACE) as model:
        assert model.info.scheme == scheme.name
        plain = model.info.parameters * 2
        assert bits / 16 < model.info.weight_bytes / plain < bits / 16 + 0.25
        assert model.generate("def add(a, b):\n    return", codellm.SamplingParams(max_tokens=4)).token_ids


@needs_gptqmodel
def test_a_kernel_that_is_not_here_is_told_in_one_line(tmp_path):
    with pytest.raises(InvalidValueError, match="no gptq-int4 here with kernel=marlin: "):
        codellm.load(auto_gptq(tmp_path, 4, sym=True).path, options={"kernel": "marlin"}, **PLACE)


@needs_gptqmodel
def test_what_gptqmodel_says_against_a_model_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(save_gptq, "windows", lambda *_: [])
    monkeypatch.setenv("CODELLM_CACHE", str(tmp_path))
    with pytest.raises(ArtifactError, match="codellm-demo: gptqmodel cannot quantize it: "):
        ensure(find("codellm-demo").fetch(), registry().scheme("gptq-int4"))


def test_the_bounds_follow_the_rule_of_the_documentation():
    """Twice the rise measured on the bundled model, rounded up to hundredths; from 0.01 to 1."""
    record = json.loads((Path(__file__).parents[2] / "docs/results/gptq-demo.json").read_text())
    assert {row["scheme"] for row in record["rows"]} == {each.name for each in (*gptq.SCHEMES, *bitsandbytes.SCHEMES)}
    for row in record["rows"]:
        rule = min(1.0, max(0.01, math.ceil(200 * row["gate_rise"]) / 100))
        assert registry().scheme(row["scheme"]).bound == row["bound"] == rule, row["scheme"]
