"""One source file of one package, and the tests that it must pass to be worth learning from."""

import ast
import json
import lzma
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

SIZE = range(200, 100_000)  # bytes: below it little but imports, above it mostly tables
LONGEST_LINE = 400  # characters: longer ones are data, or written by a machine
SKIPPED_PATH = re.compile(
    r"(^|/)(tests?|testing|_?vendor(ed)?|_?extern(al|als)?|third_party|locales?|migrations|data|lexers)/"
    r"|(^|/)(test_|conftest|_?version\.py|.*_pb2|.*_test\.py)"
)
COPYLEFT = re.compile(r"\bL?GPL|General Public License|Mozilla Public License", re.IGNORECASE)
GENERATED = re.compile(
    r"(auto-?|machine |automatically )generated|generated (by|from|code)|do not (edit|modify)", re.IGNORECASE
)
HEAD = 2_000  # characters in which a file states its licence, or that a program wrote it


@dataclass(frozen=True, slots=True)
class Document:
    """A Python file: where it came from and its text, with Unix newlines."""

    package: str
    path: str
    text: str


def from_bytes(package: str, path: str, data: bytes) -> Document | None:
    """The document in `data`, or None where it is not a parseable, hand-written, permissive Python file."""
    if not path.endswith(".py") or len(data) not in SIZE or SKIPPED_PATH.search(path):
        return None
    try:
        text = data.decode("utf-8").replace("\r\n", "\n")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in old files are not ours to report
            ast.parse(text)
    except (UnicodeDecodeError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    head = text[:HEAD]
    if COPYLEFT.search(head) or GENERATED.search(head):
        return None
    if max(map(len, text.splitlines()), default=0) > LONGEST_LINE:
        return None
    if sum(map(str.isalpha, text)) < 0.35 * len(text):
        return None
    return Document(package, path, text)


def write(documents: Iterable[Document], path: Path) -> None:
    """Write documents as xz-compressed JSON lines."""
    with lzma.open(path, "wt", encoding="utf-8", preset=9) as file:
        for document in documents:
            file.write(json.dumps(asdict(document), ensure_ascii=False) + "\n")


def read(path: Path) -> Iterator[Document]:
    """Read what `write` wrote."""
    with lzma.open(path, "rt", encoding="utf-8", newline="\n") as file:
        for line in file:
            yield Document(**json.loads(line))
