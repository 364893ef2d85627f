"""What one HTTP request asked of a model: its sequences, and the way of their events to whoever waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from collections.abc import Sequence as Seq

from codellm.generation import Event
from codellm.sequence import Sequence


class Job:
    """The sequences of one request. Made in the event loop that waits for it; `post` may be called by any thread."""

    def __init__(self, sequences: Seq[Sequence]) -> None:
        self.sequences = tuple(sequences)
        self.arrived = time.perf_counter()
        """When it was asked for, in seconds."""
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event | Exception] = asyncio.Queue()

    def post(self, item: Event | Exception) -> None:
        """Hand over what happened: an event of a sequence, or an error that ends them all."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._events.put_nowait, item)

    async def events(self) -> AsyncGenerator[Event, None]:
        """What happens, until every sequence has its result.

        Raises:
            Exception: the error of a sequence, which is that of the request, or what `post` was given.
        """
        left = len(self.sequences)
        while left:
            item = await self._events.get()
            if isinstance(item, Exception):
                raise item
            if item.result is not None:
                left -= 1
                if item.result.error is not None:
                    raise item.result.error
            yield item
