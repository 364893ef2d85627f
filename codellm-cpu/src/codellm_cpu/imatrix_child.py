"""The importance matrix of a GGUF file, computed in a process of its own.

`python -m codellm_cpu.imatrix_child SOURCE CALIBRATION DESTINATION THREADS`

Reads tensors through a layout of memory that is llama.cpp's own affair (llama/products.py), which may end the process.
Prints `DONE TOTAL`, in tokens, after each chunk, and an error as its last line. Exit code 0: written.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from codellm.errors import BackendError, CodellmError
from codellm_cpu.child import end_with_parent
from codellm_cpu.llama.library import ContextShape, open_context, open_native
from codellm_cpu.llama.products import Products
from codellm_cpu.llama.tokenizer import LlamaTokenizer

if TYPE_CHECKING:
    import numpy.typing as npt

    from codellm_cpu.llama.library import NativeContext

CHUNK = 512
TOKENS = 16 * CHUNK
"""A calibration text counts up to here: minutes of a 7B on a laptop."""


class Sums:
    """Squares of each weight's inputs, summed over all rows, and how many rows these were.

    The mean of the squares weighs a column's rounding error by what it does to the outputs (llama.cpp,
    tools/imatrix).
    """

    def __init__(self, products: Products) -> None:
        self._products = products
        self._squares: dict[str, npt.NDArray[np.float64]] = {}
        self._rows: dict[str, int] = {}
        self._fault: Exception | None = None

    def watch(self, pointer: int, ask: bool, _data: object) -> bool:
        """Say which operations llama.cpp is to stop after, and read them there; no exception may leave this."""
        try:
            name = self._products.weight(pointer)
            if name is not None and name.endswith(".weight"):
                if not ask:
                    self._add(name, self._products.inputs(pointer))
                return True
        except Exception as error:
            self._fault = error
        return self._fault is None and not ask

    def _add(self, name: str, inputs: npt.NDArray[np.float32]) -> None:
        squares = np.einsum("rc,rc->c", inputs, inputs, dtype=np.float64)
        self._squares[name] = self._squares.get(name, 0.0) + squares
        self._rows[name] = self._rows.get(name, 0) + len(inputs)

    def means(self) -> dict[str, npt.NDArray[np.float32]]:
        """The matrix: for each weight the mean square of every input column.

        Raises:
            BackendError: something could not be read, or is not finite.
        """
        if self._fault is not None:
            raise self._fault
        means = {name: (squares / self._rows[name]).astype(np.float32) for name, squares in self._squares.items()}
        wrong = next((name for name, mean in means.items() if not np.isfinite(mean).all()), None)
        if wrong or not means:
            raise BackendError(f"the inputs of {wrong!r} are not finite" if wrong else "it has no matrix products")
        return means


def collect(path: Path, calibration: str, threads: int) -> dict[str, npt.NDArray[np.float32]]:
    """Compute `calibration` with the model of `path`, from an empty context every `CHUNK` tokens.

    Raises:
        CodellmError: llama.cpp cannot load or compute it, or the text has no tokens.
    """
    with contextlib.ExitStack() as stack:
        model = open_native(stack, path, repack=False, mmap=True)
        tokenizer = LlamaTokenizer(model)
        ids = tokenizer.encode(calibration)[:TOKENS]
        if not ids:
            raise BackendError("the calibration text is empty")
        start = [tokenizer.bos] if tokenizer.add_bos and tokenizer.bos is not None else []
        size = min(CHUNK, model.trained_context) - len(start)
        shape = ContextShape(context_length=CHUNK, slots=1, chunk=CHUNK, outputs=CHUNK, threads=threads)
        sums = Sums(Products(model.lib))
        context = open_context(stack, model, shape, sums.watch)
        for at in range(0, len(ids), size):
            _compute(context, np.array(start + ids[at : at + size], np.int32))
            sys.stdout.write(f"{min(at + size, len(ids))} {len(ids)}\n")
            sys.stdout.flush()
        return sums.means()


def _compute(context: NativeContext, ids: npt.NDArray[np.int32]) -> None:
    """Compute all logits: the last layer computes only the rows that somebody wants."""
    context.clear()
    rows = len(ids)
    context.tokens[:rows] = ids
    context.positions[:rows] = np.arange(rows)
    context.slots[:rows] = 0
    context.wanted[:rows] = 1
    context.decode(rows)


def main() -> int:
    """Write the matrix that the command line asks for → exit code."""
    source, calibration, destination, threads = sys.argv[1:]
    end_with_parent(Path(destination))
    try:
        means = collect(Path(source), Path(calibration).read_text("utf-8"), int(threads))
        with Path(destination).open("wb") as file:
            np.savez(file, allow_pickle=False, **means)
    except (CodellmError, OSError) as error:
        sys.stdout.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
