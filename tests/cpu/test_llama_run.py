"""Many sequences on one llama.cpp context: order, refilling, sharing, faults, live queues."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest

from codellm.errors import ContextLengthError, InvalidValueError, ModelBusyError, ModelClosedError
from codellm.sampling import SamplingParams
from codellm.sequence import Sequence, Token
from support.tiny_gguf import vocabulary, write_gguf


def sequence(ids: list[int], index: int = 0, **params: Any) -> Sequence:
    return Sequence(
        index=index, prompt_ids=ids, params=SamplingParams(**{"max_tokens": 8, "ignore_eos": True, **params})
    )


def prompt(seed: int, length: int) -> list[int]:
    return [int(id) for id in np.random.default_rng(seed).integers(5, 261, length)]


def take(tokens: list[Token]) -> None:
    """What core does with a step's tokens."""
    for token in tokens:
        one = token.sequence
        if not one.finished:
            one.token_ids.append(token.id)
            one.finished = len(one.token_ids) >= one.params.max_tokens


def drive(model: Any, sequences: Iterable[Sequence | None]) -> None:
    for tokens in model.run(sequences):
        take(tokens)


def alone(model: Any, ids: list[int], **params: Any) -> list[int]:
    one = sequence(ids, **params)
    drive(model, [one])
    return one.token_ids


def test_hundreds_of_sequences_on_a_few_slots(load_tiny):
    model = load_tiny(batch_size=5)
    lengths = np.random.default_rng(1).integers(1, 12, 200)
    sequences = [sequence(prompt(seed, 3 + seed % 40), max_tokens=int(n)) for seed, n in enumerate(lengths)]
    drive(model, sequences)
    assert [len(one.token_ids) for one in sequences] == list(lengths)
    assert all(one.error is None for one in sequences)


def exactly(model: Any, sequences: list[Sequence]) -> list[list[tuple[int, float | None]]]:
    """Ids and log probabilities of each sequence, to be compared bit by bit."""
    found: dict[Sequence, list[tuple[int, float | None]]] = {one: [] for one in sequences}
    for tokens in model.run(sequences):
        for token in tokens:
            if not token.sequence.finished:
                found[token.sequence].append((token.id, token.logprob))
        take(tokens)
    return list(found.values())


@pytest.mark.parametrize("batch_size", [3, 16])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_batch_equals_singles_with_one_thread(load_tiny, tiny_q8_0, batch_size, temperature):
    single, many = load_tiny(tiny_q8_0), load_tiny(tiny_q8_0, batch_size=batch_size)
    prompts = [prompt(seed, 5 + 37 * seed % 200) for seed in range(20)] + [prompt(77, 120)] * 5

    def sequences() -> list[Sequence]:
        return [
            sequence(ids, place, max_tokens=3 + place % 29, temperature=temperature, seed=4)
            for place, ids in enumerate(prompts)
        ]

    assert exactly(many, sequences()) == [exactly(single, [one])[0] for one in sequences()]


def test_greedy_is_the_argmax_of_logits_and_logprob_agrees_with_score(load_tiny):
    model = load_tiny()
    one = sequence(prompt(3, 20), max_tokens=10)
    logprobs = []
    for tokens in model.run([one]):
        logprobs += [token.logprob for token in tokens]
        take(tokens)
    for place, id in enumerate(one.token_ids):
        assert id == int(np.argmax(model.logits(one.prompt_ids + one.token_ids[:place])))
    scores = model.score([one.prompt_ids + one.token_ids])[0]
    np.testing.assert_allclose(scores[len(one.prompt_ids) - 1 :], logprobs, atol=2e-3)  # key-value cells are float16


def test_a_shared_prompt_is_computed_once(load_tiny):
    model = load_tiny(batch_size=4)
    ids, samples, tokens = prompt(5, 100), 12, 6
    sequences = [sequence(ids, index, temperature=1.0, seed=7, max_tokens=tokens) for index in range(samples)]
    before = model.decoded_tokens
    drive(model, sequences)
    # the prompt once, then the output without the last token of each
    assert model.decoded_tokens - before == 100 + samples * (tokens - 1)
    assert len({tuple(one.token_ids) for one in sequences}) == samples


