import pytest
from hypothesis import given
from hypothesis import strategies as st

from codellm.errors import ModelFileError
from codellm.fim import TEMPLATES, find_fim
from codellm.sources.bundled import bundled_directory
from codellm.sources.local import read_json
from codellm.tokenizer import HFTokenizer

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


def test_a_broken_tokenizer_is_named(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(ModelFileError, match=r"tokenizer\.json: not a readable tokenizer"):
        HFTokenizer(path, {})


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.family)
def test_each_family_is_found_by_its_strings(template):
    vocabulary = {text: place for place, text in enumerate((template.prefix, template.suffix, template.middle))}
    fim = find_fim(vocabulary.get)
    assert (fim.prefix, fim.suffix, fim.middle) == (0, 1, 2)
    del vocabulary[template.middle]
    assert find_fim(vocabulary.get) is None
