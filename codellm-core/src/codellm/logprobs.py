"""Log-probabilities that a request asks for: whether a backend told them, and told such as can be."""

from __future__ import annotations

from codellm.errors import BackendError
from codellm.plugins.guard import GENERATE, breach, named
from codellm.result import TokenLogprobs
from codellm.sequence import Token

ROUNDING = 1e-3
"""Nats above 0 that a log-probability may have by rounding."""


def told(token: Token, backend: str, vocab_size: int) -> TokenLogprobs:
    """What `token` tells of its position, for a sequence that asks for it.

    Raises:
        BackendError: its backend told nothing, or what no log-probabilities are; names it.
    """
    asked, top = token.sequence.params.logprobs or 0, token.top
    if token.logprob is None or top is None:
        raise BackendError(
            f"{named(backend)} tells no log-probabilities, and this request asks for them: ask without `logprobs`, or "
            "take another backend"
        )
    count = min(asked, vocab_size)
    if len(top) != count:
        raise breach(
            backend, f"its run told {len(top)} of the likeliest tokens, where {count} were asked for", GENERATE
        )
    if not all(type(id) is int and 0 <= id < vocab_size and logprob <= ROUNDING for id, logprob in top):
        raise breach(backend, "its run told of the likeliest tokens what are no ids and log-probabilities", GENERATE)
    return TokenLogprobs(token.id, token.logprob, tuple(top))
