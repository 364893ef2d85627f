"""Rows that do not fill a type's blocks: what llama.cpp makes of them is said before anything is written, and holds."""

from __future__ import annotations

import collections
import json
import re
import shutil

import gguf
import pytest

from codellm.artifacts import store
from codellm.artifacts.ensure import ensure
from codellm.artifacts.ladder import climb
from codellm.errors import ArtifactError, InvalidValueError
from codellm.loading import find
from codellm.plugins.registry import registry
from codellm_cpu.convert import convert
from codellm_cpu.llama.header import read_header
from codellm_cpu.mixture import mix
from codellm_cpu.plan import remarks
from codellm_cpu.quantize import weights
from codellm_cpu.quantizer import run_quantizer
from codellm_cpu.schemes import FILE_TYPES
from support.checkpoints import Arrays, config_of, random_weights, save_safetensors, source_of, train_tokenizer

SHAPES = {  # hidden, intermediate, heads, key-value heads: rows of published models, in few layers
    "SmolLM2-135M": (576, 1536, 9, 3),
    "deepseek-coder-1.3b": (768, 5504, 12, 12),
    "no row of 256": (96, 160, 6, 2),
    "rows that only blocks of 32 fill, and no blocks at all": (40, 96, 4, 2),
    "every row fits": (256, 512, 4, 2),
}
SCHEMES = [
    "q6_k",
    "q5_k_m",
    "q4_k_m",
    "q4_k_s",
    "q4_0",
    "iq4_xs",
    "q3_k_l",
    "iq3_xxs",
    "q2_k",
    "iq1_m",
    "q8_0",
    "tq2_0",
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_tokenizer("llama3", tmp_path_factory.mktemp("tokenizer"))


def config(shape, **more):
    hidden, intermediate, heads, kv_heads = shape
    sizes = {"hidden_size": hidden, "intermediate_size": intermediate, "num_attention_heads": heads}
    return config_of("llama", 600, **sizes, num_key_value_heads=kv_heads, max_position_embeddings=1024, **more)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tokenizer):
    """Write a checkpoint of a shape, and read it as a user's."""

    def checkpoint(shape, **more):
        folder, said = tmp_path_factory.mktemp("checkpoint"), config(shape, **more)
        tensors = Arrays(random_weights(said))
        save_safetensors(folder / "model.safetensors", tensors, list(tensors.arrays))
        shutil.copyfile(tokenizer[0], folder / "tokenizer.json")
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer[1]))
        (folder / "config.json").write_text(json.dumps(said))
        return find(str(folder)).fetch()

    return checkpoint


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CODELLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def types(path):
    return {tensor.name: tensor.tensor_type.name.lower() for tensor in gguf.GGUFReader(path).tensors}


@pytest.mark.parametrize(("shape", "scheme", "tied"), [
    ("SmolLM2-135M", "q4_k_m", True),
    ("deepseek-coder-1.3b", "q3_k_l", False),
    ("no row of 256", "q2_k", False),
    ("no row of 256", "q4_0", True),
    ("rows that only blocks of 32 fill, and no blocks at all", "q5_k_m", False),
    ("every row fits", "q6_k", True),
])  # fmt: skip
def test_what_is_said_is_what_the_written_file_holds(tmp_path, tokenizer, shape, scheme, tied):
    """Said of the checkpoint before there is any file; written by llama.cpp from the converted one."""
    source, base = source_of(config(SHAPES[shape], tie_word_embeddings=tied), tokenizer), tmp_path / "base.gguf"
    told = remarks(source, registry().scheme(scheme), fitted=False)
    convert(source, "f32", base)
    mixture = mix(base, read_header(base), FILE_TYPES[scheme], matrix=False)
    made = run_quantizer(base, mixture, tmp_path / "q.gguf", matrix=None, threads=1, progress=lambda *_: None)
    held, found = weights(made), types(tmp_path / "q.gguf")
    misfits = collections.Counter(found[tensor] for tensor in mixture.misfits)
    assert bool(told) == bool(misfits) == (shape != "every row fits")
    for remark in told:
        kinds, bits = re.search(r"\((.*)\): (\S+) bits a weight$", remark).groups()
        assert kinds == ", ".join(f"{count} {kind}" for kind, count in misfits.most_common())
        assert bits == f"{held['weight_bytes'] * 8 / held['parameters']:.2f}"


