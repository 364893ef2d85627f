"""The check after a conversion: its figures, and what it says of conversions that are broken on purpose."""

from __future__ import annotations

import json

import attrs
import gguf
import numpy as np
import pytest

from codellm.artifacts.ensure import ensure
from codellm.artifacts.request import QuantizeRequest
from codellm.errors import QualityError
from codellm.loading import find
from codellm.plugins.registry import registry
from codellm_cpu.convert import pretokenizer, vocabulary
from codellm_cpu.convert.gated import Gated
from codellm_cpu.convert.llama import Llama
from codellm_cpu.quantize import quantize
from codellm_cpu.schemes import SCHEMES
from support.checkpoints import Arrays, config_of, random_weights, source_of, train_tokenizer

BY_NAME = {scheme.name: scheme for scheme in SCHEMES}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CODELLM_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def tokenizer_of(tmp_path_factory):
    made = {}

    def tokenizer(family):
        if family not in made:
            made[family] = train_tokenizer(family, tmp_path_factory.mktemp(family))
        return made[family]

    return tokenizer


def request(source, scheme, path, **fields):
    return QuantizeRequest(source=source, scheme=BY_NAME[scheme], destination=path, threads=1, **fields)


@pytest.mark.parametrize("scheme", ["f32", "f16", "bf16"])
@pytest.mark.parametrize(
    ("model_type", "family"),
    [
        ("starcoder2", "starcoder2"),
        ("qwen2", "qwen2"),
        ("llama", "deepseek"),
        ("llama", "llama3"),
        ("llama", "codellama"),
    ],
)
def test_a_right_conversion_passes_with_room(tmp_path, tokenizer_of, model_type, family, scheme):
    source = source_of(config_of(model_type, 600), tokenizer_of(family))
    told = []
    artifact = quantize(
        request(source, scheme, tmp_path / "m.gguf", progress=lambda done, total: told.append(done / total))
    )
    parity = artifact.facts["parity"]
    assert parity["token_ids"]["texts"] > 35
    assert parity["logits"]["positions"] == 24
    assert parity["logits"]["greedy_equal"] >= 20  # random weights have near ties
    assert parity["logits"]["relative"] < parity["logits"]["tolerance"] / 2
    assert parity["logits"]["tolerance"] < {"f32": 0.006, "f16": 0.006, "bf16": 0.04}[scheme]
    assert json.loads(json.dumps(parity)) == parity
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_the_figures_stand_in_the_manifest(tmp_path):
    kept = ensure(find("codellm-demo").fetch(), registry().scheme("bf16"))
    parity = json.loads((kept.path.parent / "manifest.json").read_text())["parity"]
    assert parity["special_ids"] == {"bos": 0, "eos": 0, "fim": [1, 3, 2]}
    assert parity["logits"]["greedy_equal"] == 24
    assert parity["logits"]["relative"] < 0.015


def test_of_random_weights_the_tokenizer_alone_is_compared(tmp_path, tokenizer_of):
    source = source_of(config_of("qwen2", 600), tokenizer_of("qwen2"), dummy=True)
    parity = quantize(request(source, "bf16", tmp_path / "m.gguf")).facts["parity"]
    assert set(parity) == {"special_ids", "token_ids"}


def test_a_window_shorter_than_the_probe_cuts_it(tmp_path, tokenizer_of):
    source = source_of(config_of("starcoder2", 600, sliding_window=9), tokenizer_of("starcoder2"))
    parity = quantize(request(source, "f32", tmp_path / "m.gguf")).facts["parity"]
    assert parity["logits"]["positions"] == 9


def swap_gate_and_up(patch):
    swapped = {"mlp.gate_proj": "ffn_up", "mlp.up_proj": "ffn_gate"}
    patch.setattr(Gated, "blocks", dict(Gated.blocks) | swapped)


def swap_norms(patch):
    swapped = {"input_layernorm": "ffn_norm", "post_attention_layernorm": "attn_norm"}
    patch.setattr(Gated, "blocks", dict(Gated.blocks) | swapped)


def leave_queries_unturned(patch):
    permuted = Llama.permuted_heads
    patch.setattr(
        Llama, "permuted_heads", lambda self, name, config: None if "q_proj" in name else permuted(self, name, config)
    )


def wrong_base(patch):
    write = gguf.GGUFWriter.add_rope_freq_base
    patch.setattr(gguf.GGUFWriter, "add_rope_freq_base", lambda self, value: write(self, value * 2))


def lost_scaling(patch):
    patch.setattr(gguf.GGUFWriter, "add_rope_scaling_factor", lambda self, value: None)


def wrong_epsilon(patch):
    write = gguf.GGUFWriter.add_layer_norm_rms_eps
    patch.setattr(gguf.GGUFWriter, "add_layer_norm_rms_eps", lambda self, value: write(self, 0.1))


def wrong_words(patch):
    names = dict.fromkeys(pretokenizer.NAMES, "gpt-2")
    patch.setattr(pretokenizer, "NAMES", names)


def no_normal_form(patch):
    patch.setattr(vocabulary, "NORMALIZER_KEY", "codellm.other")


def wrong_end(patch):
    special_ids = vocabulary.special_ids
    patch.setattr(vocabulary, "special_ids", lambda *given: special_ids(*given) | {"eos": 5})


