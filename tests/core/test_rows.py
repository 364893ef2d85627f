"""Tokens for which the embedding has no row are left out: every id of a text has one, and the text stays."""

import json

import pytest

from codellm.errors import ModelFileError, NoFimError
from codellm.sources import ModelSource
from codellm.tokenizer import HFTokenizer
from support.checkpoints import FIM, train_tokenizer

CODE = "def add(a, b):\n    return a + b  # naïve 🙂 e\u0301 你好\n"
FAMILIES = ("starcoder2", "qwen2", "deepseek", "llama3", "codellama")


@pytest.fixture(scope="module", params=FAMILIES)
def trained(request, tmp_path_factory):
    path, config = train_tokenizer(request.param, tmp_path_factory.mktemp(request.param))
    return request.param, path, config, HFTokenizer(path, config)


def with_rows(trained, rows, path=None):
    _, whole, config, _ = trained
    source = ModelSource(
        name="t",
        format="safetensors",
        config={"vocab_size": rows},
        tokenizer=path or whole,
        tokenizer_config=config,
    )
    return HFTokenizer.of(source)


def test_of_a_vocabulary_within_its_rows_nothing_is_left_out(trained):
    whole = trained[3]
    for rows in (whole.vocab_size, whole.vocab_size + 1, 1 << 20):
        tokenizer = with_rows(trained, rows)
        assert tokenizer.vocab_size == whole.vocab_size
        assert tokenizer.encode(CODE) == whole.encode(CODE)


def test_special_tokens_beyond_the_rows_are_none(trained):
    """CodeLlama-34B's form: its infilling tokens stand behind the vocabulary, which was not trained to infill."""
    family, _, _, whole = trained
    texts = FIM[family]
    if not texts:
        pytest.skip("has no tokens of its own for infilling")
    rows = min(whole.special_id(text) for text in texts if whole.special_id(text) is not None)
    tokenizer = with_rows(trained, rows)
    assert [tokenizer.special_id(text) for text in texts] == [None] * len(texts)
    assert tokenizer.fim is None
    with pytest.raises(NoFimError):
        tokenizer.infill_ids("a", "b")
    assert tokenizer.encode(CODE) == whole.encode(CODE)
    for text in texts:
        ids = tokenizer.encode(f"x = {text}y", special=True)
        assert max(ids) < rows
        shown = text.replace("▁", " ") if family == "codellama" else text
        assert tokenizer.decode(ids).lstrip() == f"x = {shown}y"


@pytest.mark.parametrize("special", [False, True])
def test_added_tokens_beyond_the_rows_are_text(trained, tmp_path, special):
    _, path, _, whole = trained
    data = json.loads(path.read_text())
    rows = whole.vocab_size
    entry = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}
    data["added_tokens"] += [{"id": rows + 3 + n, "content": text, **entry} for n, text in enumerate(("<new>", "add"))]
    changed = tmp_path / "tokenizer.json"
    changed.write_text(json.dumps(data))
    tokenizer = with_rows(trained, rows, changed)
    for text in (CODE, "x = <new>y", "<new><new>"):
        for read in (False, True):
            assert tokenizer.encode(text, special=read) == whole.encode(text, special=read)


def test_words_beyond_the_rows_are_made_of_shorter_ones(trained):
    whole = trained[3]
    used = [id for id in whole.encode(CODE) if len(whole.token_bytes(id)) > 1]
    rows = max(used)  # the last of them goes
    try:
        tokenizer = with_rows(trained, rows)
    except ModelFileError:
        pytest.skip("its bytes stand behind its words")
    ids = tokenizer.encode(CODE)
    assert max(ids) < rows
    assert tokenizer.decode(ids) == whole.decode(whole.encode(CODE))


def test_a_tokenizer_of_another_model_is_refused(trained):
    with pytest.raises(ModelFileError, match=r"of a byte is beyond the 40 rows of the embedding"):
        with_rows(trained, 40)
