"""What llama.cpp computes, aligned; and its vocabulary."""

from __future__ import annotations

import numpy as np
import pytest

from codellm.errors import ContextLengthError, InvalidValueError
from codellm.fim import FimIds
from codellm.sampling import SamplingParams
from support.tiny_gguf import vocabulary


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def ids_of(seed: int, length: int) -> list[int]:
    return [int(id) for id in np.random.default_rng(seed).integers(5, 261, length)]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_score_is_aligned_with_logits(load_tiny, batch_size):
    model = load_tiny(batch_size=batch_size)
    ids = ids_of(1, 12)
    scores = model.score([ids])[0]
    assert scores.shape == (11,)
    assert scores.dtype == np.float32
    for place in range(11):
        expected = log_softmax(model.logits(ids[: place + 1]))[ids[place + 1]]
        assert scores[place] == pytest.approx(expected, abs=2e-3)


def test_scores_of_a_batch_stand_in_its_order(load_tiny):
    single, many = load_tiny(), load_tiny(batch_size=4)
    batch = [ids_of(seed, length) for seed, length in enumerate((2, 200, 0, 30, 1, 256, 9, 9, 140, 3))]
    scores = many.score(batch)
    assert [len(part) for part in scores] == [1, 199, 0, 29, 0, 255, 8, 8, 139, 2]
    for ids, part in zip(batch, scores, strict=True):
        np.testing.assert_array_equal(part, single.score([ids])[0])


@pytest.mark.parametrize("start", [0, 1, 127, 128, 200, 254])
def test_distributions_hold_the_scores(load_tiny, start):
    model = load_tiny()
    ids = list(range(7, 262))
    blocks = list(model.distributions(ids, start))
    assert max(map(len, blocks)) <= 128  # of bounded memory
    rows = np.concatenate(blocks)
    assert rows.shape == (255 - start, model.tokenizer.vocab_size)
    np.testing.assert_allclose(np.exp(rows, dtype=np.float64).sum(axis=1), 1, rtol=1e-5)
    chosen = rows[np.arange(254 - start), ids[start + 1 :]]
    np.testing.assert_allclose(chosen, model.score([ids])[0][start:], atol=2e-6)


def test_score_and_logits_refuse_what_they_cannot_take(load_tiny):
    model = load_tiny()
    assert model.score([]) == []
    with pytest.raises(ContextLengthError, match="257"):
        model.score([[5] * 257])
    with pytest.raises(InvalidValueError, match="vocabulary"):
        model.score([[5, 10**6]])
    with pytest.raises(InvalidValueError):
        model.logits([])
    assert model.logits([5]).shape == (len(vocabulary()),)


def test_logits_do_not_depend_on_the_chunk(load_tiny):
    ids = ids_of(2, 200)
    whole, chunked = load_tiny().logits(ids), load_tiny(options={"chunk": "32"}).logits(ids)
    np.testing.assert_allclose(whole, chunked, atol=2e-2)  # key-value cells are float16


def test_any_text_comes_back(load_tiny):
    tokenizer = load_tiny().tokenizer
    for text in ("", "def f(x):\n    return x", "naïve – 漢字 🙂\x00\r\n\t", " " * 50, "".join(map(chr, range(300)))):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_strings_in_text_stay_text(load_tiny):
    tokenizer = load_tiny().tokenizer
    text = "<fim_prefix>a<|endoftext|>"
    assert min(tokenizer.encode(text)) >= 5
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode(text, special=True)[0] == 1
    assert tokenizer.decode([0, 1]) == ""


def test_bytes_of_every_token(load_tiny):
    tokenizer = load_tiny().tokenizer
    assert tokenizer.vocab_size == len(vocabulary())
    assert [tokenizer.token_bytes(id) for id in range(5)] == [b""] * 5
    assert [tokenizer.token_bytes(5 + byte) for byte in range(256)] == [bytes([byte]) for byte in range(256)]
    assert tokenizer.token_bytes(10**6) == b""


def test_special_tokens_are_found_by_their_string(load_tiny):
    tokenizer = load_tiny().tokenizer
    assert (tokenizer.eos, tokenizer.bos, tokenizer.add_bos) == (0, 0, False)
    assert tokenizer.special_id("<file_sep>") == 4
    assert tokenizer.special_id("def") is None
    assert tokenizer.special_id("") is None
    assert tokenizer.fim == FimIds(prefix=1, suffix=3, middle=2, eot=frozenset({4}), file=4)


def test_memory_counts_this_process(load_tiny):
    memory = load_tiny().memory()
    assert 0 < memory.host <= memory.host_peak


@pytest.mark.parametrize("text", ["\ud83d", "a\udcffb", "\udc00\ud800"], ids=ascii)
def test_half_a_character_is_refused_and_costs_its_own_prompt(load_tiny, text):
    model = load_tiny(batch_size=4)
    with pytest.raises(InvalidValueError, match="lone surrogate, U"):
        model.tokenizer.encode(text)
    results = model.generate_batch(["x = ", text, "return"], SamplingParams(max_tokens=3, ignore_eos=True, stop=text))
    assert [each.finish_reason for each in results] == ["length", "error", "length"]
