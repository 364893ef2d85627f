"""Strings of special tokens in text that somebody typed, where they are to be text.

They are broken by a character that the text does not hold. A chat template may then cut and join the texts as it
pleases; once the tokens are found, the breaker is taken out again.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Self

import attrs


@attrs.frozen(eq=False)
class Marks:
    """The special tokens of a model, by their strings."""

    ids: Mapping[str, int]
    pattern: re.Pattern[str]
    _beginnings: frozenset[str]
    _endings: frozenset[str]

    @classmethod
    def of(cls, ids: Mapping[str, int]) -> Self:
        """Those that `Tokenizer.controls` names."""
        return cls._of(frozenset(ids.items()))

    @classmethod
    @functools.lru_cache(maxsize=8)
    def _of(cls, ids: frozenset[tuple[str, int]]) -> Self:
        strings = sorted((string for string, _ in ids if string), key=lambda string: (-len(string), string))
        return cls(
            dict(ids),
            re.compile("|".join(map(re.escape, strings)) or "(?!)"),  # the longest first
            frozenset(string[:length] for string in strings for length in range(1, len(string))),
            frozenset(string[-length:] for string in strings for length in range(1, len(string))),
        )

    def broken(self, text: str, breaker: str) -> str:
        """`text` with the breaker in every special string, and in what may be half of one at either end.

        White space at the ends is left as it is, for a template to strip.
        """
        at = {start + 1 for start in self._starts(text)}
        inner = text.strip()
        first = len(text) - len(text.lstrip()) if inner else 0
        last = first + len(inner)
        for length in range(1, min(max(map(len, self.ids), default=0), len(inner) + 1)):
            if inner[-length:] in self._beginnings:
                at.add(last - length + 1)
            if inner[:length] in self._endings:
                at.add(first + length - 1)
        return breaker.join(text[start:stop] for start, stop in itertools.pairwise([0, *sorted(at), len(text)]))

    def _starts(self, text: str) -> Iterator[int]:
        """Where special strings begin, those that overlap too."""
        position = 0
        while (match := self.pattern.search(text, position)) is not None:
            yield match.start()
            position = match.start() + 1

    def encode(self, text: str, breaker: str, encode: Callable[..., list[int]]) -> list[int]:
        """Ids by `Tokenizer.encode`: special strings are tokens, those with a breaker in them text without it."""
        tokens = list(self._whole(text, breaker))
        steering = frozenset(self.ids.values())
        ids = encode(text.replace(breaker, ""), special=True)
        if [id for id in ids if id in steering] == [self.ids[match[0]] for match in tokens]:
            return ids
        return list(itertools.chain.from_iterable(self._apart(text, breaker, tokens, encode)))

    def _whole(self, text: str, breaker: str) -> Iterator[re.Match[str]]:
        """Special strings without a breaker; one of a single character has it behind."""
        for match in self.pattern.finditer(text):
            if len(match[0]) > 1 or not text.startswith(breaker, match.end()):
                yield match

    def _apart(
        self, text: str, breaker: str, tokens: list[re.Match[str]], encode: Callable[..., list[int]]
    ) -> Iterator[list[int]]:
        """Ids of the special tokens, and of the texts between them, each by itself."""
        start = 0
        for match in (*tokens, None):
            between = text[start : match.start() if match else None].replace(breaker, "")
            if between:
                yield encode(between)
            if match:
                yield [self.ids[match[0]]]
                start = match.end()
