"""The decoding step, traced by TorchScript or compiled by Inductor.

Prompts are computed eagerly in either case: a chunk is a few large products of matrices, which neither makes faster.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import warnings
from collections.abc import Callable
from typing import cast

import torch
from torch import nn

from codellm.errors import BackendUnavailableError
from codellm.torch.cache import Cache
from codellm.torch.decoder import Decoder

Step = Callable[[torch.Tensor, torch.Tensor, Cache], torch.Tensor]
"""`tokens` [B] at positions [B] → logits [B, V] in float32, as `Decoder.decode`."""

SPAN = 256
"""Cells by which what a step looks at grows: a short sequence need not look at a whole context."""


def compiled(decoder: Decoder, cache: Cache) -> Step:
    """The step with its layer and its output compiled, now: one layer, since all are alike, for any span of cells.

    Raises:
        BackendUnavailableError: there is no compiler, or it fails.
    """
    twin = copy.copy(decoder)  # the same weights
    twin._modules = dict(decoder._modules)
    twin.layers = nn.ModuleList(cast(nn.Module, torch.compile(layer, fullgraph=True)) for layer in decoder.layers)
    twin.logits = torch.compile(decoder.logits, fullgraph=True)  # type: ignore[method-assign]
    tokens, positions = _blank(cache)
    cache = cache.view(0, len(tokens), cache.span(1, SPAN))
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore", DeprecationWarning)  # of Inductor's own use of torch.jit
            x, cos, sin, mask, cells = twin.inputs(tokens[:, None], positions[:, None], cache)
            keys, values = cache.keys[0], cache.values[0]
            for seen, dimension in ((mask, 3), (keys, 1), (values, 1)):
                torch._dynamo.maybe_mark_dynamic(seen, dimension)
            twin.logits(twin.layers[0](x, cos, sin, mask, cells, keys, values)[:, 0])
    except torch._dynamo.exc.BackendCompilerFailed as error:
        reason = str(error.inner_exception).strip().splitlines()[0]
        raise BackendUnavailableError(
            f"Inductor cannot compile here ({reason}); install a C++ compiler and Python's headers, or choose another "
            "mode"
        ) from error
    return twin.decode


def traced(decoder: Decoder, cache: Cache) -> Step:
    """The step as a frozen TorchScript trace: its weights are constants of the graph, shared with `decoder`."""
    with warnings.catch_warnings(), torch.no_grad():
        # TorchScript is deprecated; the study measured it, so it stays a row as long as torch has it
        warnings.filterwarnings("ignore", r".*torch\.jit", DeprecationWarning)
        # that a step has one token is a constant of the trace, and may be
        warnings.filterwarnings("ignore", "Converting a tensor to a Python boolean", torch.jit._trace.TracerWarning)
        trace = torch.jit.trace(  # type: ignore[no-untyped-call]
            Flat(decoder, cache).eval(),
            (*_blank(cache), cache.keys, cache.values),
            check_trace=False,
            _store_inputs=False,
        )
        frozen = torch.jit.freeze(trace)

    def step(tokens: torch.Tensor, positions: torch.Tensor, cache: Cache) -> torch.Tensor:
        logits: torch.Tensor = frozen(tokens, positions, cache.keys, cache.values)
        return logits

    return step


def forget(decoder: Decoder, cache: Cache) -> None:
    """Free the memory of a traced decoder, which cannot be used after it.

    TorchScript keeps what it traced, with the weights as its constants, for as long as the process lives: so the
    weights themselves are taken from it, and what stays is the graph, about 2 MB a layer.
    """
    for values in (*decoder.parameters(), *cache.keys, *cache.values):
        values.untyped_storage().resize_(0)
    # The graph lies above the weights in the C library's heap, which would keep what is free below it. Python has no
    # call for that, and no other C library than glibc has it (malloc_trim(3)).
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


class Flat(nn.Module):
    """`Decoder.decode` with tensors, and lists of them, for all its arguments."""

    def __init__(self, decoder: Decoder, cache: Cache) -> None:
        super().__init__()
        self.decoder = decoder
        self.window, self.ring = cache.window, cache.ring

    def forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, keys: list[torch.Tensor], values: list[torch.Tensor]
    ) -> torch.Tensor:
        """`tokens` and `positions` [B], keys and values of each layer [B, R, KV, D] → [B, V]."""
        return self.decoder.decode(tokens, positions, Cache(keys, values, self.window, self.ring))


def _blank(cache: Cache) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and positions of a step that nobody needs: [B] each."""
    blank = torch.zeros(len(cache.keys[0]), dtype=torch.long, device=cache.keys[0].device)
    return blank, blank
