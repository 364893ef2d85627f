"""What codellm finds: hooks that only point to the rest."""

from __future__ import annotations

from codellm import Artifact, Backend, QuantizeRequest, Scheme, hookimpl


@hookimpl
def codellm_backends() -> list[Backend]:
    """The n-gram backend."""
    from codellm_ngram.backend import NgramBackend

    return [NgramBackend()]


@hookimpl
def codellm_schemes() -> list[Scheme]:
    """The scheme that this package writes."""
    from codellm_ngram.backend import SCHEME

    return [SCHEME]


@hookimpl
def codellm_quantize(request: QuantizeRequest) -> Artifact | None:
    """Write it."""
    from codellm_ngram.file import quantize

    return quantize(request)
