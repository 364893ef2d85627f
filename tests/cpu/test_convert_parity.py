"""The check after a conversion: its figures, and what it says of conversions that are broken on purpose."""

from __future__ import annotations

import json
import re

import attrs
import pytest

from codellm.artifacts.ensure import ensure
from codellm.artifacts.request import QuantizeRequest
from codellm.errors import QualityError
from codellm.loading import find
from codellm.plugins.registry import registry
from codellm.sources import Tensors
from codellm_cpu.convert import convert
from codellm_cpu.quantize import convert_and_check, quantize
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
        ("qwen3", "qwen2"),
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


def renamed(source, one, other):
    """Two tensors of every layer in each other's place."""
    names = {one: other, other: one}
    arrays = {re.sub(f"{one}|{other}", lambda name: names[name[0]], name): array for name, array in weights(source)}
    return attrs.evolve(source, tensors=Arrays(arrays))


def weights(source):
    return [(info.name, source.tensors.read(info.name)) for info in source.tensors.infos()]


def swap_gate_and_up(source):
    return renamed(source, "gate_proj", "up_proj")


def swap_norms(source):
    return renamed(source, "input_layernorm", "post_attention_layernorm")


def leave_queries_unpermuted(source):
    """In the order from which the conversion, which brings interleaved pairs together, makes the source's own."""
    heads = source.config["num_attention_heads"]

    def undone(array):
        return array.reshape(heads, -1, 2, array.shape[-1]).swapaxes(1, 2).reshape(array.shape)

    arrays = {name: undone(array) if "q_proj" in name else array for name, array in weights(source)}
    return attrs.evolve(source, tensors=Arrays(arrays))


def config(**changes):
    return lambda source: attrs.evolve(source, config=source.config | changes)


def tokenizer(change):
    """Another tokenizer.json, by what `change` does to its object."""

    def changed(source):
        data = json.loads(source.tokenizer.read_text())
        change(data)
        path = source.tokenizer.with_name("changed.json")
        path.write_text(json.dumps(data))
        return attrs.evolve(source, tokenizer=path)

    return changed


def wrong_words(data):
    data["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def no_normal_form(data):
    data["normalizer"] = None


def wrong_end(source):
    """The last token, which parts files."""
    config = source.config | {"eos_token_id": 576}
    return attrs.evolve(source, tokenizer_config={"eos_token": "<file_sep>"}, config=config)


def wrong_beginning(source):
    """The token that ends a text."""

    def change(data):
        data["post_processor"]["special_tokens"]["<s>"] |= {"ids": [2], "tokens": ["</s>"]}

    names = source.tokenizer_config | {"bos_token": "</s>"}
    return attrs.evolve(tokenizer(change)(source), tokenizer_config=names)


def wrong_scores(data):
    data["model"]["merges"].reverse()


wrong_base = config(rope_theta=10_000.0)

LINEAR = {"rope_scaling": {"type": "linear", "factor": 4.0}}
BY_NORM = r"logits of position \d+ are off by [\d.e-]+ on average, where rounding in f32 explains [\d.e-]+"
BROKEN = {
    "gate and up swapped": ("qwen2", "qwen2", {}, swap_gate_and_up, BY_NORM),
    "norms swapped": ("llama", "llama3", {}, swap_norms, BY_NORM),
    "queries not permuted": ("llama", "deepseek", {}, leave_queries_unpermuted, BY_NORM),
    "rope base": ("qwen2", "qwen2", {}, wrong_base, BY_NORM),
    "rope scaling": ("llama", "deepseek", LINEAR, config(rope_scaling=None), BY_NORM),
    "norm epsilon": ("llama", "deepseek", {}, config(rms_norm_eps=0.1), BY_NORM),
    "pre-tokenizer": ("qwen2", "qwen2", {}, tokenizer(wrong_words), "has other tokens in the GGUF file: from place"),
    "normal form": ("qwen2", "qwen2", {}, tokenizer(no_normal_form), "has other tokens in the GGUF file"),
    "end": ("starcoder2", "starcoder2", {}, wrong_end, r"eos is 0 by tokenizer\.json, 576 in the GGUF file"),
    "beginning": (
        "llama",
        "codellama",
        {},
        wrong_beginning,
        r"beginning is \[1\] by tokenizer\.json, \[2\] in",
    ),
    "scores": ("llama", "codellama", {}, tokenizer(wrong_scores), "has other tokens in the GGUF file"),
}


def planting(fault):
    """A conversion that goes wrong by `fault`: of another source than the one it is compared with."""
    return lambda source, *rest: convert(fault(source), *rest)


@pytest.mark.parametrize("case", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_conversion_is_refused_for_its_reason(tmp_path, tokenizer_of, case):
    model_type, family, changes, fault, message = case
    source = source_of(config_of(model_type, 600, **changes), tokenizer_of(family))
    with pytest.raises(QualityError, match=f"tiny: the conversion is wrong and not kept: .*{message}") as error:
        convert_and_check(request(source, "f32", tmp_path / "m.gguf"), planting(fault))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "m.gguf").exists()


@pytest.mark.parametrize("fault", [wrong_base, swap_gate_and_up], ids=["rope base", "swapped"])
def test_bf16s_tolerance_notices_faults_too(tmp_path, tokenizer_of, fault):
    """Of weights large enough to say something: those of a tiny random model hardly attend to anything."""
    config = config_of("qwen2", 600)
    weights = {name: array * (6 if array.ndim > 1 else 1) for name, array in random_weights(config).items()}
    source = source_of(config, tokenizer_of("qwen2"), Arrays(weights))
    assert quantize(request(source, "bf16", tmp_path / "m.gguf"))
    with pytest.raises(QualityError, match="are off by"):
        convert_and_check(request(source, "bf16", tmp_path / "m.gguf"), planting(fault))


def test_one_damaged_token_among_many_is_noticed(tmp_path, tokenizer_of):
    config = config_of("qwen2", 600)
    weights = random_weights(config)
    source = source_of(config, tokenizer_of("qwen2"), Arrays(weights))
    damaged = weights | {"lm_head.weight": weights["lm_head.weight"].copy()}
    damaged["lm_head.weight"][77] *= 1.2
    assert convert_and_check(request(source, "f32", tmp_path / "right.gguf"))
    with pytest.raises(QualityError, match="are off by"):
        convert_and_check(
            request(source, "f32", tmp_path / "m.gguf"),
            planting(lambda given: attrs.evolve(given, tensors=Arrays(damaged))),
        )


class Damaged(Tensors):
    """Weights that are read wrong the first time, which is the conversion's, and right from then on."""

    def __init__(self, tensors):
        self.tensors, self.known = tensors, set()

    def infos(self):
        return self.tensors.infos()

    def read(self, name):
        first = name not in self.known
        self.known.add(name)
        return self.tensors.read(name)[::-1] if first and "q_proj.weight" in name else self.tensors.read(name)


def test_the_core_refuses_it_too_and_keeps_nothing(tmp_path):
    source = find("codellm-demo").fetch()
    with pytest.raises(QualityError, match="codellm-demo: the conversion is wrong and not kept"):
        ensure(attrs.evolve(source, tensors=Damaged(source.tensors)), registry().scheme("bf16"))
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
