import json

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import models, normalizers, processors

from codellm.errors import ModelFileError, NoFimError
from codellm.fim import TEMPLATES, find_fim
from codellm.sources.bundled import bundled_directory
from codellm.sources.regular import read_json
from codellm.tokenizer import ByteTokenizer, HFTokenizer

DEMO = bundled_directory("codellm-demo")
TOKENIZER = HFTokenizer(DEMO / "tokenizer.json", read_json(DEMO / "tokenizer_config.json"))


@given(st.text(max_size=60))
def test_what_is_encoded_decodes(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_special_strings_in_user_text_stay_text():
    text = "a<fim_prefix>b<|endoftext|>"
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text
    assert TOKENIZER.special_id("<fim_prefix>") in TOKENIZER.encode(text, special=True)
    assert TOKENIZER.special_id("<fim_prefix>") not in TOKENIZER.encode(text)


def test_digits_are_split():
    assert len(TOKENIZER.encode("2048")) == 4


def test_the_special_ids_are_starcoder2s():
    assert (TOKENIZER.bos, TOKENIZER.eos, TOKENIZER.add_bos) == (0, 0, False)
    assert (TOKENIZER.fim.prefix, TOKENIZER.fim.middle, TOKENIZER.fim.suffix) == (1, 2, 3)
    assert TOKENIZER.fim.prompt([10], [20]) == [1, 10, 3, 20, 2]
    assert TOKENIZER.token_bytes(0) == b""


def test_a_prompt_to_infill_begins_as_the_model_wants_it():
    before, after = TOKENIZER.encode("def f():\n"), TOKENIZER.encode("\n    return x\n")
    expected = [1, *before, 3, *after, 2]
    assert TOKENIZER.infill_ids("def f():\n", "\n    return x\n") == expected
    with_bos = HFTokenizer(DEMO / "tokenizer.json", {"bos_token": "<|endoftext|>", "add_bos_token": True})
    assert with_bos.infill_ids("def f():\n", "\n    return x\n") == [0, *expected]
    with pytest.raises(NoFimError, match="no fill-in-the-middle tokens; use a model that was trained to infill"):
        ByteTokenizer().infill_ids("a", "b")


def test_a_broken_tokenizer_is_named(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(ModelFileError, match=r"tokenizer\.json: not a readable tokenizer"):
        HFTokenizer(path, {})


def test_control_strings_stay_text_though_the_file_lists_them_as_ordinary(tmp_path):
    """As Qwen2.5-Coder's and DeepSeek-Coder's files do."""
    data = json.loads((DEMO / "tokenizer.json").read_text())
    for token in data["added_tokens"]:
        token["special"] = token["content"] == "<|endoftext|>"
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    tokenizer = HFTokenizer(tmp_path / "tokenizer.json", {})
    assert tokenizer.fim == TOKENIZER.fim
    text = "a<fim_prefix>b<fim_pad>c"
    assert tokenizer.encode(text) == TOKENIZER.encode(text)
    assert tokenizer.token_bytes(tokenizer.fim.prefix) == b""


BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def characters(tmp_path, template=None):
    """A tokenizer of whole characters with a space written "▁", as CodeLlama's."""
    vocab = {token: id for id, token in enumerate(["<unk>", "<s>", *BYTES, "▁", "a", "b", "▁a", "é"])}
    model = models.BPE(vocab, [("▁", "a")], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.add_special_tokens(["<s>"])
    if template:
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("<s>", 1)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def test_whole_characters_and_single_bytes_decode(tmp_path):
    tokenizer = HFTokenizer(characters(tmp_path), {"bos_token": "<s>"})
    text = "a bé\n五 <s>"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == " " + text  # the space that such a tokenizer puts first
    assert tokenizer.token_bytes(tokenizer.encode("a")[0]) == b" a"
    assert tokenizer.token_bytes(2 + 0x0A) == b"\n"
    assert tokenizer.token_bytes(1) == b""


@pytest.mark.parametrize(
    ("template", "config", "expected"),
    [
        ("<s> $A", {}, True),
        (None, {}, False),
        ("<s> $A", {"add_bos_token": False}, False),
        (None, {"add_bos_token": True}, True),
        ("<s> $A", {"add_bos_token": None}, True),
    ],
)
def test_who_says_whether_bos_goes_first(tmp_path, template, config, expected):
    tokenizer = HFTokenizer(characters(tmp_path, template), {"bos_token": "<s>"} | config)
    assert tokenizer.add_bos is expected
    assert tokenizer.prompt_ids("")[0] == 1


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.family)
def test_each_family_is_found_by_its_strings(template):
    vocabulary = {text: place for place, text in enumerate((template.prefix, template.suffix, template.middle))}
    fim = find_fim(vocabulary.get)
    assert (fim.prefix, fim.suffix, fim.middle) == (0, 1, 2)
    del vocabulary[template.middle]
    assert find_fim(vocabulary.get) is None


SAVED = {
    "truncation": {"truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}},
    "truncation on the left": {
        "truncation": {"direction": "Left", "max_length": 1, "strategy": "OnlyFirst", "stride": 0}
    },
    "padding to a length": {"padding": {"strategy": {"Fixed": 16}, "pad_to_multiple_of": None}},
    "padding to a multiple": {"padding": {"strategy": "BatchLongest", "pad_to_multiple_of": 64}},
    "padding on the left": {"padding": {"strategy": {"Fixed": 16}, "direction": "Left", "pad_to_multiple_of": None}},
    "padding without end": {"padding": {"strategy": {"Fixed": 2_000_000_000}, "pad_to_multiple_of": None}},
    "both": {
        "truncation": {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 2},
        "padding": {"strategy": {"Fixed": 8}, "pad_to_multiple_of": None},
    },
}
"""Sections that transformers writes when a tokenizer was saved in the middle of a training run."""
PADDING = {"direction": "Right", "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>"}


def saved(sections, folder):
    """The bundled tokenizer.json with such sections."""
    data = json.loads((DEMO / "tokenizer.json").read_text()) | sections
    if "padding" in sections:
        data["padding"] = PADDING | data["padding"]
    (folder / "tokenizer.json").write_text(json.dumps(data))
    return folder / "tokenizer.json"


@pytest.mark.parametrize("sections", SAVED.values(), ids=SAVED.keys())
def test_ids_are_those_of_the_whole_text_whatever_run_saved_the_file(tmp_path, sections):
    tokenizer = HFTokenizer(saved(sections, tmp_path), read_json(DEMO / "tokenizer_config.json"))
    for text in ("", "x", "def add(a, b):\n    return a + b\n" * 9):
        assert tokenizer.encode(text) == TOKENIZER.encode(text)
        assert tokenizer.encode(f"{text}<fim_prefix>", special=True) == TOKENIZER.encode(f"{text}<fim_prefix>", True)
        assert tokenizer.prompt_ids(text) == TOKENIZER.prompt_ids(text)
    assert tokenizer.add_bos is False  # padding with the token that is BOS too puts it first in an empty text
    assert tokenizer.infill_ids("a", "b") == TOKENIZER.infill_ids("a", "b")


def test_what_the_post_processor_puts_first_begins_a_text_though_no_file_names_it(tmp_path):
    tokenizer = HFTokenizer(characters(tmp_path, "<s> $A"), {})
    assert (tokenizer.bos, tokenizer.add_bos) == (1, True)
    tokenizer = HFTokenizer(characters(tmp_path, "$A <s>"), {}, ["<s>"])
    assert (tokenizer.bos, tokenizer.add_bos, tokenizer.eos) == (None, False, 1)
