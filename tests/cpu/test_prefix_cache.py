"""The prefix cache of llama-cpp: each request gets what it gets without it, and computes what was not there."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings

import codellm
from codellm.errors import InvalidValueError
from codellm.sampling import SamplingParams
from codellm.sequence import Sequence, Token
from support.edits import hold_edits
from support.schedules import CHUNK, CONTEXT, MOVED, NAN, SCHEDULES, USES, Alone, Schedule, hold, hold_after_nan
from support.tiny_gguf import write_gguf

TOLERANCE = 5e-3
"""As in test_llama_schedule."""


@pytest.fixture(scope="module")
def models(tmp_path_factory, load_tiny):
    path = write_gguf(tmp_path_factory.mktemp("gguf") / "nan.gguf", tied=False, nan=NAN)

    def load(batch_size: int, flash_attn: str, cache: int) -> Any:
        options = {"chunk": str(CHUNK), "flash-attn": flash_attn, "prefix_cache": str(cache)}
        return load_tiny(path, batch_size=batch_size, context_length=CONTEXT, options=options)

    return load


def run(model: Any, sequences: Iterable[Sequence | None]) -> Iterator[list[Token]]:
    """`model.run`, with llama.cpp's own account of its cells held to ours after each step."""
    hold_account(model)
    for tokens in model.run(sequences):
        hold_account(model)
        yield tokens
    hold_account(model)


def hold_account(model: Any) -> None:
    context, prefixes = model._context, model._prefixes
    slots = [*prefixes.slots, *prefixes.stored]
    found = [context._lib.llama_memory_seq_pos_max(context._memory, slot.id) + 1 for slot in slots]
    assert found == [slot.done for slot in slots]
    assert all(slot.sequence is None and len(slot.ids) == slot.done for slot in prefixes.stored)
    assert all(len(slot.ids) == slot.done for slot in prefixes.slots if slot.sequence is None)


@pytest.mark.parametrize("flash_attn", ["auto", "off"])
@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_each_sequence_of_random_schedules_gets_what_it_gets_alone(models, batch_size, flash_attn):
    """What one example leaves is there in the next, as it is from one call to the next."""
    many, alone = models(batch_size, flash_attn, 1), Alone(models(1, flash_attn, 0))
    assert many._prefixes.stored

    @settings(max_examples=60)
    @given(schedule=SCHEDULES)
    @example(schedule=MOVED)
    def held(schedule: Schedule) -> None:
        hold(lambda sequences: run(many, sequences), alone, schedule, TOLERANCE)

    held()


@pytest.mark.parametrize("flash_attn", ["auto", "off"])
@pytest.mark.parametrize("use", USES)
def test_nan_of_one_call_is_not_found_by_the_next(models, use, flash_attn):
    hold_after_nan(models(1, flash_attn, 1), use)


@pytest.mark.parametrize("flash_attn", ["auto", "off"])
def test_nan_of_a_prompt_that_is_broken_off_is_found_by_nobody(models, flash_attn):
    model, ids = models(1, flash_attn, 1), list(range(20, 60))
    expected = model.generate(ids, SamplingParams(max_tokens=8)).token_ids
    model.score([ids])
    bad = Sequence(prompt_ids=[*ids[:34], NAN, *range(30, 80)], params=SamplingParams())
    for _ in itertools.islice(run(model, [bad]), 3):
        pass  # the chunk that holds it is computed, and the prompt is not done
    assert bad.error is None
    assert model.generate(ids, SamplingParams(max_tokens=8)).token_ids == expected


def ids_of(seed: int, length: int) -> list[int]:
    return [20 + (seed * 7919 + place * place * 31 + place) % 230 for place in range(length)]


def spent(model: Any, prompt: list[int], tokens: int = 4) -> tuple[int, int]:
    """Tokens that a request takes from the cache, and tokens that are computed for it."""
    before = model.decoded_tokens
    result = model.generate(prompt, SamplingParams(max_tokens=tokens, ignore_eos=True))
    assert result.error is None
    return result.cached_tokens, model.decoded_tokens - before


def fresh(models: Any, batch_size: int = 1, cache: int = 1) -> Any:
    model = models(batch_size, "auto", cache)
    model.score([[20, 21]])  # forgets all
    return model


def test_without_it_nothing_is_taken_from_an_earlier_call(models):
    model = fresh(models, cache=0)
    assert [spent(model, ids_of(1, 60)) for _ in range(2)] == [(0, 63), (0, 63)]


