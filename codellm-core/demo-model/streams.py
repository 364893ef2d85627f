"""Token streams: the corpus as long arrays of token ids that training cuts its rows from.

Three views of the same files: `plain` documents, `infill` windows rearranged for fill-in-the-middle, and documented
`functions` by themselves. Every piece ends with the end-of-text token.
"""

import ast
import os
import random
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.pool import AsyncResult, Pool
from pathlib import Path

import document
import numpy as np
from document import Document
from numpy.typing import NDArray
from tokenizers import Tokenizer

END, PREFIX, MIDDLE, SUFFIX = 0, 1, 2, 3  # ids of the tokens that `tokenizer.py` puts first
CHUNK = 256  # documents that a worker takes at a time
WINDOWS = 2  # infill windows cut from one document
WINDOW = 3_000  # characters around a hole
HOLE = 600  # characters in a hole at most
FUNCTION_LINES = range(4, 41)
FUNCTION_SIZE = 2_000  # characters

Ids = NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Streams:
    """Token ids of each view, [N] uint16."""

    plain: Ids
    infill: Ids
    functions: Ids


def holes(text: str, dice: random.Random) -> Iterator[tuple[str, str, str]]:
    """Windows of `text` as (prefix, middle, suffix): half of the holes are whole lines, half begin and end anywhere."""
    for _ in range(WINDOWS if len(text) > WINDOW else 1):
        start = dice.randrange(max(1, len(text) - WINDOW))
        window = text[start : start + WINDOW]
        first, last = sorted(dice.randrange(len(window)) for _ in range(2))
        if dice.random() < 0.5:
            first = window.rfind("\n", 0, first) + 1
            last = window.find("\n", last) + 1 or len(window)
        last = min(last, first + HOLE)
        yield window[:first], window[first:last], window[last:]


def functions(text: str) -> Iterator[str]:
    """The top-level functions of a file that have a docstring and a modest length."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(text)
    lines = text.split("\n")  # as the parser counts them; splitlines() also breaks at form feeds
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.decorator_list and ast.get_docstring(node):
            source = "\n".join(lines[node.lineno - 1 : node.end_lineno]) + "\n"
            if source.count("\n") in FUNCTION_LINES and len(source) <= FUNCTION_SIZE:
                yield source


def encode(tokenizer_path: str, job: tuple[int, Sequence[Document]]) -> Streams:
    """The streams of one chunk of documents; the chunk's number seeds its holes."""
    seed, documents = job
    tokenizer, dice = Tokenizer.from_file(tokenizer_path), random.Random(seed)

    def ids(texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]

    plain = [[*piece, END] for piece in ids([doc.text for doc in documents])]
    parts = [part for doc in documents for hole in holes(doc.text, dice) for part in hole]
    cut = ids(parts)
    infill = [
        [PREFIX, *before, SUFFIX, *after, MIDDLE, *middle, END]
        for before, middle, after in zip(cut[::3], cut[1::3], cut[2::3], strict=True)
    ]
    alone = [[*piece, END] for piece in ids([source for doc in documents for source in functions(doc.text)])]
    return Streams(
        *(np.array([i for piece in view for i in piece], dtype=np.uint16) for view in (plain, infill, alone))
    )


@dataclass(frozen=True, slots=True)
class Encoding:
    """An encoding under way in worker processes, so that the accelerator can be made ready meanwhile."""

    pool: Pool
    chunks: AsyncResult[list[Streams]]

    def result(self) -> Streams:
        """Wait for the workers and join their streams in corpus order."""
        chunks = self.chunks.get()
        self.pool.terminate()
        return Streams(
            plain=np.concatenate([chunk.plain for chunk in chunks]),
            infill=np.concatenate([chunk.infill for chunk in chunks]),
            functions=np.concatenate([chunk.functions for chunk in chunks]),
        )


def start(corpus: Path, tokenizer: Path, limit: int | None = None) -> Encoding:
    """Begin encoding the first `limit` documents of a corpus (all by default) on every core."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    documents = [doc for number, doc in enumerate(document.read(corpus)) if limit is None or number < limit]
    jobs = [(i, documents[i : i + CHUNK]) for i in range(0, len(documents), CHUNK)]
    pool = Pool(os.cpu_count())
    return Encoding(pool, pool.map_async(partial(encode, str(tokenizer)), jobs, chunksize=1))
