"""Batching: many sequences on a few slots, each as if it were alone."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator

import pytest

from codellm.model import Model
from codellm.sequence import Sequence, Token
from codellm.testing.comparing import alone, hold
from codellm.testing.running import PROMPTS, drive, sequence, steps, take, told
from codellm.testing.subject import Subject


class Queue:
    """Gives out sequences one by one, and knows how many of them are unfinished."""

    def __init__(self, sequences: Iterable[Sequence]) -> None:
        self.waiting = deque(sequences)
        self.given: list[Sequence] = []
        self.most = 0
        """The most that were unfinished at once."""

    def __iter__(self) -> Iterator[Sequence]:
        return self

    def __next__(self) -> Sequence:
        if not self.waiting:
            raise StopIteration
        self.given.append(self.waiting.popleft())
        self.most = max(self.most, self.unfinished)
        return self.given[-1]

    @property
    def unfinished(self) -> int:
        """Sequences that were given out and still run."""
        return sum(not one.finished and one.error is None for one in self.given)


def live(arrivals: Iterable[tuple[Sequence, Callable[[], bool]]]) -> Iterator[Sequence | None]:
    """A server's queue: each sequence comes when it is due; until then there is None, and something runs."""
    for one, due in arrivals:
        asked = 0
        while not due():
            asked += 1
            if asked > 1000:
                # no Exception, so that no backend takes it for one of its own
                pytest.fail(
                    "run() asked its live iterable 1000 times while a few tokens would have brought the next "
                    "sequence: None means that there is nothing now, so go on with what runs."
                )
            yield None
        yield one


def all_finished(sequences: Iterable[Sequence]) -> bool:
    """Whether none of `sequences` runs any more."""
    return all(one.finished for one in sequences)


def ragged(model: Model, count: int, longest: int = 7, temperature: float = 0.0) -> list[Sequence]:
    """Sequences of different prompts and lengths; those of one prompt are its samples 0, 1, …"""
    kinds = len(PROMPTS)
    return [
        sequence(model, PROMPTS[i % kinds], i // kinds, temperature=temperature, seed=4, max_tokens=1 + i % longest)
        for i in range(count)
    ]


@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["greedy", "sampled"])
def test_a_batch_equals_singles(subject: Subject, model: Model, single: Model, temperature: float) -> None:
    """A sequence gets the same tokens in a batch as alone: exactly, or within the stated tolerance."""
    batch = ragged(model, 2 * len(PROMPTS), 16, temperature)
    found = drive(model, batch)
    same = 0
    for one in batch:
        same += hold(subject, single, one, found.get(one, []), alone(single, one))
    assert not temperature or same * 2 > len(batch), (
        f"{len(batch) - same} of {len(batch)} draws differ from what they are alone: too many for rounding."
    )


def test_hundreds_of_sequences_refill_the_slots(subject: Subject, model: Model, single: Model) -> None:
    """300 sequences of different lengths on a few slots: each gets all its tokens, and those it gets alone."""
    batch = ragged(model, 300, 5)
    found = drive(model, batch)
    for number, one in enumerate(batch):
        assert len(one.token_ids) == one.params.max_tokens, (
            f"sequence {number} of 300 got {len(one.token_ids)} of {one.params.max_tokens} tokens ({told(one.error)}): "
            "a slot that is free takes the next sequence and forgets the one before."
        )
    whole = {tuple(one.prompt_ids): alone(single, one) for one in batch[:30] if one.params.max_tokens == 5}
    for one in batch:
        hold(subject, single, one, found[one], whole[tuple(one.prompt_ids)][: one.params.max_tokens])


def test_no_more_are_taken_than_there_are_slots(model: Model) -> None:
    """`run` pulls a sequence only while one of its `info.batch_size` slots is free: a queue is not read ahead."""
    queue = Queue(ragged(model, 3 * model.info.batch_size + 2))
    drive(model, queue)
    assert queue.most <= model.info.batch_size, (
        f"{queue.most} sequences were taken and unfinished at once, and info.batch_size is {model.info.batch_size}: "
        "pull the next one when a slot is free. codellm.Slots does so."
    )


def test_a_free_slot_is_taken_at_once(model: Model) -> None:
    """While sequences wait, no slot stays free for longer than two yields: they are refilled one by one."""
    queue = Queue(ragged(model, 4 * model.info.batch_size))
    free = longest = 0
    for tokens in steps(model, queue):
        free = free + 1 if queue.waiting and queue.unfinished < model.info.batch_size else 0
        longest = max(longest, free)
        take(tokens, {})
    assert longest <= 2, (
        f"a slot stayed free for {longest} yields while sequences waited: refill before every step, not when all "
        "slots are free."
    )


