"""What a GGUF file takes of memory, told from its header: before llama.cpp has read a weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import attrs

from codellm.errors import NotEnoughMemoryError

if TYPE_CHECKING:
    from codellm.spec import LoadSpec
    from codellm_cpu.llama.header import Header

LEAST_CONTEXT = 256
"""Tokens of a sequence below which no model is loaded that was trained for more; llama.cpp rounds up to them."""

MOST_IDS = 256
"""Sequence ids of a context (llama-cparams.h, LLAMA_MAX_SEQ)."""


@attrs.frozen(kw_only=True)
class Need:
    """Bytes that must be in memory at once for a model to run at its speed.

    Repacked weights are a second copy and no second need: where memory is short the system drops the file's pages that
    they were made of. A mapped file (repack=off) would be read from disk again for every token where it does not fit.
    """

    weights: int
    cell: int
    """Keys and values of one token."""
    rest: int
    """Logits, what a chunk of prompt leaves between two layers, and what is kept of finished sequences."""

    @classmethod
    def of(cls, header: Header, *, chunk: int, outputs: int, kept: int = 0) -> Self:
        """Need of a model whose prompts come in chunks, with `outputs` rows of logits, that keeps `kept` bytes."""
        hidden, intermediate = (header.number(key) or 0 for key in ("embedding_length", "feed_forward_length"))
        embedding = header.tensors.get("token_embd.weight")
        vocabulary = embedding.shape[-1] if embedding is not None else 0
        return cls(
            weights=sum(tensor.size for tensor in header.tensors.values()),
            cell=cell_bytes(header),
            rest=2 * 4 * outputs * vocabulary + 4 * chunk * (intermediate + 8 * hidden) + kept,
        )

    def context_bytes(self, context_length: int) -> int:
        """Bytes of the keys and values of a sequence; llama.cpp rounds its cells up."""
        return -(-context_length // LEAST_CONTEXT) * LEAST_CONTEXT * self.cell

    def spare(self, available: int, context_length: int, slots: int) -> int:
        """Bytes that nothing needs of nine tenths of `available`; below 0 where more is needed."""
        return available * 9 // 10 - self.weights - self.rest - slots * self.context_bytes(context_length)


def cell_bytes(header: Header) -> int:
    """Bytes of keys and values that one token takes in all layers, stored as float16."""
    layers, hidden = header.number("block_count") or 0, header.number("embedding_length") or 0
    heads = header.number("attention.head_count") or 1
    keys, values = (header.number(f"attention.{part}_length") or hidden // heads for part in ("key", "value"))
    return max(1, 2 * layers * (header.number("attention.head_count_kv") or heads) * (keys + values))


def fitting_context(name: str, header: Header, spec: LoadSpec, need: Need, available: int) -> int:
    """The most tokens of each of `spec`'s sequences that fit beside the weights in nine tenths of `available` bytes.

    Raises:
        NotEnoughMemoryError: the context that is asked for does not fit, or not even a short one; says what is needed.
    """
    free = available * 9 // 10
    fits = (free - need.weights - need.rest) // (spec.batch_size * need.cell) // LEAST_CONTEXT * LEAST_CONTEXT
    least = min(spec.context_length or LEAST_CONTEXT, header.number("context_length") or LEAST_CONTEXT)
    if fits < least:
        cells = spec.batch_size * -(-least // LEAST_CONTEXT) * LEAST_CONTEXT * need.cell
        raise NotEnoughMemoryError(
            f"{name} needs {(need.weights + cells + need.rest) / 1e9:.1f} GB of memory "
            f"({need.weights / 1e9:.1f} for weights, {cells / 1e9:.1f} for {spec.batch_size} x {least} tokens of "
            f"context), and {free / 1e9:.1f} are free; take a smaller context_length or batch_size, or a scheme of "
            "fewer bits"
        )
    return fits
