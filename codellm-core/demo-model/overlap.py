"""Word n-gram overlap: how HumanEval is kept out of training, and training out of the held-out text."""

import re
from collections.abc import Iterable, Iterator

WORD = re.compile(r"[^\W\d]\w*")
COMMENT_LINE = re.compile(r"^[ \t]*#.*$", re.MULTILINE)


class NgramIndex:
    """The set of word n-grams of some texts, asked how much another text shares with it.

    A word is a name, a keyword or a word of prose. Numbers and punctuation do not count, or every list of small
    integers would be a copy; nor do comment lines, or every licence header would be.
    """

    def __init__(self, size: int, texts: Iterable[str] = ()) -> None:
        self.size = size
        self.grams: set[tuple[str, ...]] = set()
        for text in texts:
            self.grams.update(self._split(text))

    def _split(self, text: str) -> Iterator[tuple[str, ...]]:
        words = WORD.findall(COMMENT_LINE.sub("", text))
        return zip(*(words[i:] for i in range(self.size)), strict=False)

    def touches(self, text: str) -> bool:
        """Whether `text` shares at least one n-gram."""
        return not self.grams.isdisjoint(self._split(text))

    def shared(self, text: str) -> set[tuple[str, ...]]:
        """The n-grams that `text` shares."""
        return self.grams.intersection(self._split(text))

    def fraction(self, text: str) -> float:
        """The part of a text's distinct n-grams that the index holds, 0 for a text shorter than one n-gram."""
        grams = set(self._split(text))
        return len(grams & self.grams) / len(grams) if grams else 0.0
