"""Tokenizers as published models and their fine-tunes have them: the file's ids are those of tokenizer.json."""

from __future__ import annotations

import contextlib
import json

import gguf
import pytest

from codellm.tokenizer import HFTokenizer
from codellm_cpu.convert import check_parity, convert
from codellm_cpu.convert.probes import TEXTS
from codellm_cpu.llama.library import open_native
from codellm_cpu.llama.tokenizer import LlamaTokenizer
from support.checkpoints import config_of, source_of, train_tokenizer

MODEL_TYPES = {"codellama": "llama", "deepseek": "llama", "llama3": "llama", "starcoder2": "starcoder2"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The tokenizer of a family, trained once."""
    made = {}

    def trained(family):
        if family not in made:
            made[family] = train_tokenizer(family, tmp_path_factory.mktemp(family))
        return made[family]

    return trained


@pytest.fixture
def converted(tmp_path, trained):
    """Convert a family's tokenizer after a change of its object, and open both sides of it."""
    with contextlib.ExitStack() as stack:

        def converted(family, change=lambda data: None, rows=640, **named):
            path, config = trained(family)
            data = json.loads(path.read_text())
            change(data)
            changed = tmp_path / "tokenizer.json"
            changed.write_text(json.dumps(data))
            source = source_of(config_of(MODEL_TYPES[family], rows), (changed, config | named), dummy=True)
            convert(source, "bf16", tmp_path / "tiny.gguf")
            check_parity(source, "bf16", tmp_path / "tiny.gguf")
            native = open_native(stack, tmp_path / "tiny.gguf", repack=False, mmap=True, vocab_only=True)
            return HFTokenizer.of(source), LlamaTokenizer(native)

        yield converted


def vocabulary(path):
    return gguf.GGUFReader(path).fields["tokenizer.ggml.tokens"].contents()


def put(*tokens):
    """Add words to the vocabulary that no merge makes, after all others."""

    def change(data):
        vocab = data["model"]["vocab"]
        last = max(*vocab.values(), *(token["id"] for token in data["added_tokens"]))
        vocab.update({token: last + place for place, token in enumerate(tokens, 1) if token not in vocab})

    return change


UNMERGED = {
    "the steps to CodeLlama's infilling tokens": (
        ("▁<", "SU", "▁<SU", "▁<SUF", "▁<PRE", "▁<M", "▁<MID", "▁<E", "▁<EOT"), " <SUF> x<PRE> <MID>  <EOT", "▁<SU"),
    "a word of two words": (("de", "f", "def", "▁def"), "def f(x): defdef  def", "▁def"),
    "a word of spaces": (("▁▁▁▁▁▁▁▁▁▁▁▁▁",), " " * 40 + "x" + " " * 13, None),
    "words in steps of one": (("XY", "XYZ", "XYZW"), "XYZW XYZ XYXY", "XYZW"),
    "repeated ends": (("▁<EOT>▁<EOT>",), " <EOT> <EOT>", None),
}  # fmt: skip


@pytest.mark.parametrize(("tokens", "text", "hidden"), UNMERGED.values(), ids=UNMERGED)
def test_a_token_that_no_merge_makes_is_in_no_text(converted, tmp_path, tokens, text, hidden):
    theirs, ours = converted("codellama", put(*tokens), rows=700)
    assert ours.encode(text) == theirs.encode(text)
    assert hidden not in vocabulary(tmp_path / "tiny.gguf")


def steps(normalizer=None, pre_tokenizer=None):
    return lambda data: data.update(normalizer=normalizer, pre_tokenizer=pre_tokenizer)


REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
METASPACE = {"type": "Metaspace", "replacement": "▁", "split": False}
SPACES = {
    "no prefix": steps(REPLACE),
    "no prefix, in a sequence of one": steps({"type": "Sequence", "normalizers": [REPLACE]}),
    "metaspace never": steps(None, METASPACE | {"prepend_scheme": "never"}),
    "metaspace first": steps(None, METASPACE | {"prepend_scheme": "first"}),
    "metaspace first, in a sequence of one": steps(
        None, {"type": "Sequence", "pretokenizers": [METASPACE | {"prepend_scheme": "first"}]}
    ),
    "prefix": lambda data: None,
}
STARTS = ["", " ", "  ", "a", " a", "  a", "▁a", "▁", "\na", "<s>a", "<s> a", "a<s>b", "</s>", " <s>a", "é", " \n"]


@pytest.mark.parametrize("change", SPACES.values(), ids=SPACES)
def test_the_first_space_is_where_the_tokenizer_puts_it(converted, change):
    theirs, ours = converted("codellama", change)
    for text in [*STARTS, *TEXTS]:
        assert ours.encode(text) == theirs.encode(text), text
    for text in [text for text in STARTS if change is not SPACES["prefix"]]:
        assert ours.encode(text, special=True) == theirs.encode(text, special=True), text


def fine_tuned(content, **fields):
    """Add one token, as a fine-tune does."""

    def change(data):
        last = max(*data["model"]["vocab"].values(), *(token["id"] for token in data["added_tokens"]))
        plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        data["added_tokens"].append({"id": last + 1, "content": content, "special": True} | plain | fields)

    return change


STRIPPED = {
    "special, behind": ("<|user|>", {"rstrip": True}),
    "special, before": ("<|user|>", {"lstrip": True}),
    "special, both": ("<|user|>", {"lstrip": True, "rstrip": True}),
    "ordinary, behind": ("<|user|>", {"rstrip": True, "special": False}),
    "ordinary, both": ("<|user|>", {"lstrip": True, "rstrip": True, "special": False}),
    "of signs": ("[a.b]*", {"rstrip": True}),
}


@pytest.mark.parametrize("family", ["llama3", "deepseek", "starcoder2", "codellama"])
@pytest.mark.parametrize(("token", "fields"), STRIPPED.values(), ids=STRIPPED)
def test_a_token_takes_the_space_around_it_where_tokenizer_json_says_so(converted, family, token, fields):
    theirs, ours = converted(family, fine_tuned(token, **fields))
    for text in (
        f"a {token} b",
        f"a{token}\n\n\tb",
        f"{token}  x  {token}",
        f"{token}\u3000\u00a0 x",
        f"a \x1c{token}\x1fb",
    ):
        assert ours.encode(text) == theirs.encode(text), text
        if family != "codellama":  # whose prefix after a special token is another matter
            assert ours.encode(text, special=True) == theirs.encode(text, special=True), text


@pytest.mark.parametrize(("family", "rows"), [
    ("codellama", 569), ("starcoder2", 571), ("deepseek", 569), ("starcoder2", 400), ("llama3", 450),
])  # fmt: skip
def test_tokens_beyond_the_embedding_are_none(converted, tmp_path, family, rows):
    """As in CodeLlama-34b, whose tokenizer has the infilling tokens and whose weights have no rows for them."""
    theirs, ours = converted(family, rows=rows)
    whole = HFTokenizer(tmp_path / "tokenizer.json", {})
    assert whole.vocab_size > rows
    assert theirs.vocab_size == ours.vocab_size == len(vocabulary(tmp_path / "tiny.gguf")) == rows
    assert theirs.fim is ours.fim is None
    for text in TEXTS:
        wanted, got = whole.encode(text), ours.encode(text)
        assert max(got, default=0) < rows
        assert got == wanted or max(wanted) >= rows
        assert got == theirs.encode(text)


def test_a_tokenizer_whose_bytes_are_beyond_the_embedding_is_another_models(converted):
    with pytest.raises(ValueError, match=r"token id \d+, but the embedding has 100 rows"):
        converted("starcoder2", rows=100)


@pytest.mark.parametrize("special", [True, False])
def test_a_turn_s_end_that_is_listed_as_ordinary_ends_a_text(converted, special):
    """deepseek-coder-instruct's <|EOT|>."""
    theirs, ours = converted("deepseek", fine_tuned("<|EOT|>", special=special), eos_token="<|EOT|>")
    assert theirs.eos == ours.eos == theirs.special_id("<|EOT|>") is not None
    assert ours.eos in ours.ends
    assert ours.encode("x<|EOT|>") == theirs.encode("x<|EOT|>") != ours.encode("x<|EOT|>", special=True)
    assert ours.token_bytes(ours.eos) == b""
