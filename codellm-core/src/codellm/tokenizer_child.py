"""One reading of a tokenizer.json, in a process that may die of it.

`python -m codellm.tokenizer_child PATH MEMORY SECONDS`

Exit code 0: the tokenizers library reads the file, and encodes in bounded memory and time what a hostile file would be
made for. 3: it does not, and the last line printed says why. A signal is the library's end or that of a limit; any
other code means that the file was not tried.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codellm.system.child import end_with_parent, limit

if TYPE_CHECKING:
    import tokenizers

REFUSED = 3
"""Exit code of a verdict: Python ends with 1 where something is wrong that has nothing to do with the file."""

_SHORT, _LONG = 48, 1 << 17
"""Repetitions. An expression that tries every way to divide a text shows on a few dozen characters; one whose time
grows with the square of the length shows on a hundred thousand."""

_GROWTH = 64
"""Times as long as it was that normalizing may make a text. NFKD makes 18 characters of U+FDFA, more than of any."""

ASCII = "".join(map(chr, range(128)))
END = f"\x00{ASCII}é你"
"""After a run of characters: what breaks it, and then whatever an expression may look for at its end."""
RUNS = ("a", "A", "0", " ", "\n", "!", "_", "é", "你", "a ", " \n", "aA0")
CHARACTERS = [*ASCII, "é", "ß", "e\u0301", "ﷺ", "你", "🙂", "\u2028", "\u3000", "▁"]


def main() -> int:
    """Try the file that the command line names."""
    end_with_parent(None)
    path, memory, seconds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    limit(memory, seconds)
    from codellm.errors import CodellmError
    from codellm.sources.regular import read_text, shown
    from codellm.tokenizer_library import opened, surviving

    try:
        text = read_text(path)
        with surviving("not a readable tokenizer.json"):
            data = json.loads(text)
            tokenizer = opened(text)
        with surviving("the tokenizers library fails on a text"):
            fault = _fault(tokenizer, data)
    except CodellmError as error:
        fault = str(error).removeprefix(f"{shown(path)}: ")
    sys.stdout.buffer.write(f"\n{shown(fault)}\n".encode())
    return REFUSED if fault else 0


def _fault(tokenizer: tokenizers.Tokenizer, data: Mapping[str, Any]) -> str:
    """What is wrong with a tokenizer that was read."""
    tokenizer.get_added_tokens_decoder()
    tokenizer.encode("")
    parts = [data.get("normalizer"), data.get("pre_tokenizer")]
    strings, expressions = list(_patterns(parts, "String")), list(_patterns(parts, "Regex"))
    repeated = dict.fromkeys([*strings, *CHARACTERS, *_literals(expressions)])
    for text in (*CHARACTERS, *(f"{piece * _SHORT}{end}" for piece in repeated for end in ("", "a", END))):
        if tokenizer.normalizer is not None and _grows(text, tokenizer.normalizer.normalize_str(text)):
            return f"its normalizer makes a text more than {_GROWTH} times as long"
        tokenizer.encode(text)
    if expressions:
        for piece in RUNS:
            _cut(tokenizer, piece * (_LONG // len(piece)) + END)
    return ""


def _cut(tokenizer: tokenizers.Tokenizer, text: str) -> None:
    """What is done to a text before it is merged into tokens: all that expressions have a part in."""
    from tokenizers import PreTokenizedString

    if tokenizer.normalizer is not None:
        text = tokenizer.normalizer.normalize_str(text)
    if tokenizer.pre_tokenizer is not None:
        tokenizer.pre_tokenizer.pre_tokenize(PreTokenizedString(text))


def _grows(before: str, after: str) -> bool:
    return len(after) > _GROWTH * (len(before) + 1)


def _patterns(part: object, kind: str) -> Iterator[str]:
    """The patterns of a kind, however deep they stand."""
    if isinstance(part, Mapping):
        pattern = part.get(kind)
        if isinstance(pattern, str):
            yield pattern
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from _patterns(each, kind)


def _literals(expressions: Iterable[str]) -> Iterator[str]:
    """What expressions may be made for: each of their characters, and each word in them."""
    for expression in expressions:
        yield from set(expression)
        yield from re.findall(r"\w{2,}", expression)


if __name__ == "__main__":
    sys.exit(main())
