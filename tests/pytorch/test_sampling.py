"""Sampling on the device makes the choices of codellm.sampler."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codellm.errors import BackendError
from codellm.sampler import Sampler
from codellm.sampling import SamplingParams
from codellm.sequence import Sequence
from codellm.torch.readback import Readback
from codellm.torch.sampling import BatchSampler

VOCABULARY = 700
PARAMS = {
    "greedy": {},
    "plain": {"temperature": 1.0},
    "cold": {"temperature": 0.05},
    "hot": {"temperature": 5.0},
    "top-k": {"temperature": 0.8, "top_k": 5},
    "top-p": {"temperature": 1.2, "top_p": 0.7},
    "both": {"temperature": 1.0, "top_k": 40, "top_p": 0.9},
    "min-p": {"temperature": 1.5, "min_p": 0.05},
    "all cuts": {"temperature": 1.5, "top_k": 100, "top_p": 0.95, "min_p": 0.01},
    "penalty": {"temperature": 0.7, "repetition_penalty": 1.3},
    "greedy penalty": {"repetition_penalty": 1.5},
    "everything": {"temperature": 0.9, "top_k": 50, "top_p": 0.8, "min_p": 0.02, "repetition_penalty": 1.1},
}


def sequences():
    return [
        Sequence(index=slot, prompt_ids=[1, 2, 3 + slot], params=SamplingParams(seed=7, **params))
        for slot, params in enumerate(PARAMS.values())
    ]


def sampler_of(seated):
    sampler = BatchSampler(len(seated), VOCABULARY, torch.device("cpu"))
    for slot, sequence in enumerate(seated):
        if sequence is not None:
            sampler.seat(slot, sequence)
    return sampler


def choose(sampler, logits, slots):
    """Ids and log-probabilities of `slots`, as the host gets them."""
    readback = Readback(len(logits), logits.device).begin(*sampler.choose(logits, slots))
    return [[values[slot] for slot in slots] for values in readback.read()]


def test_a_mixed_batch_chooses_what_each_sampler_chooses():
    """Every kind of parameters in one batch, 60 steps; logits with many ties."""
    random = np.random.default_rng(3)
    seated = sequences()
    batched, samplers = sampler_of(seated), [Sampler(sequence) for sequence in sequences()]
    for _ in range(60):
        logits = random.normal(0, 3, (len(seated), VOCABULARY)).astype(np.float32).round(1)
        expected = []
        for sampler, row, sequence in zip(samplers, logits, seated, strict=True):
            sampler._sequence.token_ids[:] = sequence.token_ids
            expected.append(sampler(row))
        ids, logprobs = choose(batched, torch.from_numpy(logits), list(range(len(seated))))
        assert ids == [token.id for token in expected]
        np.testing.assert_allclose(logprobs, [token.logprob for token in expected], rtol=0, atol=1e-5)
        for sequence, id in zip(seated, ids, strict=True):
            sequence.token_ids.append(id)


def test_a_row_draws_the_same_whatever_is_beside_it():
    random = np.random.default_rng(4)
    logits = torch.from_numpy(random.normal(0, 2, (len(PARAMS), VOCABULARY)).astype(np.float32))
    together = choose(sampler_of(sequences()), logits, list(range(len(PARAMS))))[0]
    for slot, sequence in enumerate(sequences()):
        seated = [None] * len(PARAMS)
        seated[slot] = sequence
        assert choose(sampler_of(seated), logits, [slot])[0] == [together[slot]]


def test_greedy_takes_the_lowest_id_of_equals():
    logits = torch.zeros((2, VOCABULARY))
    logits[0, [5, 300]] = 2.0
    assert choose(sampler_of(sequences()[:1] * 2), logits, [0, 1])[0] == [5, 0]


@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("params", [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_k": 3}])
def test_broken_logits_are_told(broken, params):
    sequence = Sequence(prompt_ids=[1], params=SamplingParams(seed=1, **params))
    logits = torch.zeros((1, VOCABULARY))
    logits[0, 9] = broken
    _, [logprob] = choose(sampler_of([sequence]), logits, [0])
    assert math.isnan(logprob)
    with pytest.raises(BackendError):
        Sampler(sequence)(logits[0].numpy())


@settings(deadline=None)
@given(seed=st.integers(0, 100), size=st.integers(2, 200), counts=st.lists(st.none() | st.integers(0, 20), min_size=1))
def test_the_likeliest_are_those_of_the_host(seed, size, counts):
    """Beside ties, and each row as many as it asks for."""
    rows = np.round(np.random.default_rng(seed).standard_normal((len(counts), size)) * 3).astype(np.float32)
    seated = [Sequence(prompt_ids=[0], params=SamplingParams(logprobs=count)) for count in counts]
    batched, logits = sampler_of(seated), torch.from_numpy(rows)
    readback = Readback(len(counts), logits.device)
    readback.begin(*batched.choose(logits, list(range(len(counts)))), batched.likeliest(logits)).read()
    for row, one in enumerate(seated):
        expected = Sampler(one)(rows[row]).top or ()
        found = readback.top(row, one.params.logprobs or 0)
        assert [id for id, _ in found] == [id for id, _ in expected]
        assert np.allclose([own for _, own in found], [own for _, own in expected], atol=1e-5)
