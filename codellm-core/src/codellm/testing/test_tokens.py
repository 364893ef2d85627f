"""Tokenizer: text to ids and back, special tokens, fill-in-the-middle."""

from __future__ import annotations

import pytest

from codellm.fim import TEMPLATES, find_fim
from codellm.model import Model
from codellm.sampling import SamplingParams
from codellm.testing.running import TEXTS, told

SPECIAL = (
    *("<|endoftext|>", "<s>", "</s>", "<unk>", "<pad>", "<bos>", "<eos>", "<|im_start|>", "<|im_end|>"),
    *("<|begin▁of▁sentence|>", "<|end▁of▁sentence|>", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    *(text for one in TEMPLATES for text in (one.prefix, one.suffix, one.middle, *one.eot)),
)
"""Strings that mark something in the vocabularies of code models."""


def test_text_survives_encoding(single: Model) -> None:
    """The bytes of `encode(text)`'s tokens, joined, are the text's: nothing added, dropped or replaced."""
    tokenizer = single.tokenizer
    for text in TEXTS:
        back = b"".join(tokenizer.token_bytes(id) for id in tokenizer.encode(text))
        assert back == text.encode(), (
            f"{text!r} came back as {back!r}. token_bytes(id) is the token's exact bytes, also where they are a part "
            "of a character or begin with a space; encode adds no BOS and no prefix."
        )


def test_every_id_has_bytes(single: Model) -> None:
    """`token_bytes` takes every id of the vocabulary and returns bytes, none for BOS and EOS, so that neither shows."""
    tokenizer = single.tokenizer
    for id in range(tokenizer.vocab_size):
        data = tokenizer.token_bytes(id)
        assert isinstance(data, bytes), f"token_bytes({id}) returned {data!r}, not bytes."
    for name, special in (("bos", tokenizer.bos), ("eos", tokenizer.eos)):
        if special is not None:
            assert 0 <= special < tokenizer.vocab_size, f"{name} is {special}, outside of the vocabulary."
            data = tokenizer.token_bytes(special)
            assert data == b"", f"token_bytes({name}) is {data!r}: a special token has no bytes, or it shows in text."
    outside = [id for id in tokenizer.ends if not 0 <= id < tokenizer.vocab_size]
    assert not outside, f"ends holds {outside[:3]}, outside of the vocabulary."


def test_special_strings_in_text_stay_text(single: Model) -> None:
    """A special token's string in a user's text is encoded as text: nobody ends a file or begins one by quoting it."""
    tokenizer = single.tokenizer
    known = {text: id for text in SPECIAL if (id := tokenizer.special_id(text)) is not None}
    if not known:
        pytest.skip("the vocabulary has none of the special tokens that the kit knows")
    for text in known:
        ids = tokenizer.encode(f"a{text}b")
        taken = set(ids) & set(known.values())
        assert not taken, (
            f"encode('a{text}b') holds the special token {taken.pop()}. Encode with special tokens off unless "
            "`special` is set (parse_special=False, encode_special_tokens=True, …)."
        )
        back = b"".join(map(tokenizer.token_bytes, ids))
        assert back == f"a{text}b".encode(), f"'a{text}b' came back as {back!r}."


def test_fim_tokens_are_found(single: Model) -> None:
    """`fim` holds the ids of a family whose strings `special_id` knows: distinct, in the vocabulary, without bytes."""
    tokenizer = single.tokenizer
    fim, family = tokenizer.fim, find_fim(tokenizer.special_id)
    if fim is None:
        assert family is None, f"fim is None, but special_id knows a family's three tokens: {family}."
        pytest.skip("the model has no fill-in-the-middle tokens")
    ids = [fim.prefix, fim.suffix, fim.middle]
    assert len(set(ids)) == 3, f"the ids of prefix, suffix and middle are not distinct: {ids}."
    for id in (*ids, *fim.eot):
        assert 0 <= id < tokenizer.vocab_size, f"the fill-in-the-middle id {id} is outside of the vocabulary."
        data = tokenizer.token_bytes(id)
        assert data == b"", f"token_bytes({id}), a fill-in-the-middle token, is {data!r}: it would show in text."


def test_an_infill_prompt_runs(single: Model) -> None:
    """A prompt with fill-in-the-middle ids generates as any other."""
    tokenizer = single.tokenizer
    if tokenizer.fim is None:
        pytest.skip("the model has no fill-in-the-middle tokens")
    ids = tokenizer.fim.prompt(tokenizer.encode("def add(a, b):\n"), tokenizer.encode("\n    return c\n"))
    result = single.generate_batch([ids], SamplingParams(max_tokens=8, ignore_eos=True))[0]
    assert len(result.token_ids) == 8, (
        f"the prompt {ids} gave {len(result.token_ids)} of 8 tokens, and {told(result.error)}."
    )
