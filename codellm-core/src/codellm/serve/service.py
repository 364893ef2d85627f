"""A loaded model as the endpoints see it: prompts to jobs, and jobs to results or pieces."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from collections.abc import Sequence as Seq
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from codellm.generation import Event, new_sequence
from codellm.plugins.guard import closing
from codellm.sampling import SamplingParams
from codellm.sequence import Sequence
from codellm.serve.engine import Engine
from codellm.serve.job import Job

T = TypeVar("T")

Prompt = str | list[int]

_CLOSE_SECONDS = 10.0
"""What the last step of an engine may take once it is to end."""


class Service:
    """A model under the name that clients call it by."""

    def __init__(self, name: str, engine: Engine) -> None:
        self.name, self.engine = name, engine
        self.model = engine.model
        # one thread, since nobody promises that a tokenizer encodes for two at a time; a long prompt takes a while
        self._encoder = ThreadPoolExecutor(1, "codellm-encoder")

    async def encoded(self, work: Callable[[], T]) -> T:
        """Do what takes the tokenizer, beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._encoder, work)

    async def submit(self, prompts: Seq[Prompt], params: SamplingParams, n: int = 1) -> Job:
        """Queue `n` samples of each prompt; those of the first come first.

        Raises:
            CodellmError: a prompt is none, or the queue is full.
        """
        job = Job(await self.encoded(lambda: self._sequences(prompts, params, n)))
        self.engine.submit(job)
        return job

    def _sequences(self, prompts: Seq[Prompt], params: SamplingParams, n: int) -> list[Sequence]:
        found: list[Sequence] = []
        samples: Counter[tuple[int, ...]] = Counter()
        for prompt in prompts:
            ids = new_sequence(self.model, prompt, params).prompt_ids
            key = tuple(ids)
            for _ in range(n):
                found.append(Sequence(index=samples[key], prompt_ids=list(ids), params=params))
                samples[key] += 1
        return found

    def close(self) -> None:
        """End the threads, after the engine was stopped, and close the model if nothing computes with it any more."""
        self._encoder.shutdown(wait=False, cancel_futures=True)
        if self.engine.join(_CLOSE_SECONDS):
            with closing(self.model.info.backend):
                self.model.close()


@asynccontextmanager
async def listening(request: Request, engine: Engine, job: Job) -> AsyncIterator[AsyncGenerator[Event, None]]:
    """The events of a job for as long as its client listens; whatever ends the block frees its slots.

    Raises:
        ClientDisconnect: the client hung up.
    """

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        engine.cancel(job)
        job.post(ClientDisconnect())

    watcher = asyncio.create_task(watch())
    try:
        async with aclosing(job.events()) as events:
            yield events
    finally:
        watcher.cancel()
        engine.cancel(job)
