"""Tokens to text as they come: UTF-8 safe, ending before a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Iterable

from codellm.errors import InvalidValueError


def utf8(text: str, what: str = "the text") -> bytes:
    """The bytes of `text`, which messages call `what`.

    Raises:
        InvalidValueError: it holds half of a UTF-16 pair, which is no character. An escape in JSON may make one, and so
            does a byte that is no UTF-8 in an argument or a file's name.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise InvalidValueError(
            f"{what} holds a lone surrogate, U+{code:04X}, after {error.start} characters, which is no character; "
            "remove or replace it"
        ) from error


class StopScanner:
    """Finds stop strings in text that comes in pieces, and holds back what may still become one.

    The match that ends first wins, the longest of those that end together; how the text was cut into pieces makes no
    difference.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.hit = False

    def push(self, text: str) -> str:
        """The text that is now sure to stand before any stop string; sets `hit` when one is complete."""
        if self.hit or not self._stops:
            return "" if self.hit else text
        self._held += text
        matches = [(start + len(stop), start) for stop in self._stops if (start := self._held.find(stop)) >= 0]
        if matches:
            self.hit = True
            sure = min(matches)[1]
        else:
            sure = len(self._held) - max(map(self._overlap, self._stops))
        out, self._held = self._held[:sure], self._held[sure:]
        return out

    def finish(self) -> str:
        """What was held back, once no more text comes."""
        out, self._held = ("" if self.hit else self._held), ""
        return out

    def _overlap(self, stop: str) -> int:
        """Length of the longest end of the held text that begins `stop`."""
        for length in range(min(len(stop) - 1, len(self._held)), 0, -1):
            if self._held.endswith(stop[:length]):
                return length
        return 0


class TextStream:
    """The text of one sequence, from the bytes of its tokens."""

    def __init__(self, stops: Iterable[str]) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._scanner = StopScanner(stops)
        self._pieces: list[str] = []

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found."""
        return self._scanner.hit

    @property
    def text(self) -> str:
        """Everything released so far."""
        return "".join(self._pieces)

    def push(self, data: bytes) -> str:
        """The text that `data` releases; bytes of an unfinished character wait for the rest."""
        return self._release(self._scanner.push(self._decoder.decode(data)))

    def finish(self) -> str:
        """The rest, at the end of the sequence; an unfinished character becomes U+FFFD."""
        last = self._scanner.push(self._decoder.decode(b"", final=True))
        return self._release(last + self._scanner.finish())

    def _release(self, text: str) -> str:
        if text:
            self._pieces.append(text)
        return text