def test_samples_of_a_shared_prompt_are_those_they_are_alone(load_tiny, tiny_q8_0):
    single, many = load_tiny(tiny_q8_0), load_tiny(tiny_q8_0, batch_size=4)
    ids = prompt(6, 60)
    sequences = [sequence(ids, index, temperature=1.0, seed=3) for index in range(9)]
    drive(many, sequences)
    for index, one in enumerate(sequences):
        again = sequence(ids, index, temperature=1.0, seed=3)
        drive(single, [again])
        assert again.token_ids == one.token_ids


def test_a_common_prefix_of_different_prompts_is_computed_once(load_tiny):
    model = load_tiny(batch_size=4)
    common = prompt(8, 80)
    before = model.decoded_tokens
    drive(model, [sequence(common + prompt(seed, 10), max_tokens=1) for seed in range(4)])
    assert model.decoded_tokens - before == 80 + 4 * 10


def test_nothing_is_kept_from_one_run_to_the_next(load_tiny):
    model = load_tiny()
    ids = prompt(9, 70)
    spent = []
    for _ in range(2):
        before = model.decoded_tokens
        drive(model, [sequence(ids, max_tokens=1)])
        spent.append(model.decoded_tokens - before)
    assert spent == [70, 70]


def test_a_seed_repeats(load_tiny):
    model = load_tiny(batch_size=3)
    first, second = (
        [sequence(prompt(1, 10), index, temperature=0.9, top_p=0.9, seed=5) for index in range(6)] for _ in range(2)
    )
    drive(model, first)
    drive(model, second)
    assert [one.token_ids for one in first] == [one.token_ids for one in second]


def test_a_live_queue_may_have_nothing_now(load_tiny):
    model = load_tiny(batch_size=2)
    given: list[Sequence] = []

    def live() -> Iterator[Sequence | None]:
        for seed in range(10):
            while any(not one.finished for one in given[-1:]):
                yield None
            given.append(sequence(prompt(seed, 6), max_tokens=3))
            yield given[-1]

    drive(model, live())
    assert [len(one.token_ids) for one in given] == [3] * 10


def test_gaps_between_running_slots_are_closed(load_tiny):
    single, many = load_tiny(batch_size=1), load_tiny(batch_size=6)
    sequences = [sequence(prompt(seed, 20 + seed), max_tokens=30 if seed in (2, 5) else 2 + seed) for seed in range(6)]
    drive(many, sequences)
    for one in sequences:
        assert one.token_ids == alone(single, one.prompt_ids, max_tokens=one.params.max_tokens)


def test_a_leader_that_is_cancelled_leaves_its_prefix(load_tiny):
    model = load_tiny(batch_size=3, options={"chunk": "16"})
    ids = prompt(4, 100)
    leader, *followers = [sequence(ids, index, temperature=1.0, seed=1) for index in range(3)]
    before = model.decoded_tokens
    for step, tokens in enumerate(model.run([leader, *followers])):
        take(tokens)
        if step == 2:
            leader.finished = True
    assert not leader.token_ids
    assert [len(one.token_ids) for one in followers] == [8, 8]
    assert model.decoded_tokens - before <= 100 + 2 * 8


def test_a_prompt_longer_than_a_chunk_runs_beside_others(load_tiny):
    single, many = load_tiny(), load_tiny(batch_size=3, options={"chunk": "16"})
    sequences = [sequence(prompt(seed, length)) for seed, length in enumerate((10, 150, 33, 5))]
    drive(many, sequences)
    for one in sequences:
        assert one.token_ids == alone(single, one.prompt_ids)


def test_those_that_generate_wait_for_one_chunk_of_prompt_at_most(load_tiny):
    chunk = 32
    model = load_tiny(batch_size=4, options={"chunk": str(chunk)})
    lengths = (20, 100, 31, 33, 32, 7, 90, 50, 64, 1)
    sequences = [sequence(prompt(seed, length), max_tokens=9) for seed, length in enumerate(lengths)]
    before, generating = model.decoded_tokens, set()
    for tokens in model.run(sequences):
        computed, before = model.decoded_tokens - before, model.decoded_tokens
        assert computed - sum(token.sequence in generating for token in tokens) <= chunk
        take(tokens)
        generating.update(token.sequence for token in tokens)
    assert all(len(one.token_ids) == 9 for one in sequences)


