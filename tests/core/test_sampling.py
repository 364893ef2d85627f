import numpy as np
import pytest

from codellm import CodellmError, LoadSpec, Sampler, SamplingParams, Sequence
from codellm.errors import BackendError, InvalidValueError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0), ("max_tokens", -1), ("max_tokens", 1.5), ("max_tokens", True), ("temperature", -0.1),
        ("temperature", float("nan")), ("temperature", float("inf")), ("top_p", 0.0), ("top_p", 1.1), ("top_k", -1),
        ("min_p", 2.0), ("repetition_penalty", 0.0), ("seed", -1), ("stop", ("",)), ("stop", (3,)),
        ("logprobs", -1), ("logprobs", 21), ("logprobs", True),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_named(field, value):
    with pytest.raises(InvalidValueError, match=field):
        SamplingParams(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [("model", ""), ("model", "a\0b"), ("batch_size", 0), ("threads", -2), ("dtype", "int3"), ("context_length", 0)],
)
def test_a_load_spec_names_its_fault(field, value):
    with pytest.raises(CodellmError, match=field):
        LoadSpec(**{"model": "m", field: value})


def draw(logits, index=0, token_ids=(), **params):
    sequence = Sequence(index=index, prompt_ids=[0], params=SamplingParams(**params), token_ids=list(token_ids))
    sampler = Sampler(sequence)
    return lambda: sampler(np.asarray(logits, np.float32))


def test_greedy_is_the_lowest_of_equal_maxima():
    token = draw([1, 3, 3, 2])()
    assert token.id == 1
    assert token.logprob == pytest.approx(3 - np.log(np.exp([1, 3, 3, 2]).sum()), abs=1e-6)


def test_broken_logits_are_told():
    for bad in (np.nan, np.inf):
        with pytest.raises(BackendError, match="broken"):
            draw([0.0, bad, 1.0])()
    with pytest.raises(BackendError, match="broken"):
        draw([-np.inf, -np.inf])()


def test_the_distribution_is_that_of_the_softmax():
    next_token = draw([0.0, np.log(2), np.log(5)], temperature=1.0, seed=1)
    counts = np.bincount([next_token().id for _ in range(8000)], minlength=3)
    np.testing.assert_allclose(counts / 8000, [1 / 8, 2 / 8, 5 / 8], atol=0.02)


def test_temperature_sharpens():
    next_token = draw([0.0, 1.0], temperature=0.5, seed=1)
    share = np.mean([next_token().id for _ in range(4000)])
    assert share == pytest.approx(np.exp(2) / (1 + np.exp(2)), abs=0.03)


@pytest.mark.parametrize(
    ("params", "kept"),
    [({"top_k": 2}, {2, 3}), ({"top_p": 0.35}, {3}), ({"top_p": 0.65}, {2, 3}), ({"min_p": 0.6}, {2, 3})],
)
def test_filters_keep_the_likely(params, kept):
    # probabilities .1 .2 .3 .4 are all distinct, and none of the bounds above falls on a sum of them
    next_token = draw(np.log([0.1, 0.2, 0.3, 0.4]), temperature=1.0, seed=3, **params)
    assert {next_token().id for _ in range(500)} == kept


@pytest.mark.parametrize(("size", "spread"), [(3584, 3.0), (49152, 1.0), (100, 0.0)])
def test_filters_of_a_whole_vocabulary_are_those_of_a_sort(size, spread):
    logits = (spread * np.random.default_rng(size).standard_normal(size)).astype(np.float32)
    order = np.argsort(-logits, kind="stable")
    edges = np.cumsum(np.exp(logits[order] - logits.max(), dtype=np.float64))
    nucleus = int(np.searchsorted(edges, 0.7 * edges[-1])) + 1
    for params, count in (({"top_k": 70}, 70), ({"top_p": 0.7}, nucleus), ({"top_k": 2 * size, "top_p": 0.7}, nucleus)):
        next_token = draw(logits, temperature=1.0, seed=3, **params)
        drawn = {next_token().id for _ in range(1000)}
        assert drawn <= {*order[: count + (count == nucleus)]}  # a sum that rounding moves past its bound
        assert len(drawn) > min(count, 100) / 3


def test_min_p_counts_after_top_p():
    # top-p leaves .4 and .3, of which .3 is more than half
    next_token = draw(np.log([0.1, 0.2, 0.3, 0.4]), temperature=1.0, seed=3, top_p=0.6, min_p=0.5)
    assert {next_token().id for _ in range(300)} == {2, 3}


def test_a_penalty_hits_what_was_seen():
    assert draw([3.0, 2.9, -1.0], repetition_penalty=1.2)().id == 1  # id 0 stands in the prompt
    assert draw([-1.0, -1.1, -5.0], repetition_penalty=1.2)().id == 1
    assert draw([3.0, 2.9, 2.8], token_ids=[1], repetition_penalty=1.2)().id == 2


def test_seeds_repeat_and_samples_differ():
    flat = np.zeros(1000)
    first = [draw(flat, temperature=1.0, seed=7)().id for _ in range(3)]
    assert len(set(first)) == 1
    assert len({draw(flat, index=index, temperature=1.0, seed=7)().id for index in range(20)}) > 10
    assert len({draw(flat, temperature=1.0)().id for _ in range(20)}) > 10


@pytest.mark.parametrize("size", [3, 20, 64, 1000, 5000])
@pytest.mark.parametrize("count", [0, 1, 5, 20])
def test_the_likeliest_are_told_as_they_are_before_any_cut(size, count):
    """Beside ties, which go to the lowest id."""
    logits = np.round(np.random.default_rng(size).standard_normal(size) * 3).astype(np.float32)
    params = SamplingParams(logprobs=count, temperature=2.0, top_k=2, seed=1, repetition_penalty=3.0)
    token = Sampler(Sequence(prompt_ids=[0, 1, 2], params=params))(logits)
    expected = logits.astype(np.float64) - np.log(np.exp(logits.astype(np.float64)).sum())
    order = np.argsort(-expected, kind="stable")[:count]
    assert [id for id, _ in token.top] == order.tolist()
    assert np.allclose([logprob for _, logprob in token.top], expected[order], atol=1e-5)
    assert token.logprob == pytest.approx(expected[token.id], abs=1e-5)
    assert Sampler(Sequence(prompt_ids=[0], params=SamplingParams()))(logits).top is None
