"""Admission: who gets a slot, what is the fault of who does not, and when core hears of it."""

import itertools

import numpy as np
import pytest

from codellm.admission import Admission, Limits
from codellm.errors import ContextLengthError, InvalidValueError
from codellm.sampling import SamplingParams
from codellm.sequence import Sequence
from codellm.slots import Slot

LIMITS = Limits(context_length=8, vocab_size=100)


class Spoilt(Slot):
    """A slot that cannot be taken."""

    free = False


def new(*prompts):
    return [Sequence(prompt_ids=list(ids), params=SamplingParams()) for ids in prompts]


def refill(admission, slots):
    """What a scheduler does before each step."""
    freed = admission.release()
    admitted = admission.admit()
    free = [slot for slot in slots if slot.free]
    assert len(admitted) <= len(free)
    for slot, sequence in zip(free, admitted, strict=False):
        slot.sequence, slot.done, slot.next = sequence, len(sequence.prompt_ids), 5
    return freed, admitted


def admission_of(sequences, count=2):
    slots = [Slot(id) for id in range(count)]
    return Admission(sequences, slots, LIMITS), slots


def test_the_slot_of_who_has_ended_goes_to_who_waits():
    a, b, c = new([1], [2], [3])
    admission, slots = admission_of([a, b, c])
    assert refill(admission, slots) == ([], [a, b])
    assert refill(admission, slots) == ([], [])
    a.finished = True
    assert refill(admission, slots) == ([slots[0]], [c])
    b.error, c.finished = ValueError(), True
    assert refill(admission, slots) == (slots, [])
    assert not admission.busy


@pytest.mark.parametrize(
    ("ids", "kind", "says"),
    [
        ([], InvalidValueError, "a prompt must have at least one token"),
        ([1] * 9, ContextLengthError, "the prompt has 9 tokens, the context 8"),
        ([1, 100], InvalidValueError, "a prompt id is outside the vocabulary of 100 tokens"),
        ([-1], InvalidValueError, "a prompt id is outside the vocabulary of 100 tokens"),
    ],
)
def test_who_cannot_be_computed_fails_alone_and_gets_no_slot(ids, kind, says):
    wrong, right = new(ids, [1])
    admission, slots = admission_of([wrong, right])
    assert refill(admission, slots) == ([], [right])
    assert type(wrong.error) is kind
    assert str(wrong.error) == says


def test_core_sees_an_error_before_the_iterable_is_asked_again():
    wrong, right = new([], [1])
    asked = itertools.count()

    def live():
        next(asked)
        yield wrong
        next(asked)
        assert wrong.error is not None
        yield right

    admission, slots = admission_of(live(), count=1)
    assert refill(admission, slots) == ([], [])
    assert admission.busy  # a step is to come, in which nothing runs
    assert next(asked) == 1
    assert refill(admission, slots) == ([], [right])


def test_a_full_context_ends_a_sequence_whose_slot_is_taken_after_core_has_seen_it():
    full, later = new([1] * 7, [2])
    admission, slots = admission_of([full, later], count=1)
    refill(admission, slots)
    slots[0].done = 8
    assert refill(admission, slots) == ([slots[0]], [])
    assert str(full.error) == "the context of 8 tokens is full"
    assert admission.busy
    assert refill(admission, slots) == ([], [later])


def test_who_ends_with_the_last_position_has_no_fault():
    (one,) = new([1] * 7)
    admission, slots = admission_of([one], count=1)
    refill(admission, slots)
    slots[0].done, one.finished = 8, True
    refill(admission, slots)
    assert one.error is None
    assert not admission.busy


def test_a_slot_that_is_not_free_though_nobody_is_there_is_not_filled():
    a, b = new([1], [2])
    slots = [Spoilt(0), Slot(1)]
    admission = Admission([a, b], slots, LIMITS)
    assert refill(admission, slots) == ([], [a])


@pytest.mark.parametrize("ids", [[1, 2], (1, 2), np.array([1, 2]), np.array([1, 2], np.uint8)])
def test_ids_of_a_text_become_an_array(ids):
    found = LIMITS.checked(ids)
    assert found.dtype == np.int32
    assert found.tolist() == [1, 2]
    assert LIMITS.checked([]).tolist() == []


@pytest.mark.parametrize("id", [-1, 100, 2**40, 10**30])
def test_an_id_that_is_no_token_is_refused(id):
    with pytest.raises(InvalidValueError, match=r"^an id is outside the vocabulary of 100 tokens$"):
        LIMITS.checked([1, id])


def test_a_text_that_does_not_fit_is_refused():
    with pytest.raises(ContextLengthError, match=r"^9 tokens do not fit the context of 8; cut them or load with a "):
        LIMITS.checked([1] * 9)


def test_a_prompt_is_cut_at_multiples_of_a_chunk_wherever_it_goes_on():
    slot = Slot(0)
    stops = []
    for done in (0, 3, 4, 8):
        slot.done = done
        stops.append(slot.piece(10, 4))
    assert stops == [4, 4, 8, 10]


def test_what_is_left_in_the_length_of_a_chunk_is_computed_at_once():
    slot = Slot(0)
    stops = []
    for done in (5, 6, 7):
        slot.done = done
        stops.append(slot.piece(10, 4))
    assert stops == [8, 10, 10]
