"""A scheduler that runs ahead: the same tokens as one that waits, and nothing of what nobody asked for."""

from __future__ import annotations

import attrs
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import codellm
from codellm.errors import BackendError
from codellm.generation import complete
from codellm.sequence import Sequence
from codellm.spec import LoadSpec
from codellm.tokenizer import HFTokenizer
from codellm.torch.decoder_engine import DecoderEngine
from codellm.torch.load import plan
from codellm.torch.model import TorchModel
from codellm.torch.sampling import likeliest
from support.chains import TURN, A, B, C, write_chain
from support.checkpoints import Arrays, config_of, random_weights, source_of, train_tokenizer
from support.engines import Wrapped

SLOTS, CONTEXT, CHUNK, VOCABULARY = 3, 64, 8, 590
NAN = 9
"""The id whose embedding is NaN."""
D, E = 73, 74
"""Ids of two more tokens with text of their own, beside those of `support.chains`."""
EVERY = codellm.SamplingParams(max_tokens=12, ignore_eos=True)


class Watched(Wrapped):
    """An engine that sees what it is asked to compute; `ahead` is its own."""

    def __init__(self, engine, ahead):
        super().__init__(engine)
        self.ahead = ahead
        self.decoded = 0
        self.wiped = []

    def prefill(self, slot, ids, start):
        assert 0 <= start < start + len(ids) <= self.engine.context_length
        return self.engine.prefill(slot, ids, start)

    def decode(self, ids, positions):
        assert ids.dtype == torch.int64
        assert ids.shape == (self.engine.slots,)
        assert ids.device == self.engine.device
        assert 0 <= int(ids.min()) <= int(ids.max()) < self.engine.vocab_size
        assert 0 <= min(positions) <= max(positions) < self.engine.context_length
        self.decoded += 1
        return self.engine.decode(ids, positions)

    def wipe(self, slot):
        self.wiped.append(slot)
        self.engine.wipe(slot)


class Likeliest(Watched):
    """An engine that finds the likeliest tokens itself, in memory that it uses for each step."""

    likeliest = None

    def decode(self, ids, positions):
        logits = super().decode(ids, positions)
        if self.likeliest is None:
            self.likeliest = likeliest(logits)
        else:
            for mine, found in zip(self.likeliest, likeliest(logits), strict=True):
                mine.copy_(found)
        return logits


ENGINES = {"waiting": (Watched, 0), "ahead": (Watched, 1), "two ahead": (Watched, 2), "likeliest": (Likeliest, 1)}


def wrapped(model, kind, ahead):
    return TorchModel(model.info, model.tokenizer, kind(model.engine, ahead))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    config = config_of("starcoder2", VOCABULARY)
    weights = {name: array * (3 if array.ndim > 1 else 1) for name, array in random_weights(config).items()}
    source = source_of(config, train_tokenizer("starcoder2", tmp_path_factory.mktemp("tokenizer")), Arrays(weights))
    spec = LoadSpec(model="tiny", dtype="float32", context_length=CONTEXT, batch_size=SLOTS, threads=1)
    made = plan(spec, source, torch.device("cpu"), free=1 << 40, chunk=CHUNK)
    decoder = made.decoder()
    with torch.no_grad():
        decoder.embedding.weight[NAN] = torch.nan
        decoder.lm_head.weight[0] *= 2  # the end of a text comes now and then
    tokenizer = HFTokenizer.of(made.source)
    engine = DecoderEngine(decoder, made.cache(), vocab_size=tokenizer.vocab_size, context_length=CONTEXT, chunk=CHUNK)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield TorchModel(made.info("torch-cpu", 0), tokenizer, engine)
    torch.set_num_threads(before)


@attrs.frozen
class Request:
    """A sequence to come; `patience` counts its tokens after which it is cancelled, 0 while its prompt is computed."""

    prompt: tuple[int, ...]
    params: codellm.SamplingParams
    index: int = 0
    patience: int | None = None


