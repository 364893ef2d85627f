"""The prefix cache of the torch backends: what is taken from it, and what is computed."""

from __future__ import annotations

import itertools
import re

import attrs
import pytest
import torch

import codellm
from codellm.prefix_cache import WORTH_SHARING
from codellm.sampling import SamplingParams
from codellm.sequence import Sequence
from codellm.torch.model import TorchModel
from codellm.torch.prefixes import common
from support.edits import hold_edits
from support.engines import Wrapped
from support.serving import serving

BACKENDS = ["torch-cpu", "transformers-cpu"]
TOLERANCE = 1e-4
"""As in test_schedule."""


class Counted(Wrapped):
    """An engine that counts the tokens of prompts that it computes, and knows how far its last step looked."""

    computed = 0
    seen = 0

    def decode(self, ids, positions):
        self.seen = max(positions) + 1
        return self.engine.decode(ids, positions)

    def prefill(self, slot, ids, start):
        self.computed += len(ids)
        return self.engine.prefill(slot, ids, start)


@pytest.fixture(scope="module", params=BACKENDS)
def loaded(request):
    before = torch.get_num_threads()
    fields = {"dtype": "float32", "context_length": 256, "threads": 1}
    with codellm.load("codellm-demo", backend=request.param, batch_size=3, **fields) as loaded:
        yield loaded
    torch.set_num_threads(before)


def keeping(loaded, stored=0):
    """The model with a fresh prefix cache, which stores so many texts of 100 tokens beside its slots."""
    size = stored * 100 * loaded.engine.cell_bytes
    return TorchModel(attrs.evolve(loaded.info, prefix_cache=size), loaded.tokenizer, Counted(loaded.engine))


def ids_of(seed, length):
    return [20 + (seed * 7919 + place * place * 31 + place) % 2300 for place in range(length)]


def spent(model, prompt, tokens=4):
    """Tokens that a request takes from the cache, and tokens of its prompt that are computed."""
    before = model.engine.computed
    result = model.generate(prompt, SamplingParams(max_tokens=tokens, ignore_eos=True))
    assert result.error is None
    return result.cached_tokens, model.engine.computed - before


def test_common():
    for first, second in itertools.product([[], [1], [1, 2], [1, 2, 3, 4], [2, 2, 3]], repeat=2):
        pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
        assert common(first, second) == len(list(pairs))


def test_without_it_nothing_is_taken_from_an_earlier_call(loaded):
    model = TorchModel(loaded.info, loaded.tokenizer, Counted(loaded.engine))
    assert [spent(model, ids_of(1, 90)) for _ in range(2)] == [(0, 90), (0, 90)]
    results = model.generate_batch([ids_of(1, 90)] * 4, SamplingParams(max_tokens=2))
    assert [result.cached_tokens for result in results] == [0, 90, 90, 90]


def test_an_edit_is_computed_from_where_it_is(loaded):
    model, prompt = keeping(loaded), ids_of(1, 90)
    assert spent(model, prompt) == (0, 90)
    assert spent(model, prompt) == (90, 0)
    assert spent(model, [*prompt, 30]) == (90, 1)
    assert spent(model, [*prompt[:80], 31, *prompt[80:]]) == (80, 11)
    assert spent(model, [*prompt[:60], 32, *prompt[61:]]) == (60, 30)
    assert spent(model, [*prompt[:60], *prompt[65:]]) == (60, 25)
    assert spent(model, prompt[:55]) == (54, 1)  # the last token is computed, for its logits
    assert spent(model, [33, *prompt]) == (0, 91)


def test_what_was_generated_is_taken_too(loaded):
    model, prompt = keeping(loaded), ids_of(2, 40)
    output = model.generate(prompt, SamplingParams(max_tokens=10, ignore_eos=True)).token_ids
    assert spent(model, [*prompt, *output, 30]) == (49, 2)  # the last token of it was told and not computed


def test_what_must_make_room_is_stored_and_what_was_used_least_recently_goes_first(loaded):
    model = keeping(loaded, stored=2)
    prompts = [ids_of(seed, 90) for seed in range(6)]
    for prompt in prompts[:5]:
        assert spent(model, prompt) == (0, 90)
    assert spent(model, [*prompts[0], 30]) == (90, 1)  # the first of five that fit
    assert spent(model, prompts[5]) == (0, 90)  # one too many
    assert [spent(model, [*prompts[seed], 30])[0] for seed in (0, 2, 3, 4, 5)] == [91, 90, 90, 90, 90]
    assert spent(model, prompts[1])[0] == 0


def test_what_another_request_computes_is_taken_while_it_runs(loaded):
    model, start = keeping(loaded), ids_of(3, 70)
    prompts = [[*start, *ids_of(seed, 10)] for seed in (4, 5, 6)]
    results = model.generate_batch(prompts, SamplingParams(max_tokens=8, ignore_eos=True))
    assert [result.cached_tokens for result in results] == [0, 70, 70]
    assert model.engine.computed == 100