def no_beginning(patch):
    patch.setattr(gguf.GGUFWriter, "add_add_bos_token", lambda self, value: None)
    patch.setattr(vocabulary, "special_ids", lambda *given: {"eos": 2, "bos": 5})


def wrong_scores(patch):
    patch.setattr(vocabulary, "merge_scores", lambda tokens, *_: [float(id) for id in range(len(tokens))])


LINEAR = {"rope_scaling": {"type": "linear", "factor": 4.0}}
BY_NORM = r"logits of position \d+ are off by [\d.e-]+ on average, where rounding in f32 explains [\d.e-]+"
BROKEN = {
    "gate and up swapped": ("qwen2", "qwen2", {}, swap_gate_and_up, BY_NORM),
    "norms swapped": ("llama", "llama3", {}, swap_norms, BY_NORM),
    "queries not permuted": ("llama", "deepseek", {}, leave_queries_unturned, BY_NORM),
    "rope base": ("qwen2", "qwen2", {}, wrong_base, BY_NORM),
    "rope scaling": ("llama", "deepseek", LINEAR, lost_scaling, BY_NORM),
    "norm epsilon": ("llama", "deepseek", {}, wrong_epsilon, BY_NORM),
    "pre-tokenizer": ("qwen2", "qwen2", {}, wrong_words, "has other tokens in the GGUF file: from place"),
    "normal form": ("qwen2", "qwen2", {}, no_normal_form, "has other tokens in the GGUF file"),
    "end": ("starcoder2", "starcoder2", {}, wrong_end, r"eos is 0 by tokenizer\.json, 5 in the GGUF file"),
    "beginning": ("llama", "codellama", {}, no_beginning, r"beginning is \[1\] by tokenizer\.json, \[5\] in"),
    "scores": ("llama", "codellama", {}, wrong_scores, "has other tokens in the GGUF file"),
}


@pytest.mark.parametrize("case", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_conversion_is_refused_for_its_reason(tmp_path, monkeypatch, tokenizer_of, case):
    model_type, family, changes, fault, message = case
    source = source_of(config_of(model_type, 600, **changes), tokenizer_of(family))
    fault(monkeypatch)
    with pytest.raises(QualityError, match=f"tiny: the conversion is wrong and not kept: .*{message}") as error:
        quantize(request(source, "f32", tmp_path / "m.gguf"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "m.gguf").exists()


@pytest.mark.parametrize("fault", [wrong_base, swap_gate_and_up], ids=["rope base", "swapped"])
def test_bf16s_tolerance_notices_faults_too(tmp_path, monkeypatch, tokenizer_of, fault):
    """Of weights large enough to say something: those of a tiny random model hardly attend to anything."""
    config = config_of("qwen2", 600)
    weights = {name: array * (6 if array.ndim > 1 else 1) for name, array in random_weights(config).items()}
    source = source_of(config, tokenizer_of("qwen2"), Arrays(weights))
    assert quantize(request(source, "bf16", tmp_path / "m.gguf"))
    fault(monkeypatch)
    with pytest.raises(QualityError, match="are off by"):
        quantize(request(source, "bf16", tmp_path / "m.gguf"))


def test_one_damaged_token_among_many_is_noticed(tmp_path, monkeypatch, tokenizer_of):
    config = config_of("qwen2", 600)
    weights = random_weights(config)
    source = source_of(config, tokenizer_of("qwen2"), Arrays(weights))
    damaged = weights | {"lm_head.weight": weights["lm_head.weight"].copy()}
    damaged["lm_head.weight"][77] *= 1.2
    real = quantize.__globals__["convert_and_check"]
    assert real(request(source, "f32", tmp_path / "right.gguf"))

    from codellm_cpu import convert as package

    write = package.convert

    def convert_damaged(given, *rest):
        write(attrs.evolve(given, tensors=Arrays(damaged)), *rest)

    monkeypatch.setattr(package, "convert", convert_damaged)
    with pytest.raises(QualityError, match="are off by"):
        real(request(source, "f32", tmp_path / "m.gguf"))


def test_the_core_refuses_it_too_and_keeps_nothing(tmp_path, monkeypatch):
    wrong_base_of_all = gguf.GGUFWriter.add_rope_freq_base
    monkeypatch.setattr(
        gguf.GGUFWriter, "add_rope_freq_base", lambda self, value: wrong_base_of_all(self, np.sqrt(value))
    )
    with pytest.raises(QualityError, match="codellm-demo: the conversion is wrong and not kept"):
        ensure(find("codellm-demo").fetch(), registry().scheme("bf16"))
    assert not list(tmp_path.glob("cache/artifacts/*/*"))


SECTIONS = {
    "truncation": {"truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}},
    "padding": {
        "padding": {
            "strategy": {"Fixed": 16},
            "direction": "Left",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "<|endoftext|>",
        }
    },
}


@pytest.mark.parametrize("section", SECTIONS)
def test_a_tokenizer_saved_while_it_cut_or_padded_converts(tmp_path, tokenizer_of, section):
    path, names = tokenizer_of("starcoder2")
    saved = tmp_path / "tokenizer.json"
    saved.write_text(json.dumps(json.loads(path.read_text()) | SECTIONS[section]))
    source = source_of(config_of("starcoder2", 600), (saved, names))
    figures = quantize(request(source, "f32", tmp_path / "m.gguf"))
    assert figures