def test_a_prompt_that_waits_is_not_overtaken(load_tiny):
    model = load_tiny(batch_size=4, options={"chunk": "16"})
    short = (sequence(prompt(seed, 16), max_tokens=1) for seed in range(100, 200))
    first, long = sequence(prompt(1, 16), max_tokens=1), sequence(prompt(2, 160), max_tokens=1)
    for tokens in itertools.islice(model.run(itertools.chain([first, long], short)), 12):
        take(tokens)
    assert long.finished


def test_one_bad_sequence_leaves_its_neighbours_alone(load_tiny):
    model = load_tiny(batch_size=2)
    good = [sequence(prompt(seed, 9)) for seed in range(4)]
    outside, negative, empty, long = sequence([5, 100_000]), sequence([-1]), sequence([]), sequence([5] * 257)
    drive(model, [outside, good[0], negative, good[1], empty, good[2], long, good[3]])
    assert [len(one.token_ids) for one in good] == [8] * 4
    assert isinstance(outside.error, InvalidValueError)
    assert isinstance(negative.error, InvalidValueError)
    assert isinstance(empty.error, InvalidValueError)
    assert isinstance(long.error, ContextLengthError)


def test_only_bad_sequences(load_tiny):
    bad = sequence([])
    assert [tokens for tokens in load_tiny().run([bad]) if tokens] == []
    assert bad.error is not None


def test_logits_that_are_not_finite_end_their_sequence(load_tiny, tmp_path):
    nan = len(vocabulary()) - 1
    path = write_gguf(tmp_path / "nan.gguf", tied=False, nan=nan)
    first, second = sequence([*prompt(1, 5), nan]), sequence(prompt(2, 6))
    drive(load_tiny(path, batch_size=2), [first, second])
    assert first.error is not None
    assert len(second.token_ids) == 8


def test_a_prompt_of_exactly_the_context_gives_one_token_and_then_says_so(load_tiny):
    one = sequence([7] * 256)
    drive(load_tiny(), [one])
    assert len(one.token_ids) == 1
    assert isinstance(one.error, ContextLengthError)


def test_core_ends_a_sequence_at_the_end_of_the_context(load_tiny):
    result = load_tiny().generate(prompt(1, 250), SamplingParams(max_tokens=50, ignore_eos=True))
    assert len(result.token_ids) == 6
    assert result.finish_reason == "length"


def test_a_second_run_is_refused_until_the_first_is_dropped(load_tiny):
    model = load_tiny()
    steps = model.run([sequence(prompt(1, 5))])
    next(steps)
    with pytest.raises(ModelBusyError):
        next(model.run([sequence(prompt(1, 5))]))
    with pytest.raises(ModelBusyError):
        model.score([[5, 6]])
    steps.close()
    assert len(alone(model, prompt(1, 5))) == 8


def test_an_iterable_that_raises_frees_the_model(load_tiny):
    model = load_tiny()

    def faulty() -> Iterator[Sequence]:
        yield sequence(prompt(1, 5), max_tokens=1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        drive(model, faulty())
    assert alone(model, prompt(1, 5))


def test_a_closed_model_says_so(load_tiny, tiny_gguf):
    from codellm.spec import LoadSpec
    from codellm_cpu.llama.backend import LlamaCppBackend
    from support.tiny_gguf import source_of

    model = LlamaCppBackend().load(LoadSpec(model=str(tiny_gguf), threads=1), source_of(tiny_gguf))
    steps = model.run([sequence(prompt(1, 5))])
    next(steps)
    model.close()
    model.close()
    for use in (
        lambda: next(steps),
        lambda: next(model.run([])),
        lambda: model.score([[5, 6]]),
        lambda: model.logits([5]),
        lambda: model.tokenizer.encode("x"),
    ):
        with pytest.raises(ModelClosedError):
            use()