PROMPTS = [tuple(range(20, 20 + length)) for length in (1, 3, CHUNK, 30, CONTEXT - 4)]
PARAMS = st.builds(
    codellm.SamplingParams,
    max_tokens=st.integers(1, 20),
    temperature=st.sampled_from([0.0, 0.0, 1.0]),
    top_p=st.sampled_from([1.0, 0.9]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.3]),
    stop=st.sampled_from([(), (), ("e",), ("t", "n")]),
    seed=st.integers(0, 3),
    ignore_eos=st.booleans(),
)
REQUESTS = st.lists(
    st.builds(
        Request,
        st.sampled_from([*PROMPTS, (21, 22, NAN, 23), (*range(30, 55), NAN, 60)]),
        PARAMS,
        st.integers(0, 2),
        st.none() | st.none() | st.integers(0, 5),
    ),
    max_size=14,
)
SAMPLES = [Request(PROMPTS[1], attrs.evolve(EVERY, temperature=1.0, seed=5), index) for index in range(7)]


def outcomes(model, requests):
    """Of each request: its ids, how it ended, and its text."""
    sequences = [Sequence(index=each.index, prompt_ids=list(each.prompt), params=each.params) for each in requests]
    patience = dict(zip(sequences, (each.patience for each in requests), strict=True))
    found = {}

    def live():
        for one in sequences:
            if patience[one] == 0:
                one.finished = True  # as if whoever asked had gone
            yield one

    for event in complete(model, live()):
        one = event.sequence
        if event.result is not None:
            found[one] = event.result.token_ids, event.result.finish_reason, event.result.text
        elif patience[one] is not None and len(one.token_ids) >= patience[one]:
            found[one] = tuple(one.token_ids), "cancelled"
            one.finished = True
    return [found.get(one) for one in sequences]


def drive(run):
    """What core does with each step's tokens, as far as their number ends a sequence."""
    for tokens in run:
        for token in tokens:
            one = token.sequence
            one.token_ids += [token.id] * (not one.finished)
            one.finished = len(one.token_ids) >= one.params.max_tokens


