"""Random edits of a text: what a writer does between two requests, each of which must get what it gets alone."""

from __future__ import annotations

import itertools
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from codellm.sampling import SamplingParams

WORTH_SHARING = 32
"""Tokens from which on a beginning is taken over, on every backend."""


@attrs.frozen
class Edit:
    """What a writer does to a text of ids: `cut` of them go at a share of its length, and `put` come there."""

    share: float
    cut: int
    put: list[int]

    def of(self, ids: list[int]) -> list[int]:
        place = int(self.share * len(ids))
        return [*ids[:place], *self.put, *ids[place + self.cut :]] or [20]


EDITS = st.lists(
    st.builds(
        Edit,
        st.sampled_from([0.0, 0.3, 0.5, 0.9, 0.97, 1.0]) | st.floats(0, 1),
        st.integers(0, 6),
        st.lists(st.integers(20, 3000), max_size=6),
    ),
    min_size=1,
    max_size=5,
)
CODE = '''def read(path: str) -> list[str]:
    """The lines of a file, without what ends them."""
    with open(path) as file:
        return [line.rstrip() for line in file]


class Counter:
    def __init__(self) -> None:
        self.counts = {}

    def add(self, word: str) -> None:
        self.counts[word] = self.counts.get(word, 0) + 1

'''


def hold_edits(kept: Any, alone: Any, tolerance: float) -> None:
    """Ask `kept`, which has a prefix cache, for the output of a text that is edited, and hold it to that of `alone`.

    Of each text no more is computed than what comes after the beginning that it has in common with the one before.
    """
    text = alone.tokenizer.encode(CODE * 2)

    @settings(max_examples=25)
    @given(edits=EDITS, samples=st.integers(1, 4), tokens=st.integers(1, 12))
    def held(edits: list[Edit], samples: int, tokens: int) -> None:
        params = SamplingParams(max_tokens=tokens)
        prompt, before = text, []
        for edit in edits:
            prompt = edit.of(prompt)
            expected = alone.generate(prompt, params).token_ids
            pairs = zip(before, prompt, strict=False)
            shared = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))
            for result in kept.generate_batch([prompt] * samples, params):
                hold_equal(alone, prompt, result.token_ids, expected, tolerance)
                assert shared < WORTH_SHARING or result.cached_tokens >= min(shared, len(prompt) - 1)
            before = prompt
            prompt = [*prompt, *expected][:400]

    held()


def hold_equal(
    alone: Any, prompt: list[int], found: tuple[int, ...], expected: tuple[int, ...], tolerance: float
) -> None:
    """Hold greedy output to what it is without the cache: the same, but where two tokens are as likely as each other.

    A prompt is then computed in other pieces.
    """
    place = next((place for place, pair in enumerate(zip(found, expected, strict=False)) if len(set(pair)) > 1), None)
    if place is None:
        assert found == expected
        return
    logits = alone.logits([*prompt, *expected[:place]])
    assert logits[expected[place]] - logits[found[place]] <= 2 * tolerance
