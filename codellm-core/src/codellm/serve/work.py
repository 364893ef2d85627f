"""What is done on a model between two runs: that of which no sequence is made."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import Generic, TypeVar

from codellm.model import Model

T = TypeVar("T")


class Work(Generic[T]):
    """Something to be done on a model, and whoever waits for what it gives. Any thread may call `fail`."""

    def __init__(self, do: Callable[[Model], T]) -> None:
        self._do = do
        self._future: Future[T] = Future()

    def perform(self, model: Model) -> None:
        """Do it, in the thread that owns the model; what it raises is told to whoever waits."""
        try:
            result = self._do(model)
        except Exception as error:
            self.fail(error)
        else:
            with contextlib.suppress(InvalidStateError):  # nobody waits any more
                self._future.set_result(result)

    def fail(self, error: Exception) -> None:
        """Have nobody wait any longer, unless it is done."""
        with contextlib.suppress(InvalidStateError):
            self._future.set_exception(error)

    async def result(self) -> T:
        """What it gives, once it is done.

        Raises:
            Exception: what it raised, or what `fail` was given.
        """
        return await asyncio.wrap_future(self._future)
