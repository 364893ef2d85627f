"""Load of a GGUF file in a process that may die of it.

`python -m codellm_cpu.llama.probe_child PATH`

Exit code 0: the file loads, computes and tokenizes. 3: it does not, and the last line printed says why. A signal is
llama.cpp's end, and any other code means that the file was not tried. Nothing is written and little memory taken,
whatever the file says: the weights stay mapped.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import numpy as np

from codellm.errors import CodellmError
from codellm.sources.regular import shown
from codellm.system import child
from codellm.system.machine import default_threads
from codellm_cpu.llama.library import ContextShape, NativeContext, open_context, open_native
from codellm_cpu.llama.tokenizer import LlamaTokenizer

REFUSED = 3
"""Exit code of a verdict: Python ends with 1 where something is wrong that has nothing to do with the file."""

MEMORY = 2 << 30
"""Bytes of memory of its own that the process may have: many times what one token of the largest models takes."""

_LEADING = (*range(0x80, 0x800, 64), *range(0x800, 0xD800, 2048), 0xE000, 0xF000, *range(1 << 16, 0x110000, 1 << 16))
TEXT = "".join(map(chr, (*range(0xC0), *_LEADING))) + "  \n\n\t\t\r\n\r\n  x"
"""Every byte that valid UTF-8 has: llama.cpp's tokenizers look bytes up, and some end the process on a missing one.
One (`whitespace`) with a vocabulary of bytes ends it on two blanks."""


def main() -> int:
    """Probe the file that the command line names."""
    child.end_with_parent(None)
    child.limit(MEMORY)
    path = Path(sys.argv[1])
    try:
        with contextlib.ExitStack() as stack:
            fault = _fault(stack, path)
    except CodellmError as error:
        fault = str(error).removeprefix(f"{path}: ")
    sys.stdout.buffer.write(shown(fault).encode())
    return REFUSED if fault else 0


def _fault(stack: contextlib.ExitStack, path: Path) -> str:
    """What is wrong with a file that llama.cpp has loaded.

    Raises:
        CodellmError: llama.cpp refuses to load it or to compute.
    """
    model = open_native(stack, path, repack=False, mmap=True)
    tokenizer = LlamaTokenizer(model)
    ids = tokenizer.encode(TEXT)
    tokenizer.decode(range(tokenizer.vocab_size))
    if not ids:
        return "its vocabulary has no token for any text"
    if not 0 <= min(ids) <= max(ids) < tokenizer.vocab_size:
        return "its vocabulary makes ids that it does not have"
    shape = ContextShape(context_length=64, slots=1, chunk=8, outputs=1, threads=min(8, default_threads()))
    return _compute(open_context(stack, model, shape), ids[0])


def _compute(context: NativeContext, id: int) -> str:
    """Compute one token, which reads every weight once → what is wrong with its logits."""
    logits = context.prefill(0, np.array([id], np.int32), 0, 1, wanted=True)
    # minus infinity is how some models rule out a token
    if np.isnan(logits).any() or not np.isfinite(logits.max()):
        return "it computes NaN or infinite logits; its weights are damaged"
    return ""


if __name__ == "__main__":
    sys.exit(main())