@pytest.mark.parametrize(("shape", "scheme", "wanted"), [
    (SHAPES["SmolLM2-135M"], "q4_k_m",
     "rows of 576 do not fill whole blocks, so 14 of 16 matrices become another type (12 q5_0, 2 q8_0)"),
    (SHAPES["SmolLM2-135M"], "q6_k", "so 14 of 16 matrices become another type (14 q8_0)"),
    (SHAPES["deepseek-coder-1.3b"], "q4_k_m", "rows of 5504 do not fill whole blocks, so 2 of 16 matrices"),
    (SHAPES["no row of 256"], "q5_k_m", "rows of 96 and 160 do not fill whole blocks, so 16 of 16 matrices"),
    (SHAPES["every row fits"], "q4_k_m", None),
])  # fmt: skip
def test_the_fallback_types_are_llama_cpps(tokenizer, shape, scheme, wanted):
    """tensor_type_fallback: q4_K to q5_0, q5_K to q5_1, q6_K to q8_0, q2_K and q3_K to q4_0; the output is a q8_0."""
    told = remarks(source_of(config(shape), tokenizer), registry().scheme(scheme), fitted=False)
    assert len(told) == (wanted is not None)
    assert not told or wanted in told[0]


def test_a_checkpoint_with_rows_that_do_not_fit_is_told_then_made_then_judged(cache, checkpoint):
    events = []
    source = checkpoint(SHAPES["no row of 256"])
    made = ensure(source, registry().scheme("q4_k_m"), progress=lambda what, *_: events.append(what))
    steps = list(dict.fromkeys(events))
    assert steps[0].startswith(f"{source.name}: q4_k_m: rows of 96 and 160 do not fill whole blocks")
    assert steps[1:] == ["writing f32", "checking f32", "writing q4_k_m", "checking q4_k_m"]
    manifest = store.read(made.path.parent).manifest
    assert f"{manifest['weight_bytes'] * 8 / manifest['parameters']:.2f} bits a weight" in steps[0]
    assert manifest["quality"]["bits_per_byte"] <= manifest["quality"]["reference"] + registry().scheme("q4_k_m").bound


def test_a_scheme_that_fits_nothing_is_refused_before_the_base_is_written(cache, checkpoint):
    source = checkpoint((40, 72, 4, 2))
    with pytest.raises(InvalidValueError, match=rf"^{re.escape(source.name)}: scheme q4_k_m would quantize nothing"):
        ensure(source, registry().scheme("q4_k_m"))
    assert not list(cache.glob("artifacts/*-*"))


def test_a_ladder_says_all_of_it_before_it_writes_anything(cache, checkpoint):
    events, schemes = [], [registry().scheme(name) for name in ("q6_k", "q4_k_m")]
    rungs = list(climb(checkpoint(SHAPES["no row of 256"]), schemes, progress=lambda what, *_: events.append(what)))
    assert [rung.kept is not None for rung in rungs] == [True, True]
    told = [place for place, what in enumerate(events) if "do not fill whole blocks" in what]
    assert told == [0, 1]


def test_a_ladder_of_what_fits_nothing_writes_no_base(cache, checkpoint):
    [rung] = climb(checkpoint((40, 72, 4, 2)), [registry().scheme("q4_k_m")])
    assert "would quantize nothing" in rung.fault
    assert not list(cache.glob("artifacts/*-*"))


def test_a_file_that_is_not_as_planned_is_not_kept(tmp_path, tokenizer):
    base = tmp_path / "base.gguf"
    convert(source_of(config(SHAPES["no row of 256"]), tokenizer), "f32", base)
    planned = mix(base, read_header(base), FILE_TYPES["q4_k_m"], matrix=False)
    planned.types["blk.0.ffn_up.weight"] = 12
    with pytest.raises(ArtifactError, match=r"wrote tensor 'blk\.0\.ffn_up\.weight' in q5_0, which it had not planned"):
        run_quantizer(base, planned, tmp_path / "q.gguf", matrix=None, threads=1, progress=lambda *_: None)


@pytest.mark.parametrize(("stored", "scheme", "rounded"), [
    ("float32", "f32", False), ("float32", "bf16", True), ("float32", "f16", True),
    ("bfloat16", "f16", True), ("bfloat16", "f32", False), ("bfloat16", "bf16", False),
])  # fmt: skip
def test_a_conversion_that_rounds_says_so(tokenizer, stored, scheme, rounded):
    source = source_of(config(SHAPES["no row of 256"]) | {"dtype": stored}, tokenizer)
    source.tensors.infos = list  # none that say otherwise
    told = remarks(source, registry().scheme(scheme), fitted=False)
    assert told == ((f"{scheme}: weights that are stored in {stored} are rounded",) if rounded else ())
