"""Backends that each break one contract of the sound one, so that each check of the conformance kit has one to fail.

A module for each part of the kit; this one is the plugin that brings them all.
"""

from __future__ import annotations

from codellm import hookimpl
from support.broken import batching, endings, lifetime, loading, sampling, scoring, tokens
from support.broken.fault import BROKEN, FAILS
from support.sound_backend import SoundBackend

__all__ = ["BROKEN", "FAILS", "batching", "endings", "lifetime", "loading", "sampling", "scoring", "tokens"]


@hookimpl
def codellm_backends() -> list[SoundBackend]:
    return [SoundBackend(), *BROKEN.values()]
