"""Random schedules on the backends of torch: each sequence as alone."""

from __future__ import annotations

import attrs
import pytest
import torch
from hypothesis import example, given, settings

from codellm.plugins.registry import registry
from codellm.spec import LoadSpec
from codellm.tokenizer import HFTokenizer
from codellm.torch.decoder_engine import DecoderEngine
from codellm.torch.load import plan
from codellm.torch.model import TorchModel
from support.checkpoints import Arrays, config_of, random_weights, source_of, train_tokenizer
from support.schedules import CHUNK, CONTEXT, MOVED, NAN, SCHEDULES, USES, Alone, Ask, Schedule, hold, hold_after_nan

TOLERANCE = 1e-4
"""In float32 a product of matrices is summed otherwise for one row than for several."""
WINDOW = 12
"""Tokens of a sliding window: its cells are fewer than those of most prompts, or become so with the output."""
STORED = 40_000
"""Bytes of what had to make room in a slot: a text or two."""


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_tokenizer("starcoder2", tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def load(tokenizer):
    loaded = {}

    def load(backend, window, batch_size, kept=0):
        key = backend, window, batch_size, kept
        if key not in loaded:
            config = config_of("starcoder2", 590, sliding_window=window)
            weights = random_weights(config)
            for name, array in weights.items():
                weights[name] = array * (3 if array.ndim > 1 else 1)  # what a token attends to must matter
            source = source_of(config, tokenizer, Arrays(weights))
            spec = LoadSpec(model="tiny", dtype="float32", context_length=CONTEXT, batch_size=batch_size, threads=1)
            loaded[key] = (theirs if backend == "transformers-cpu" else ours)(spec, source, kept)
        return loaded[key]

    yield load
    for model in loaded.values():
        model.close()


def ours(spec, source, kept):
    """A model of torch-cpu, whose chunk is not an option."""
    made = plan(spec, source, torch.device("cpu"), free=1 << 40, chunk=CHUNK)
    decoder = made.decoder()
    with torch.no_grad():
        decoder.embedding.weight[NAN] = torch.nan
    engine = DecoderEngine(
        decoder, made.cache(), vocab_size=made.config.vocab_size, context_length=made.context_length, chunk=made.chunk
    )
    info = made.info("torch-cpu", 0, prefix_cache=kept or None)
    return TorchModel(info, HFTokenizer.of(made.source), engine)


def theirs(spec, source, kept):
    """A model of transformers-cpu."""
    spec = attrs.evolve(spec, options={"chunk": str(CHUNK)})
    model = registry().backend("transformers-cpu").load(spec, source)
    if kept:
        model = TorchModel(attrs.evolve(model.info, prefix_cache=kept), model.tokenizer, model.engine)
    with torch.no_grad():
        model.engine.model.get_input_embeddings().weight[NAN] = torch.nan
    return model


@pytest.mark.parametrize(("batch_size", "window"), [(2, None), (5, WINDOW)], ids=["full", "window"])
@pytest.mark.parametrize(("backend", "ahead"), [("torch-cpu", 0), ("torch-cpu", 1), ("transformers-cpu", 0)])
def test_each_sequence_of_a_random_schedule_gets_what_it_gets_alone(
    load, backend, ahead, batch_size, window, monkeypatch
):
    many, alone = load(backend, window, batch_size), Alone(load(backend, window, 1))
    monkeypatch.setattr(many.engine, "ahead", ahead)

    @settings(max_examples=15)
    @given(schedule=SCHEDULES)
    @example(schedule=MOVED)
    @example(schedule=[Ask("full"), Ask("almost full"), Ask("full", 1), Ask("short")])
    def held(schedule: Schedule) -> None:
        hold(many.run, alone, schedule, TOLERANCE)

    held()


@pytest.mark.parametrize("window", [None, WINDOW], ids=["full", "window"])
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize(("backend", "ahead"), [("torch-cpu", 0), ("torch-cpu", 1), ("transformers-cpu", 0)])
def test_each_sequence_gets_what_it_gets_alone_where_prefixes_are_kept(
    load, backend, ahead, batch_size, window, monkeypatch
):
    """What one example leaves is there in the next; two texts or so are stored beside the slots."""
    many, alone = load(backend, window, batch_size, STORED), Alone(load(backend, window, 1))
    monkeypatch.setattr(many.engine, "ahead", ahead)

    @settings(max_examples=25)
    @given(schedule=SCHEDULES)
    @example(schedule=MOVED)
    def held(schedule: Schedule) -> None:
        hold(lambda sequences: run(many, sequences), alone, schedule, TOLERANCE)

    held()


def run(model, sequences):
    """`model.run`, with what is said of its cells held after each step."""
    for tokens in model.run(sequences):
        hold_account(model)
        yield tokens
    hold_account(model)


def hold_account(model):
    prefixes, engine = model._prefixes, model.engine
    assert sum(one.nbytes for one in prefixes._stored) <= STORED
    for slot in prefixes.slots:
        assert len(slot.ids) <= slot.done <= engine.context_length
        if not slot.spoilt:
            held = min(len(slot.ids), engine.kept)
            assert all(part[slot.id, :held].isfinite().all() for part in (*engine.cache.keys, *engine.cache.values))
    for one in prefixes._stored:
        assert all(part.isfinite().all() for part in one.cells)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(("backend", "ahead"), [("torch-cpu", 0), ("torch-cpu", 1), ("transformers-cpu", 0)])
@pytest.mark.parametrize("kept", [0, STORED], ids=["none kept", "kept"])
def test_nan_of_one_call_is_not_found_by_the_next(load, backend, ahead, kept, use, monkeypatch):
    model = load(backend, None, 1, kept)
    monkeypatch.setattr(model.engine, "ahead", ahead)
    hold_after_nan(model, use)
