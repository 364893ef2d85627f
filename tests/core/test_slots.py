from collections.abc import Iterator

from codellm import SamplingParams, Sequence, Slots


def new(count: int) -> list[Sequence]:
    return [Sequence(prompt_ids=[1], params=SamplingParams()) for _ in range(count)]


def test_who_finishes_or_fails_makes_room_for_the_next_in_order():
    a, b, c, d = new(4)
    slots = Slots([a, b, c, d], 2)
    assert slots.refill() == [a, b]
    a.finished = True
    assert slots.refill() == [b, c]
    b.error = ValueError()
    assert slots.refill() == [c, d]
    c.finished = d.finished = True
    assert slots.refill() == []


def test_no_more_are_taken_than_there_are_slots():
    sequences = new(3)
    taken = []

    def live() -> Iterator[Sequence]:
        for one in sequences:
            taken.append(one)
            yield one

    Slots(live(), 2).refill()
    assert taken == sequences[:2]


def test_nothing_now_is_not_the_end():
    a, b = new(2)
    slots = Slots(iter([a, None, b]), 2)
    assert slots.refill() == [a]
    assert slots.refill() == [a, b]


def test_who_is_cancelled_before_its_turn_is_passed_over():
    a, b = new(2)
    a.finished = True
    assert Slots([a, b], 1).refill() == [b]
