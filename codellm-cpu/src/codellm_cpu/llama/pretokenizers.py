"""What untrusted text may cost llama.cpp's pre-tokenizers: a stack that is deep enough, and no time without bound.

Most of them match std::regex, which recurses once for every character of a match (llama.cpp, src/unicode.cpp,
unicode_regex_split_stl): some 20000 letters in a row overflow the 8 MiB of a usual stack, and end the process.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import TypeVar

from codellm.errors import InvalidValueError, NotEnoughMemoryError
from codellm.system import machine
from codellm_cpu.llama.library import uninterrupted

Answer = TypeVar("Answer")

_SHALLOW = 2048
"""Characters whose depth fits any stack."""

_LONG = 1 << 20
"""Characters up to which a stack holds one match of all of them, whatever the pre-tokenizer."""

_FRAMES = 1024
"""Bytes of stack for each character of a match: 330 where gcc 12 optimizes. Those that are not used take no memory."""

_TOUCHED = 400
"""Bytes of them that are used."""

_LINE_ENDS = re.compile(r"\n(?=\S)")
"""Where every match ends: none that llama.cpp knows goes on past a line's end and the blanks after it."""

_BLANKS, _DIGITS = re.compile(r"[^\S\r\n]{100,}"), re.compile(r"\d{100,}")

_SQUARES: dict[str, tuple[re.Pattern[str], tuple[str, ...], int, str]] = {
    "deepseek-llm": (_BLANKS, ("\r", "\n", ""), 50_000_000, "blanks"),  # \s+$, tried from each of them
    "superbpe": (_DIGITS, (), 40_000_000, "digits"),  # (?=(\d{3})+(?!\d)), from each of them
    "jais-2": (_BLANKS, ("\r", "\n"), 8_000_000_000, "blanks"),  # \s*[\r\n]+, from each 512th
}
"""Where a pre-tokenizer takes time that grows with the square of a run, what ends one that matches at once, and the
squares that take some five seconds. Of shorter runs it takes time that grows with the text, however many they are."""

_stacks = threading.Lock()


def bounded(
    text: str, pre: str, tokenize: Callable[[], Answer], available: Callable[[], int] = machine.available_memory
) -> Answer:
    """Tokenize the text, which pre-tokenizer `pre` splits into words, on a stack that it cannot overflow.

    Raises:
        InvalidValueError: it would take minutes.
        NotEnoughMemoryError: the stack takes more bytes than are `available`.
    """
    _refuse_squares(text, pre)
    if len(text) <= _SHALLOW:
        return tokenize()
    longest = max(map(len, _LINE_ENDS.split(text)))
    used = longest * _TOUCHED
    if longest > _LONG and used > (free := available()):
        raise NotEnoughMemoryError(
            f"a line of {longest} characters may take {used / 1e9:.1f} GB of memory to tokenize, and "
            f"{free / 1e9:.1f} are free; break it into shorter ones"
        )
    return _on_stack((8 << 20) + max(longest, min(len(text), _LONG)) * _FRAMES, tokenize)


def _refuse_squares(text: str, pre: str) -> None:
    if pre not in _SQUARES:
        return
    run, quick, most, kind = _SQUARES[pre]
    runs = [len(found[0]) for found in run.finditer(text) if text[found.end() : found.end() + 1] not in quick]
    if sum(length**2 for length in runs) > most:
        raise InvalidValueError(
            f"the text has {max(runs)} {kind} in a row, on which the pre-tokenizer {pre} would take minutes; "
            "break them up or leave them out"
        )


def _on_stack(size: int, work: Callable[[], Answer]) -> Answer:
    """What `work` gives, or raises, in a thread with a stack of `size` bytes."""
    answers: list[Answer] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(work())
        except BaseException as error:
            errors.append(error)

    with uninterrupted():
        thread = threading.Thread(target=run)
        _start(thread, size)
        thread.join()
    if errors:
        raise errors[0]
    return answers[0]


def _start(thread: threading.Thread, size: int) -> None:
    """Start `thread` with a stack of `size` bytes. The size is the process's: another that starts now gets it too."""
    with _stacks:
        before = threading.stack_size(size)
        try:
            thread.start()
        except RuntimeError as error:
            raise NotEnoughMemoryError(
                f"no thread with a stack of {size / 1e9:.1f} GB can be started to tokenize a long text; shorten it"
            ) from error
        finally:
            threading.stack_size(before)
