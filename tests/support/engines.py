"""Engines that do something else than the one that they stand before."""

from __future__ import annotations

from typing import Any


class Wrapped:
    """What `engine` does, but for the methods that a subclass has."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)
