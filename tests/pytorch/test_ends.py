"""Where a text ends on the torch backends, and what a saved tokenizer.json may hold beside the tokenizer."""

from __future__ import annotations

import json

import attrs
import pytest

import codellm
from codellm.sources.bundled import bundled_directory
from support.chains import TURN, TURN_ENDS, TURN_OVER, A, B, C, write_chain

BOTH = ("torch-cpu", "transformers-cpu")
CHAIN = {A: B, B: TURN, TURN: C, C: A}
PARAMS = codellm.SamplingParams(max_tokens=7)
TRUNCATION = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
PADDING = {
    "strategy": {"Fixed": 16},
    "direction": "Right",
    "pad_to_multiple_of": None,
    "pad_id": 0,
    "pad_type_id": 0,
    "pad_token": "<|endoftext|>",
}


@pytest.mark.parametrize("name", TURN_ENDS)
def test_a_model_ends_where_its_files_say(tmp_path, name):
    with codellm.load(str(write_chain(tmp_path / "model", CHAIN, **TURN_ENDS[name])), backend="torch-cpu") as model:
        result = model.generate([A], PARAMS)
        ignored = model.generate([A], attrs.evolve(PARAMS, ignore_eos=True))
    assert (result.token_ids, result.finish_reason) == ((B, TURN), "eos")
    assert (ignored.token_ids, ignored.finish_reason) == ((B, TURN, C, A, B, TURN, C), "length")


@pytest.mark.parametrize("backend", BOTH)
def test_both_backends_end_alike(tmp_path, backend):
    files = {"generation_config.json": {"eos_token_id": [TURN, 0]}}
    named, unnamed = write_chain(tmp_path / "a", CHAIN, files=files), write_chain(tmp_path / "b", CHAIN)
    with codellm.load(str(named), backend=backend) as model:
        assert model.generate([A], PARAMS).token_ids == (B, TURN)
    with codellm.load(str(unnamed), backend=backend) as model:
        assert model.generate([A], PARAMS).token_ids == (B, TURN, C, A, B, TURN, C)
        stopped = model.generate([A], attrs.evolve(PARAMS, stop=TURN_OVER))
    assert (stopped.token_ids, stopped.finish_reason) == ((B, TURN), "stop")


@pytest.mark.parametrize("backend", BOTH)
@pytest.mark.parametrize("sections", [{"truncation": TRUNCATION}, {"padding": PADDING}], ids=["truncation", "padding"])
def test_a_tokenizer_saved_while_it_cut_or_padded_generates_and_scores_the_same(tmp_path, backend, sections):
    demo = bundled_directory("codellm-demo")
    for file in demo.iterdir():
        if file.name != "tokenizer.json":
            (tmp_path / file.name).symlink_to(file)
    data = json.loads((demo / "tokenizer.json").read_text()) | sections
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    text = "def add(a, b):\n    return a + b\n\n\nclass Stack:\n"
    found = []
    for name in ("codellm-demo", str(tmp_path)):
        with codellm.load(name, backend=backend) as model:
            ids = model.tokenizer.prompt_ids(text)
            scores = model.score([ids])[0].tolist()
            found.append((model.generate(text, PARAMS).text, model.tokenizer.add_bos, ids, scores))
    assert found[0] == found[1]


def test_half_a_character_costs_its_own_prompt(tmp_path):
    with codellm.load(str(write_chain(tmp_path / "model", {A: B})), backend="torch-cpu") as model:
        results = model.generate_batch(["x = ", "y = '\ud83d'", "z"], attrs.evolve(PARAMS, stop="\ud83d"))
    assert [each.finish_reason for each in results] == ["length", "error", "length"]
    assert "the prompt holds a lone surrogate, U+D83D, after 5 characters" in str(results[1].error)
