"""Which lines of a generated text belong to it, as llama.cpp's server says with `n_indent` and `t_max_predict_ms`."""

from __future__ import annotations

_BLANK = " \t"


class Lines:
    """Text that comes in pieces, and ends where a line is not of its block or the time is over.

    Each line after the first begins with at least `indent` spaces and tabs; one that does not, an empty one too, ends
    the text and is not of it. So does the end of a line once `seconds` are over, None for ever. How the text was cut
    into pieces makes no difference to its lines.
    """

    def __init__(self, indent: int = 0, seconds: float | None = None) -> None:
        self._indent, self._seconds = indent, seconds
        self._head: str | None = None  # the blanks that begin a line, while they may still become enough
        self.ended = False

    def push(self, text: str, elapsed: float) -> str:
        """What is now sure to be of the text; sets `ended` at its end. `elapsed` seconds have passed."""
        if self.ended:
            return ""
        sure = "".join(self._indented(text)) if self._indent else text
        if self._seconds is not None and elapsed > self._seconds and "\n" in sure:
            self.ended = True
        return sure

    def finish(self) -> str:
        """What was held back, once no more text comes."""
        return "" if self.ended else self._head or ""

    def _indented(self, text: str) -> list[str]:
        sure: list[str] = []
        *lines, last = text.split("\n")
        for line in lines:
            self._take(line, sure, whole=True)
            if self.ended:
                return sure
            sure.append("\n")
            self._head = ""
        self._take(last, sure, whole=False)
        return sure

    def _take(self, part: str, sure: list[str], *, whole: bool) -> None:
        """Go on with a line, which ends here where it is `whole`."""
        if self._head is None:
            sure.append(part)
            return
        head = self._head + part
        blanks = len(head) - len(head.lstrip(_BLANK))
        if blanks >= self._indent:
            sure.append(head)
            self._head = None
        elif whole or blanks < len(head):
            self.ended = True
        else:
            self._head = head