def test_an_edit_is_computed_from_where_it_is(models):
    model, prompt = fresh(models), ids_of(1, 60)
    assert spent(model, prompt) == (0, 63)
    assert spent(model, [*prompt, 30]) == (60, 4)
    assert spent(model, [*prompt[:50], 31, *prompt[50:]]) == (50, 14)
    assert spent(model, [*prompt[:40], 32, *prompt[41:]]) == (40, 23)
    assert spent(model, [*prompt[:40], *prompt[45:]]) == (40, 18)
    assert spent(model, prompt[:35]) == (34, 4)  # the last token is computed, for its logits


def test_what_was_generated_is_taken_too(models):
    model, prompt = fresh(models), ids_of(2, 40)
    output = model.generate(prompt, SamplingParams(max_tokens=10, ignore_eos=True)).token_ids
    assert spent(model, [*prompt, *output, 30]) == (49, 5)  # the last token of it was told and not computed


def test_other_prompts_do_not_drive_out_what_there_is_memory_for(models):
    model = fresh(models)
    prompts = [ids_of(seed, 60) for seed in range(len(model._prefixes.stored))]
    for prompt in prompts:
        assert spent(model, prompt)[0] == 0
    for prompt in prompts:
        assert spent(model, [*prompt, 30])[0] == 60


def test_what_was_used_least_recently_goes_first(models):
    model = fresh(models)
    prompts = [ids_of(seed, 60) for seed in range(2 + len(model._prefixes.stored))]
    for prompt in prompts[:-1]:
        spent(model, prompt)
    assert spent(model, [*prompts[0], 30])[0] == 60
    spent(model, prompts[-1])
    assert [spent(model, prompts[place])[0] for place in (0, 1)] == [59, 0]


def test_a_cancelled_prompt_is_gone_on_with(models):
    model, prompt = fresh(models), ids_of(3, 80)
    one = Sequence(prompt_ids=prompt, params=SamplingParams())
    steps = run(model, [one])
    for _ in range(3):
        next(steps)
    steps.close()
    assert spent(model, prompt) == (3 * CHUNK, 80 - 3 * CHUNK + 3)


def test_a_fault_of_a_run_leaves_nothing(models):
    model, prompt = fresh(models, 3), ids_of(4, 60)

    def faulty() -> Iterator[Sequence | None]:
        yield Sequence(prompt_ids=prompt, params=SamplingParams(max_tokens=1))
        yield None
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(run(model, faulty()))
    hold_account(model)
    assert spent(model, prompt)[0] == 0


def test_samples_of_a_prompt_say_what_they_take(models):
    model, prompt = fresh(models, 3, 0), ids_of(5, 60)
    results = model.generate_batch([prompt] * 3, SamplingParams(max_tokens=2))
    assert [result.cached_tokens for result in results] == [0, 60, 60]


@pytest.mark.parametrize("size", ["-1", "1.5", "much"])
def test_a_size_that_is_none_is_refused(models, load_tiny, tiny_gguf, size):
    with pytest.raises(InvalidValueError, match="prefix_cache is a number of MiB"):
        load_tiny(tiny_gguf, options={"prefix_cache": size})


# the bundled model, in float32 and with one thread


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CODELLM_CACHE", str(tmp_path_factory.mktemp("cache")))
        common = {"backend": "llama-cpp", "scheme": "f32", "threads": 1, "context_length": 512}
        with (
            codellm.load("codellm-demo", batch_size=3, options={"prefix_cache": "64"}, **common) as kept,
            codellm.load("codellm-demo", **common) as alone,
        ):
            yield kept, alone


def test_an_edited_text_is_continued_as_without_the_cache(demo):
    hold_edits(*demo, TOLERANCE)


def test_with_attention_that_computes_every_row_alike_the_cache_changes_nothing(tmp_path_factory):
    """As q8_0's kernels do with one thread."""
    common = {"backend": "llama-cpp", "scheme": "q8_0", "threads": 1, "context_length": 512}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CODELLM_CACHE", str(tmp_path_factory.mktemp("cache")))
        with (
            codellm.load(
                "codellm-demo", batch_size=3, options={"prefix_cache": "64", "flash-attn": "off"}, **common
            ) as kept,
            codellm.load("codellm-demo", options={"flash-attn": "off"}, **common) as alone,
        ):
            hold_edits(kept, alone, 0)
