"""A tokenizer.json in GGUF: llama.cpp's token ids are those of the tokenizers library."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import attrs
import gguf
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, trainers

import codellm
from codellm.errors import ModelFileError, ModelNotFoundError
from codellm.sources import ModelSource
from codellm.sources.dummy import DummyTensors, dummy_config
from codellm.tokenizer import HFTokenizer
from codellm_cpu.convert import convert
from codellm_cpu.convert.pretokenizer import Preparation
from codellm_cpu.convert.vocabulary import read_vocabulary
from codellm_cpu.llama.library import open_native
from codellm_cpu.llama.tokenizer import LlamaTokenizer

DEMO = Path(codellm.__file__).parent / "data" / "codellm-demo"
CONFIG = dummy_config("tiny") | {"hidden_size": 32, "intermediate_size": 32, "vocab_size": 4500}
SPECIALS = ["<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>", "<repo_name>", "<file_sep>"]
NAMES = {"bos_token": "<|endoftext|>", "eos_token": {"content": "<|endoftext|>"}}

TEXTS = [
    "",
    " ",
    "\n",
    "\t",
    "\r\n",
    "a",
    "def f(x):\n    return x + 1\n",
    "class A:\n\tdef b(self):\r\n\t\treturn 'c'\r\n\r\n\r\n",
    " " * 37 + "x",
    "x" + " " * 64,
    "\n" * 9 + "  \n \n" + "\t" * 5,
    "0123456789 3.14 1e-10 0xFF 2024-01-01",
    "١٢٣ ½ ² Ⅷ 五",
    "naïve café Ångström ﬁ ß",
    "你好，世界。こんにちは 안녕하세요",
    "🙂👩‍👩‍👧🏽 e\u0301 \u200b\u00a0\u3000\ufeff",
    "I'm you're they'll it's we've he'd don't DON'T 's",
    "a_b-c+d=e;f:g,h.i/j\\k|l!m?n@o#p$q%r^s&t*u(v)w[x]y{z}~`\"'",
    "\x00\x01\x7f\x85\u2028\u2029",
    "<|endoftext|>",
    "<fim_prefix>def f():<fim_suffix>\n    return 1<fim_middle>",
    "<fim_prefix <|endoftext|",
    "x<file_sep> <repo_name>y/z\n",
    "https://example.com/a?b=c&d=%20#e",
    "    if x == 1:  # comment\n        pass\n" * 20,
]


def train(path, pre):
    """A byte-level tokenizer of a thousand tokens, of the kind that StarCoder2 has."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1000, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([Path(__file__).read_text(), *TEXTS], trainer)
    tokenizer.save(str(path))
    return path


def words(**changes):
    return pre_tokenizers.ByteLevel(**({"add_prefix_space": False, "use_regex": True} | changes))


@pytest.fixture(scope="module", params=["bundled", "starcoder", "gpt-2", "added"])
def tokenizer_file(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    if request.param == "bundled":
        return DEMO / "tokenizer.json"
    digits = pre_tokenizers.Digits(individual_digits=True)
    train(path, words() if request.param == "gpt-2" else pre_tokenizers.Sequence([digits, words()]))
    if request.param == "added":  # tokens added later, one of them no special token
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
        tokenizer.add_tokens(["__dunder__"])
        tokenizer.add_special_tokens(["<later>"])
        tokenizer.save(str(path))
    return path


@pytest.fixture(scope="module")
def pair(tokenizer_file, tmp_path_factory):
    """The library's tokenizer, and llama.cpp's from the converted file."""
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    source = ModelSource(
        name="test",
        format="safetensors",
        digest="0",
        config=CONFIG,
        tokenizer=tokenizer_file,
        tokenizer_config=NAMES,
        tensors=DummyTensors(CONFIG),
    )
    convert(source, "bf16", path)
    with contextlib.ExitStack() as stack:
        model = open_native(stack, path, repack=False, mmap=True)
        yield HFTokenizer(tokenizer_file, NAMES), LlamaTokenizer(model)


@pytest.mark.parametrize("special", [False, True], ids=["text", "special"])
@pytest.mark.parametrize("text", [*TEXTS, "__dunder__ <later>"])
def test_token_ids_are_equal(pair, text, special):
    theirs, ours = pair
    assert ours.encode(text, special) == theirs.encode(text, special)


CODE = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(" \t\n\r019'stdm(){}_=.éß五٣²<|>")))


@settings(max_examples=300)
@given(text=CODE, special=st.booleans())
def test_token_ids_of_any_text_are_equal(pair, text, special):
    theirs, ours = pair
    assert ours.encode(text, special) == theirs.encode(text, special)


def test_bytes_and_special_ids_are_equal(pair):
    theirs, ours = pair
    assert (ours.bos, ours.eos, ours.add_bos) == (theirs.bos, theirs.eos, theirs.add_bos)
    assert (ours.fim.prefix, ours.fim.suffix, ours.fim.middle) == (
        theirs.fim.prefix,
        theirs.fim.suffix,
        theirs.fim.middle,
    )
    assert [ours.token_bytes(id) for id in range(theirs.vocab_size)] == [
        theirs.token_bytes(id) for id in range(theirs.vocab_size)
    ]


def test_the_vocabulary_is_as_long_as_the_embedding(pair):
    theirs, ours = pair
    assert ours.vocab_size == CONFIG["vocab_size"] > theirs.vocab_size


