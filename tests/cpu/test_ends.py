"""Ends of texts on llama.cpp: those that a conversion takes along, and those that llama.cpp itself knows."""

from __future__ import annotations

import attrs
import gguf
import pytest

import codellm
from codellm.generation import endings
from codellm_cpu.llama.tokenizer import ENDS_KEY
from support.chains import TURN, TURN_ENDS, A, B, C, write_chain
from support.tiny_gguf import write_gguf

pytest.importorskip("llama_cpp")

CHAIN = {A: B, B: TURN, TURN: C, C: A}
PARAMS = codellm.SamplingParams(max_tokens=7)


@pytest.mark.parametrize(
    "name", ["generation_config lists it", "config alone", "special_tokens_map alone", "tokenizer_config, not special"]
)
def test_a_converted_model_ends_where_its_files_say(tmp_path, name):
    folder = write_chain(tmp_path / "model", CHAIN, **TURN_ENDS[name])
    with codellm.load(str(folder), backend="llama-cpp", scheme="f32") as model:
        result = model.generate([A], PARAMS)
        ignored = model.generate([A], attrs.evolve(PARAMS, ignore_eos=True))
    assert (result.token_ids, result.finish_reason) == ((B, TURN), "eos")
    assert (ignored.token_ids, ignored.finish_reason) == ((B, TURN, C, A, B, TURN, C), "length")


def test_a_third_end_is_kept_too(tmp_path):
    files = {"generation_config.json": {"eos_token_id": [0, TURN, C, 9]}}
    folder = write_chain(tmp_path / "model", {A: B, B: C}, files=files)
    with codellm.load(str(folder), backend="llama-cpp", scheme="f32") as model:
        assert {0, TURN, C, 9} <= model.tokenizer.ends
        keys = {key: field.contents() for key, field in gguf.GGUFReader(model.info.path).fields.items()}
        assert model.generate([A], PARAMS).token_ids == (B, C)
    assert keys[ENDS_KEY] == f"0 {TURN} 9 {C}"
    assert [keys[f"tokenizer.ggml.{role}_token_id"] for role in ("eos", "eot", "eom")] == [0, TURN, 9]


def test_a_model_that_names_no_other_end_goes_on(tmp_path):
    folder = write_chain(tmp_path / "model", CHAIN)
    with codellm.load(str(folder), backend="llama-cpp", scheme="f32") as model:
        result = model.generate([A], PARAMS)
        assert endings(model.tokenizer) == {0, 5, 6}
        stopped = model.generate([A], attrs.evolve(PARAMS, stop="<|turn_over|>"))
        text = model.tokenizer.token_bytes(B).decode()
    assert (result.token_ids, result.finish_reason) == ((B, TURN, C, A, B, TURN, C), "length")
    assert (stopped.token_ids, stopped.finish_reason, stopped.text) == ((B, TURN), "stop", text)


@pytest.mark.parametrize("word", ["<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|eom_id|>", "<EOT>"])
def test_what_llama_cpp_ends_at_by_its_string_ends(tmp_path, load_tiny, word):
    path = write_gguf(tmp_path / "tiny.gguf", special=("<|other|>", word))
    tokenizer = load_tiny(path).tokenizer
    assert tokenizer.special_id(word) in tokenizer.ends
    assert tokenizer.special_id("<|other|>") not in endings(tokenizer)
    assert tokenizer.eos == 0 in tokenizer.ends


@pytest.mark.parametrize("role", ["eot", "eom", "fim_pad", "fim_rep", "fim_sep"])
def test_a_key_of_the_header_that_ends_a_text_is_heard(tmp_path, load_tiny, role):
    path = write_gguf(tmp_path / "tiny.gguf", special=("<|one|>", "<|other|>"), roles={role: 5})
    tokenizer = load_tiny(path).tokenizer
    assert tokenizer.special_id("<|one|>") == 5
    assert 5 in endings(tokenizer)
    assert 6 not in endings(tokenizer)
