"""Random schedules on llama.cpp: each sequence as alone, and no cell left that is not accounted for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings

from codellm.sequence import Sequence, Token
from support.schedules import CHUNK, CONTEXT, MOVED, NAN, SCHEDULES, USES, Alone, Schedule, hold, hold_after_nan
from support.tiny_gguf import write_gguf

TOLERANCE = 5e-3
"""Key-value cells are float16, and a prefix that two prompts share is cut elsewhere than alone."""


@pytest.fixture(scope="module")
def models(tmp_path_factory, load_tiny):
    path = write_gguf(tmp_path_factory.mktemp("gguf") / "nan.gguf", tied=False, nan=NAN)

    def load(batch_size: int, flash_attn: str) -> Any:
        options = {"chunk": str(CHUNK), "flash-attn": flash_attn}
        return load_tiny(path, batch_size=batch_size, context_length=CONTEXT, options=options)

    return load


def run(model: Any, sequences: Iterable[Sequence | None]) -> Iterator[list[Token]]:
    """`model.run`, with llama.cpp's own account of its cells held to ours after each step."""
    from codellm_cpu.llama.schedule import Scheduler

    context = model._context
    lib, memory = context._lib, context._memory

    def ends() -> list[int]:
        return [lib.llama_memory_seq_pos_max(memory, slot) + 1 for slot in range(context.shape.slots)]

    with model.claim():
        scheduler = Scheduler(model._prefixes, sequences, model.tokenizer.vocab_size)
        for tokens in scheduler.steps():
            assert ends() == [slot.done for slot in scheduler._slots]
            yield tokens
        model._prefixes.clear()
        assert not any(ends())


@pytest.mark.parametrize("flash_attn", ["auto", "off"])
@pytest.mark.parametrize("batch_size", [3, 5])
def test_each_sequence_of_a_random_schedule_gets_what_it_gets_alone(models, batch_size, flash_attn):
    many, alone = models(batch_size, flash_attn), Alone(models(1, flash_attn))

    @settings(max_examples=100)
    @given(schedule=SCHEDULES)
    @example(schedule=MOVED)
    def held(schedule: Schedule) -> None:
        hold(lambda sequences: run(many, sequences), alone, schedule, TOLERANCE)

    held()


@pytest.mark.parametrize("flash_attn", ["auto", "off"])
def test_a_prompt_asked_again_after_its_slot_was_moved_gets_what_it_gets_alone(models, flash_attn):
    many, alone = models(3, flash_attn), Alone(models(1, flash_attn))
    hold(lambda sequences: run(many, sequences), alone, MOVED, TOLERANCE)


@pytest.mark.parametrize("flash_attn", ["auto", "off"])
@pytest.mark.parametrize("use", USES)
def test_nan_of_one_call_is_not_found_by_the_next(models, use, flash_attn):
    hold_after_nan(models(1, flash_attn), use)