def test_a_live_iterable_may_have_nothing_now(model: Model) -> None:
    """None from a live iterable means that nothing waits now: `run` goes on, and asks again."""
    batch = ragged(model, 5)
    ahead = [batch[:number] for number in range(5)]
    drive(model, live((one, functools.partial(all_finished, those)) for one, those in zip(batch, ahead, strict=True)))
    counts, asked = [len(one.token_ids) for one in batch], [one.params.max_tokens for one in batch]
    assert counts == asked, (
        f"five sequences that came one after the other got {counts} of {asked} tokens. None is not the end of the "
        "iterable; only StopIteration is."
    )


def test_a_newcomer_joins_those_that_run(model: Model) -> None:
    """A sequence that arrives while another runs takes a free slot at once and need not wait for its end."""
    if model.info.batch_size < 2:
        pytest.skip("the model runs one sequence at a time")
    long, short = sequence(model, PROMPTS[0], max_tokens=60), sequence(model, PROMPTS[1], max_tokens=3)
    before = 0
    for tokens in steps(model, live([(long, lambda: True), (short, lambda: len(long.token_ids) >= 3)])):
        take(tokens, {})
        before = before if short.finished else len(long.token_ids)
    assert short.finished, f"the newcomer got {len(short.token_ids)} of 3 tokens ({told(short.error)})."
    assert before < 60, "the newcomer's tokens came after the other's end: pull new sequences before every step."


def test_a_finished_sequence_is_let_go(model: Model) -> None:
    """Tokens of a sequence stop within two yields of `finished` being set; the others go on."""
    first, *others = (sequence(model, prompt, max_tokens=30) for prompt in PROMPTS[: model.info.batch_size])
    late, found = 0, dict[Sequence, list[Token]]()
    for tokens in steps(model, [first, *others]):
        late += first.finished and any(token.sequence is first for token in tokens)
        take(tokens, found)
        first.finished = len(first.token_ids) >= 3
    assert late <= 2, (
        f"after `finished` was set {late} yields brought tokens of the sequence: look at it before every step, and "
        "drop who is finished."
    )
    counts = [len(one.token_ids) for one in others]
    assert counts == [30] * len(others), f"the others got {counts} of 30 tokens each: they run on to their own end."


def test_a_faulty_sequence_leaves_its_neighbours(subject: Subject, model: Model, single: Model) -> None:
    """A sequence that cannot be computed gets `error`, or simply runs; the others get what they get alone."""
    good, size = ragged(model, 4), model.tokenizer.vocab_size
    bad = {"an id past the vocabulary": [size + 7], "a negative id": [-1], "no ids": []}
    faulty = {what: sequence(model, ids, max_tokens=4) for what, ids in bad.items()}
    past, negative, empty = faulty.values()
    try:
        found = drive(model, [past, good[0], negative, good[1], empty, good[2], good[3]])
    except Exception as error:
        raise AssertionError(
            f"run() raised {told(error)} for the fault of one sequence, which ends all of them. Set `error` on the "
            f"sequence (prompts: {', '.join(bad)}) and go on."
        ) from error
    for what, one in faulty.items():
        assert one.error is not None or one.finished, f"a sequence with {what} got neither an error nor its tokens."
    for one in good:
        assert one.error is None, f"a sound sequence beside faulty ones got {told(one.error)}."
        hold(subject, single, one, found.get(one, []), alone(single, one))


def test_sequences_are_left_as_they_are(model: Model) -> None:
    """A backend writes nothing on a sequence but `error`: core appends the tokens and sets `finished`."""
    batch = ragged(model, 2 * model.info.batch_size)

    def state(one: Sequence) -> dict[str, object]:
        return {"index": one.index, "prompt_ids": [*one.prompt_ids], "params": one.params,
                "token_ids": [*one.token_ids], "finished": one.finished}  # fmt: skip

    before = {one: state(one) for one in batch}
    for tokens in steps(model, batch):
        for one in batch:
            wrong = [name for name, value in state(one).items() if value != before[one][name]]
            assert not wrong, (
                f"run() changed {', '.join(wrong)} of a sequence. Keep what you need in state of your own."
            )
        take(tokens, {})
        before = {one: state(one) for one in batch}