def read(data, tmp_path, size=1100, names=NAMES, config=None):
    path = tmp_path / "tokenizer.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return read_vocabulary(path, names, config or {}, size)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "tokenizer.json"
    train(path, pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words()]))
    return path.read_text()


@pytest.fixture
def data(good):
    return json.loads(good)


def added(id, content, *, special=True):
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": id, "content": content, "special": special} | plain


def test_kinds_and_roles(data, tmp_path):
    data["added_tokens"].append(added(1005, "«plain»", special=False))
    vocabulary = read(data, tmp_path)
    assert vocabulary.preparation == Preparation(pre="starcoder")
    assert vocabulary.tokens[:3] == SPECIALS[:3]
    assert vocabulary.kinds[:7] == [gguf.TokenType.CONTROL] * 7
    assert vocabulary.kinds[7] == gguf.TokenType.NORMAL
    assert vocabulary.kinds[1005] == gguf.TokenType.USER_DEFINED
    assert vocabulary.kinds[1099] == gguf.TokenType.UNUSED
    assert len(set(vocabulary.tokens)) == len(vocabulary.tokens) == 1100
    roles = {"bos": 0, "eos": 0, "eot": 0, "fim_pre": 1, "fim_suf": 3, "fim_mid": 2}
    assert vocabulary.special == roles | {"fim_pad": 4, "fim_rep": 5, "fim_sep": 6}
    assert not vocabulary.add_bos


def test_padding_takes_no_name_that_is_taken(data, tmp_path):
    data["added_tokens"].append(added(1001, "[PAD1050]"))
    tokens = read(data, tmp_path).tokens
    assert tokens[1001] == "[PAD1050]"
    assert len(set(tokens)) == len(tokens)


def test_ids_come_from_config_json_where_the_tokenizer_names_none(data, tmp_path):
    assert read(data, tmp_path, names={}, config={"eos_token_id": 6}).special["eos"] == 6
    assert read(data, tmp_path, names=NAMES | {"add_bos_token": True}).add_bos
    with pytest.raises(ModelFileError, match="no end-of-text token"):
        read(data, tmp_path, names={}, config={"eos_token_id": 999})


def test_merges_may_be_pairs_or_strings(data, tmp_path):
    pairs = read(data, tmp_path)
    data["model"]["merges"] = [" ".join(pair) for pair in data["model"]["merges"]]
    assert attrs.evolve(pairs) == read(data, tmp_path)


def model(**changes):
    return lambda data: data["model"].update(changes)


def top(**changes):
    return lambda data: data.update(changes)


FAULTS = {
    "unigram": (model(type="Unigram"), "type 'Unigram' cannot be converted; supported: BPE"),
    "no model": (top(model=None), "type None"),
    "byte fallback": (model(byte_fallback=True), r"normalizer and pre-tokenizer \(Digits, ByteLevel\) cannot"),
    "whole words": (model(ignore_merges=True), r"pre-tokenizer \(Digits, ByteLevel\) cannot be converted"),
    "prefix": (model(continuing_subword_prefix="##"), "continuing_subword_prefix '##'"),
    "normalizer": (top(normalizer={"type": "NFKC"}), r"normalizer \(NFKC\) cannot be converted; supported: none, NFC"),
    "metaspace": (top(pre_tokenizer={"type": "Metaspace"}), r"pre-tokenizer \(Metaspace\) cannot be converted"),
    "none": (top(pre_tokenizer=None), "cannot be converted"),
    "odd": (top(pre_tokenizer={"type": "Sequence", "pretokenizers": 3}), "cannot be converted"),
    "no vocabulary": (model(vocab=None), "no vocabulary"),
    "id text": (model(vocab={"a": "1"}), "token 'a' has id '1'"),
    "one id twice": (model(vocab={"a": 100, "b": 100}), "id 100 stands for 'a' and 'b'"),
    "one token twice": (model(vocab={"<|endoftext|>": 100}), "two ids stand for one token"),
    "no merges": (model(merges=[]), "no merges"),
    "odd merge": (model(merges=["a b c"]), "merge 'a b c' is no pair"),
    "merge of spaces": (model(merges=[["a ", "b"]]), "is no pair"),
    "added no text": (top(added_tokens=[{"id": 3}]), "has no content"),
    "added word": (
        top(added_tokens=[{"id": 0, "content": "<|endoftext|>", "single_word": True}]),
        "added token '<|endoftext|>' is a single word: no GGUF form",
    ),
    "large": (model(vocab={"a": 1100}), "token id 1100, but the embedding has 1100 rows"),
}


@pytest.mark.parametrize(("change", "message"), FAULTS.values(), ids=FAULTS.keys())
def test_other_tokenizers_are_refused(data, tmp_path, change, message):
    change(data)
    with pytest.raises(ModelFileError, match=message) as error:
        read(data, tmp_path)
    assert "tokenizer.json" in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000], ids=["empty", "cut", "list", "deep"])
def test_a_damaged_file_is_refused(tmp_path, text):
    with pytest.raises(ModelFileError, match=r"not valid JSON|not a JSON object"):
        read(text, tmp_path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"tokenizer\.json"):
        read_vocabulary(tmp_path / "tokenizer.json", {}, {}, 10)