def test_a_step_looks_no_farther_for_the_long_texts_that_are_kept_beside_it(loaded):
    model, prompts = keeping(loaded), [ids_of(seed, 200) for seed in range(2)]
    for prompt in prompts:
        spent(model, prompt)
    spent(model, ids_of(9, 40))
    assert model.engine.seen == 43
    assert [spent(model, [*prompt, 30]) for prompt in prompts] == [(200, 1), (200, 1)]


def test_what_was_cancelled_is_gone_on_with(loaded):
    model, prompt = keeping(loaded), ids_of(7, 90)
    steps = model.run([Sequence(prompt_ids=prompt, params=SamplingParams())])
    next(steps)
    steps.close()
    assert spent(model, [*prompt, 30]) == (90, 1)


def test_a_fault_of_a_run_leaves_nothing(loaded):
    model, prompt = keeping(loaded), ids_of(8, 90)

    def faulty():
        yield Sequence(prompt_ids=prompt, params=SamplingParams(max_tokens=1))
        yield None
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(model.run(faulty()))
    assert spent(model, prompt)[0] == 0


def test_where_memory_is_full_nothing_is_stored_and_requests_go_on(loaded):
    class Full(Counted):
        def save(self, slot, count):
            raise torch.OutOfMemoryError

    info = attrs.evolve(loaded.info, prefix_cache=1 << 30)
    model = TorchModel(info, loaded.tokenizer, Full(loaded.engine))
    prompts = [ids_of(seed, 90) for seed in range(4)]
    assert [spent(model, prompt) for prompt in prompts] == [(0, 90)] * 4
    assert [spent(model, [*prompt, 30])[0] for prompt in prompts[1:]] == [90, 90, 90]


@pytest.mark.parametrize("use", ["score", "logits", "distributions"])
def test_other_uses_of_a_model_move_what_is_kept(loaded, use):
    model, prompts = keeping(loaded, stored=1), [ids_of(seed, 90) for seed in range(3)]
    for prompt in prompts:
        spent(model, prompt)
    other = ids_of(9, 60)
    list(getattr(model, use)([other] if use == "score" else other))
    assert [spent(model, [*prompt, 30])[0] for prompt in prompts] == [90, 90, 90]


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_edited_text_is_continued_as_without_the_cache(backend):
    before = torch.get_num_threads()
    fields = {"backend": backend, "dtype": "float32", "context_length": 512, "threads": 1}
    with (
        codellm.load("codellm-demo", batch_size=3, options={"prefix_cache": "4"}, **fields) as kept,
        codellm.load("codellm-demo", **fields) as alone,
    ):
        hold_edits(kept, alone, TOLERANCE)
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=BACKENDS)
def server(request):
    with serving("--backend", request.param, "--dtype", "float32", "--context-length", "512") as server:
        yield server


def test_an_infill_of_no_tokens_reads_the_prompt_for_the_next(server):
    before, after = "def total(prices):\n    result = 0\n" * 8, "\n    return result\n"
    ask = {"input_prefix": before, "input_suffix": after, "temperature": 0}
    warm = server.ask("/infill", {**ask, "n_predict": 0}).json
    assert (warm["content"], warm["tokens_cached"]) == ("", 0)
    same = server.ask("/infill", {**ask, "n_predict": 8}).json
    assert same["tokens_cached"] == same["tokens_evaluated"] == warm["tokens_evaluated"]
    edited = server.ask("/infill", {**ask, "input_prefix": f"{before}    f", "n_predict": 8}).json
    new = edited["tokens_evaluated"] - edited["tokens_cached"]
    assert edited["tokens_cached"] > WORTH_SHARING
    assert new < 20  # what was typed and what comes after the cursor
    fresh = server.ask("/infill", {**ask, "input_prefix": f"{before}    f", "n_predict": 8}).json
    assert fresh["content"] == edited["content"]


def test_the_server_says_what_it_keeps(server):
    assert re.search(r"4 sequences together, prefixes kept there and in [1-9]\d* MiB more\)", "".join(server.log))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_option(backend):
    fields = {"backend": backend, "batch_size": 2, "context_length": 256}
    with codellm.load("codellm-demo", **fields) as model:
        assert model.info.prefix_cache is None
    with codellm.load("codellm-demo", **fields, options={"prefix_cache": "3"}) as model:
        assert model.info.prefix_cache == 3 << 20
        assert model.generate(ids_of(1, 50), SamplingParams(max_tokens=1)).cached_tokens == 0
        assert model.generate(ids_of(1, 51), SamplingParams(max_tokens=1)).cached_tokens == 50 >= WORTH_SHARING
    with codellm.load("codellm-demo", **fields, options={"prefix_cache": "auto"}) as model:
        assert 0 < model.info.prefix_cache <= 1 << 30
