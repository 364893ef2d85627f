"""Which byte follows which, in a folder's Python files."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs
import numpy as np
import numpy.typing as npt

END = 256
"""What follows the last byte of a file. As context it is byte 0, which no Python file holds."""


@attrs.frozen(eq=False)
class Table:
    """Every place of the text, sorted by what stands before it.

    `contexts` [N] hold the bytes before each place, eight in a uint64, the nearest in the highest byte: so the places
    with one context, of any length, lie side by side. `following` [N] holds the byte at each place, or END.
    """

    contexts: npt.NDArray[np.unsignedinteger]
    following: npt.NDArray[np.uint16]

    @classmethod
    def of(cls, texts: Iterable[bytes]) -> Table:
        """The table of some texts."""
        text = np.frombuffer(b"".join(text.replace(b"\0", b"") + b"\0" for text in texts), np.uint8)
        padded = np.concatenate([np.zeros(8, np.uint8), text])
        contexts = np.zeros(len(text), np.uint64)
        for back in range(1, 9):
            contexts |= padded[8 - back : len(padded) - back].astype(np.uint64) << np.uint64(64 - 8 * back)
        order = np.argsort(contexts, kind="stable")
        following = text.astype(np.uint16)
        following[text == 0] = END
        return cls(contexts[order], following[order])

    @functools.cached_property
    def counts(self) -> npt.NDArray[np.intp]:
        """How often each byte occurs, and END: [257]."""
        return np.bincount(self.following, minlength=257)

    def probabilities(self, ids: Sequence[int], order: int = 8) -> npt.NDArray[np.float64]:
        """The probability of each byte, and of END, after `ids`: [257].

        Longer contexts are mixed with shorter ones as far as they vary: Witten and Bell 1991, method C.
        """
        bits = 8 * self.contexts.itemsize
        mixed = np.full(257, 1 / 257)
        first, last, key = 0, len(self.contexts), 0
        for length in range(min(order, bits // 8, len(ids)) + 1):
            if length:
                shift = bits - 8 * length
                key |= ids[-length] % 256 << shift
                places = self.contexts[first:last]
                lowest, highest = (self.contexts.dtype.type(edge) for edge in (key, key + (1 << shift) - 1))
                first, last = (
                    first + int(np.searchsorted(places, lowest)),
                    first + int(np.searchsorted(places, highest, side="right")),
                )
            if first == last:
                break
            counts = np.bincount(self.following[first:last], minlength=257) if length else self.counts
            kinds = np.count_nonzero(counts)
            mixed = (counts + kinds * mixed) / (last - first + kinds)
        return mixed


def read_folder(files: Iterable[Path]) -> Table:
    """The table of the Python files among `files`."""
    return Table.of(file.read_bytes() for file in files if file.suffix == ".py")
