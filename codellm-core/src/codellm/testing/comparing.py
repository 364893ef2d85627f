"""What a sequence gets in a batch, held to what it gets alone."""

from __future__ import annotations

from codellm.model import Model
from codellm.sequence import Sequence, Token
from codellm.testing.running import drive
from codellm.testing.subject import Subject


def alone(single: Model, one: Sequence) -> list[Token]:
    """The tokens of `one`, run again by itself."""
    again = Sequence(index=one.index, prompt_ids=[*one.prompt_ids], params=one.params)
    return drive(single, [again]).get(again, [])


def hold(subject: Subject, single: Model, one: Sequence, batch: list[Token], reference: list[Token]) -> bool:
    """Hold the tokens that `one` got in a `batch` to those it gets alone → whether they are the same.

    With a stated tolerance two tokens may take each other's place where the logits are that near; what follows them
    cannot be compared.
    """
    __tracebackhide__ = True
    who = (
        f"The sequence of {len(one.prompt_ids)} prompt tokens, index {one.index}, temperature {one.params.temperature}"
    )
    for index, (mine, other) in enumerate(zip(batch, reference, strict=False)):
        if mine.id != other.id:
            assert subject.tolerance, (
                f"{who}: token {index} is {mine.id} in a batch and {other.id} alone. What runs beside a sequence must "
                "not change it: look at padding, masks, positions and caches, and seed by (seed, index). If only "
                "rounding differs, state by how much with --codellm-tolerance."
            )
            _fork(subject, single, one, index, other.id)
            return False
        if mine.logprob is not None and other.logprob is not None:
            difference = abs(mine.logprob - other.logprob)
            subject.batches.see(difference)
            assert difference <= subject.tolerance, (
                f"{who}: the log-probability of token {index} is {mine.logprob} in a batch and {other.logprob} alone, "
                f"{difference:.2g} nats apart where {subject.tolerance:g} are stated (--codellm-tolerance)."
            )
    assert len(batch) == len(reference), f"{who} got {len(batch)} tokens in a batch and {len(reference)} alone."
    return True


def _fork(subject: Subject, single: Model, one: Sequence, index: int, id: int) -> None:
    """Whether the tolerance explains that greedy decoding took another token than `id`; of a draw it cannot be told."""
    __tracebackhide__ = True
    if one.params.temperature:
        return
    logits = single.logits(one.prompt_ids + one.token_ids[:index])
    mine = one.token_ids[index]
    gap = abs(float(logits[mine]) - float(logits[id]))
    subject.batches.see(gap / 2)
    assert gap <= 2 * subject.tolerance, (
        f"Token {index} is {mine} in a batch and {id} alone, and their logits are {gap:.2g} apart: more than twice the "
        f"stated tolerance of {subject.tolerance:g} nats, so rounding does not explain it."
    )
