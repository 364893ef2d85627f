"""What is measured in every cell of one grid, and the sizes of the cells."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal, Self

import attrs

from codellm.errors import InvalidValueError
from codellm_eval.bench.ask.workload import at_least

Protocol = Literal["cached", "seed"]
LEAST_CHUNK = 128
"""Tokens of a prompt that every backend here computes in one step, at least."""


@attrs.frozen(order=True)
class Size:
    """Size of a cell, its position in the grid: sequences together, and tokens of the prompt of each.

    Raises:
        InvalidValueError: a size that cannot be measured.
    """

    batch_size: int = attrs.field(validator=at_least(1))
    context: int = attrs.field(validator=at_least(1))

    def __str__(self) -> str:
        return f"{self.batch_size}x{self.context}"


def sizes(batch_sizes: Sequence[int], contexts: Sequence[int]) -> tuple[Size, ...]:
    """All combinations, each once, the contexts of one batch size after each other.

    Raises:
        InvalidValueError: a size that cannot be measured.
    """
    return tuple(dict.fromkeys(itertools.starmap(Size, itertools.product(batch_sizes, contexts))))


@attrs.frozen(kw_only=True)
class GridPlan:
    """The same for every cell. `protocols` says what the two measure.

    Raises:
        InvalidValueError: a value that cannot be measured.
    """

    protocol: Protocol = "cached"
    new_tokens: int = attrs.field(default=32, validator=at_least(2))
    """Of each sequence, after its first one with `cached`; each a pass of its own with `seed`."""
    repeats: int = attrs.field(default=3, validator=at_least(1))
    seed: int = attrs.field(default=0, validator=at_least(0))
    """Prompts are drawn from it: every row is given the same ones."""

    @classmethod
    def of(cls, protocol: Protocol, new_tokens: int | None, repeats: int | None, seed: int) -> Self:
        """The plan with the protocol's own defaults for what is None.

        Raises:
            InvalidValueError: see the class.
        """
        usual = DEFAULTS[protocol]
        return cls(
            protocol=protocol,
            new_tokens=usual.new_tokens if new_tokens is None else new_tokens,
            repeats=usual.repeats if repeats is None else repeats,
            seed=seed,
        )

    def room(self, size: Size) -> int:
        """Tokens that a sequence may give: those that are measured and, with `cached`, those before them.

        A sequence whose prompt is computed early generates while the prompts of the others are computed: a token for
        each of their chunks.
        """
        if self.protocol == "seed":
            return self.new_tokens
        return self.new_tokens + 2 + (size.batch_size - 1) * -(-size.context // LEAST_CHUNK)

    def context_length(self, size: Size) -> int:
        """Tokens that a slot has to hold."""
        return size.context + self.room(size)

    def __str__(self) -> str:
        """Words for a table's title: two figures are comparable only where it is the same."""
        return f"protocol {self.protocol}, {self.new_tokens} new tokens, median of {self.repeats}"


@attrs.frozen
class Defaults:
    """What a protocol is usually asked for."""

    batch_sizes: tuple[int, ...]
    contexts: tuple[int, ...]
    new_tokens: int
    repeats: int


DEFAULTS: dict[Protocol, Defaults] = {
    "cached": Defaults((1, 2, 4, 8), (512,), 32, 3),
    "seed": Defaults((2,), (4096, 8192), 4, 2),
}


def refuse_sizes(options: Sequence[str], row: object) -> None:
    """The grid sets the sizes of a load itself.

    Raises:
        InvalidValueError: a row sets one.
    """
    for name in ("batch_size", "context_length"):
        if name in options:
            raise InvalidValueError(f"row {row} sets {name}, which the grid does; give --batch-size and --context")
