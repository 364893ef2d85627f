"""Tokenizers of every family in GGUF: llama.cpp's token ids are those of the tokenizers library."""

from __future__ import annotations

import contextlib
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codellm.tokenizer import HFTokenizer
from codellm_cpu.convert import convert
from codellm_cpu.llama.library import open_native
from codellm_cpu.llama.tokenizer import LlamaTokenizer
from support.checkpoints import FIM, config_of, source_of, train_tokenizer, with_every_pair

FAMILIES = {"starcoder2": "starcoder2", "qwen2": "qwen2", "deepseek": "llama", "llama3": "llama", "codellama": "llama"}
"""Of tokenizers, with the architecture whose models have them."""

TEXTS = [
    "",
    " ",
    "  ",
    "\n",
    "\t",
    "\r\n",
    "a",
    " a",
    "▁a",
    "def f(x):\n    return x + 1\n",
    "class A:\n\tdef b(self):\r\n\t\treturn 'c'\r\n\r\n\r\n",
    " " * 37 + "x",
    "x" + " " * 64,
    "\n" * 9 + "  \n \n" + "\t" * 5,
    "0123456789 3.14 1e-10 0xFF 2024-01-01 12 123 1234",
    "١٢٣ ½ ² Ⅷ 五",
    "naïve café Ångström ﬁ ß õ÷Áý x÷y",
    "你好，世界。こんにちは 안녕하세요 ཀ",
    "🙂👩‍👩‍👧🏽 e\u0301 \u200b\u00a0\u3000\ufeff",
    "I'm you're they'll it's we've he'd don't DON'T 's",
    "a_b-c+d=e;f:g,h.i/j\\k|l!m?n@o#p$q%r^s&t*u(v)w[x]y{z}~`\"'",
    "\x00\x01\x7f\x85\u2028\u2029",
    "<0x0A> <unk> <s>x</s>",
    "    if x == 1:  # comment\n        pass\n" * 20,
]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def pair(family, tmp_path_factory):
    """The library's tokenizer, and llama.cpp's from the converted file."""
    folder = tmp_path_factory.mktemp(family)
    tokenizer = train_tokenizer(family, folder)
    convert(source_of(config_of(FAMILIES[family], 600), tokenizer), "bf16", folder / "model.gguf")
    with contextlib.ExitStack() as stack:
        native = open_native(stack, folder / "model.gguf", repack=False, mmap=True)
        yield HFTokenizer(*tokenizer), LlamaTokenizer(native)


@pytest.mark.parametrize("text", TEXTS)
def test_token_ids_are_equal(pair, text):
    theirs, ours = pair
    assert ours.encode(text) == theirs.encode(text)


CODE = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(" \t\n\r019'stdm(){}_=.éß五٣²<|>")))


@settings(max_examples=300)
@given(text=CODE)
def test_token_ids_of_any_text_are_equal(pair, text):
    theirs, ours = pair
    assert ours.encode(text) == theirs.encode(text)


@pytest.fixture(scope="module", params=[family for family in FAMILIES if family != "codellama"])
def cutters(request, tmp_path_factory):
    """As `pair`, with a vocabulary that shows where a text is cut before it is merged; and the family's name."""
    family = request.param
    folder = tmp_path_factory.mktemp(f"{family}-pairs")
    tokenizer, size = with_every_pair(train_tokenizer(family, folder), folder)
    changes = {"hidden_size": 12, "intermediate_size": 8, "num_hidden_layers": 1}
    convert(source_of(config_of(FAMILIES[family], size, **changes), tokenizer), "bf16", folder / "model.gguf")
    with contextlib.ExitStack() as stack:
        native = open_native(stack, folder / "model.gguf", repack=False, mmap=True, vocab_only=True)
        yield HFTokenizer(*tokenizer), LlamaTokenizer(native), family


UNICODE_SPACES = "".join(map(chr, [0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000]))
OLD = st.characters(exclude_categories=["Cs", "Cn"], exclude_characters=UNICODE_SPACES).filter(
    lambda character: unicodedata.ucd_3_2_0.category(character) != "Cn"
)
"""Characters that every version of Unicode knows, Python's, the library's and llama.cpp's; for the spaces see below."""


@settings(max_examples=300)
@given(text=st.text(st.one_of(OLD, st.sampled_from("🙂 \t\n\r019'stdm(){}_=.éß五٣²<|>"))))
def test_text_is_cut_alike(cutters, text):
    theirs, ours, _ = cutters
    assert ours.encode(text) == theirs.encode(text)


def test_spaces_of_unicode_are_cut_alike_but_for_deepseek(cutters):
    """A fact of llama.cpp's `deepseek-coder`: the day this fails, its note in pretokenizer.py must go."""
    theirs, ours, family = cutters
    equal = [ours.encode(f"a{space}b{space}.") == theirs.encode(f"a{space}b{space}.") for space in UNICODE_SPACES]
    assert equal == [family != "deepseek"] * len(UNICODE_SPACES)


def test_special_strings_in_user_text_stay_text(pair, family):
    theirs, ours = pair
    for text in FIM[family]:
        wrapped = f"x{text} y"
        special = theirs.special_id(text)
        assert special is not None
        assert ours.special_id(text) == special
        assert special not in theirs.encode(wrapped)
        assert ours.encode(wrapped) == theirs.encode(wrapped)
        assert ours.decode(ours.encode(wrapped)).lstrip() == (
            wrapped.replace("▁", " ") if family == "codellama" else wrapped
        )


def test_bytes_and_special_ids_are_equal(pair, family):
    theirs, ours = pair
    assert (ours.eos, ours.add_bos) == (theirs.eos, theirs.add_bos)
    assert theirs.add_bos is (family in {"deepseek", "llama3", "codellama"})
    assert ours.prompt_ids("") == theirs.prompt_ids("")
    assert (ours.fim is None) == (theirs.fim is None) == (not FIM[family])
    if ours.fim is not None:
        assert ours.fim == theirs.fim
    sizes = range(theirs.vocab_size)
    assert [ours.token_bytes(id) for id in sizes] == [theirs.token_bytes(id) for id in sizes]