@settings(max_examples=60)
@given(requests=REQUESTS)
@example(requests=SAMPLES)
def test_who_runs_ahead_gives_what_he_gives_who_waits(model, requests):
    found = {name: outcomes(wrapped(model, *engine), requests) for name, engine in ENGINES.items()}
    for name, outcome in found.items():
        assert outcome == found["waiting"], name


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A → B → the end of a turn → C → A, where the embedding of that end is NaN: nobody may compute it and keep it.

    D and E follow each other for ever.
    """
    files = {"generation_config.json": {"eos_token_id": [TURN, 0]}}
    folder = write_chain(
        tmp_path_factory.mktemp("chain") / "model", {A: B, B: TURN, TURN: C, C: A, D: E, E: D}, files=files
    )
    with codellm.load(str(folder), backend="torch-cpu", dtype="float32", batch_size=2, context_length=32) as model:
        with torch.no_grad():
            model.engine.decoder.embedding.weight[TURN] = torch.nan
        yield model


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_nan_after_an_end_reaches_nobody(chain, engine):
    """The step ahead computes the end of a text, which is NaN, where the next sequence will lie."""
    for prompts in ([[A]] * 5, [[C] * 9, [A], [C], [A, A, A], [C, A]]):
        results = wrapped(chain, *engine).generate_batch(prompts, codellm.SamplingParams(max_tokens=9))
        assert [result.token_ids[-2:] for result in results] == [(B, TURN)] * 5
        assert {result.finish_reason for result in results} == {"eos"}


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_nan_is_told_of_its_sequence_alone(chain, engine):
    params = attrs.evolve(EVERY, max_tokens=8)
    results = wrapped(chain, *engine).generate_batch([[C], [C] * 5, [A]], params)
    assert [result.token_ids for result in results] == [(A, B, TURN), (A, B, TURN), (B, TURN)]
    assert all(isinstance(result.error, BackendError) for result in results)


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_a_stream_that_is_dropped_leaves_no_nan(chain, engine):
    model = wrapped(chain, *engine)
    expected = model.score([[A, B]])[0].tolist()  # of a first token, behind which NaN would lie
    for _ in range(2):  # in the first slot of both calls
        run = model.run([Sequence(prompt_ids=[A], params=EVERY), Sequence(prompt_ids=[C, C], params=EVERY)])
        while TURN not in [token.id for token in next(run)]:
            pass
        run.close()
        assert model.score([[A, B]])[0].tolist() == expected


@pytest.mark.parametrize("gap", range(3))
@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_a_slot_that_nobody_has_computes_no_token_of_its_last_sequence(chain, engine, gap):
    def live():
        yield Sequence(prompt_ids=[D], params=EVERY)
        yield Sequence(prompt_ids=[A], params=attrs.evolve(EVERY, max_tokens=2))  # to the end whose embedding is NaN
        yield from [None] * gap
        yield (last := Sequence(prompt_ids=[C], params=attrs.evolve(EVERY, max_tokens=2)))
        ended.append(last)

    ended = []
    drive(wrapped(chain, *engine).run(live()))
    assert [(one.token_ids, one.error) for one in ended] == [([A, B], None)]


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
@pytest.mark.parametrize("close", [True, False], ids=["closed", "cancelled"])
def test_a_prompt_that_is_broken_off_leaves_no_nan(model, engine, close):
    watched = wrapped(model, *engine)
    expected = watched.score([[20, 21]])[0].tolist()
    one = Sequence(prompt_ids=[NAN] * 30, params=EVERY)
    other, third = (Sequence(prompt_ids=[20, 21, *more], params=EVERY) for more in ((), (22,)))

    def live():
        yield from (one, other)
        while not one.finished:
            yield None
        yield third

    run = watched.run(live())
    next(run)
    if close:
        run.close()
    else:
        one.finished = True
        drive(run)
        assert [each.error for each in (one, other, third)] == [None] * 3
        assert third.token_ids == list(model.generate([20, 21, 22], EVERY).token_ids)
    assert watched.score([[20, 21]])[0].tolist() == expected


@pytest.mark.parametrize("name", ENGINES)
def test_the_next_step_is_begun_before_a_token_is_read(model, name):
    watched = wrapped(model, *ENGINES[name])
    one = Sequence(prompt_ids=[20, 21], params=EVERY)
    seen = []
    for tokens in watched.run([one]):
        for token in tokens:
            one.token_ids.append(token.id)
            seen.append(watched.engine.decoded)
            one.finished = len(one.token_ids) == EVERY.max_tokens
    # the prompt gives the first token; the last is known to be it, and nothing is computed after it
    assert seen == [min(count + watched.engine.ahead, EVERY.max_tokens - 1) for count in range(EVERY.max_tokens)]


@pytest.mark.parametrize("ahead", [0, 1])
def test_who_ends_otherwise_than_by_its_number_of_tokens_goes_on(model, ahead):
    """Where the tokens are not counted as core counts them, a run stops at no number of them."""
    one = Sequence(prompt_ids=[20, 21], params=attrs.evolve(EVERY, max_tokens=2))
    ids = []
    for tokens in wrapped(model, Watched, ahead).run([one, Sequence(prompt_ids=[20], params=EVERY, finished=True)]):
        one.token_ids += [token.id for token in tokens]
        ids += [token.id for token in tokens]
        one.finished = len(ids) >= 9
    assert ids == list(model.generate([20, 21], EVERY).token_ids[:9])


def test_what_was_computed_before_a_failure_is_told(model):
    class Fails(Watched):
        def decode(self, ids, positions):
            if self.decoded == 3:
                raise RuntimeError("the device is gone")
            return super().decode(ids, positions)

    expected = model.generate([20, 21], EVERY).token_ids
    for ahead in (0, 1, 2):
        one = Sequence(prompt_ids=[20, 21], params=EVERY)
        with pytest.raises(RuntimeError, match="the device is gone"):
            drive(wrapped(model, Fails, ahead).run([one]))
        assert one.token_ids == list(expected[:4])


def test_a_likeliest_token_that_the_engine_found_is_taken_as_it_is(model):
    """But not where a sequence draws, or a prompt has just been done beside it."""

    class Stubborn(Likeliest):
        def decode(self, ids, positions):
            logits = super().decode(ids, positions)
            self.likeliest[0].fill_(33)
            return logits

    def ids(*params):
        batch = [Request((20, 21, 22 + number), each) for number, each in enumerate(params)]
        return [ids for ids, *_ in outcomes(wrapped(model, Stubborn, 1), batch)]

    greedy, plain = attrs.evolve(EVERY, max_tokens=5), model.generate([20, 21, 22], EVERY).token_ids
    drawn = attrs.evolve(greedy, temperature=1.0, seed=1)
    assert ids(greedy) == [(plain[0], 33, 33, 33, 33)]
    assert ids(greedy, drawn)[0] == plain[:5]
    assert ids(greedy, attrs.evolve(greedy, repetition_penalty=1.1))[0] == plain[:5]
