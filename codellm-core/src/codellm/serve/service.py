"""A loaded model as the endpoints see it: prompts to jobs, and jobs to results or pieces."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from collections.abc import Sequence as Seq
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from codellm.generation import Event, new_sequence
from codellm.model import Model
from codellm.plugins.guard import closing
from codellm.result import TokenLogprobs
from codellm.sampling import SamplingParams
from codellm.sequence import Sequence
from codellm.serve.engine import Engine
from codellm.serve.job import Job
from codellm.serve.work import Work

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
        job = Job(await self.sequences(prompts, params, n))
        self.engine.submit(job)
        return job

    async def sequences(self, prompts: Seq[Prompt], params: SamplingParams, n: int = 1) -> list[Sequence]:
        """`n` samples of each prompt, not queued yet.

        Raises:
            CodellmError: a prompt is none.
        """
        return await self.encoded(lambda: self._sequences(prompts, params, n))

    async def scored(self, request: Request, prompts: Seq[Seq[int]], top: int) -> list[list[TokenLogprobs]]:
        """What the model tells of each token of each prompt but the first, for as long as the client listens.

        Raises:
            ClientDisconnect: the client hung up.
            CodellmError: the queue is full, or the model failed.
        """
        works = [Work(functools.partial(_scored, ids=tuple(ids), top=top)) for ids in prompts]

        def hung_up() -> None:
            self.engine.give_up(works, ClientDisconnect())

        self.engine.perform(works)
        try:
            async with watching(request, hung_up):
                return [await work.result() for work in works]
        finally:
            self.engine.give_up(works, ClientDisconnect())

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

    def hung_up() -> None:
        engine.cancel(job)
        job.post(ClientDisconnect())

    try:
        async with watching(request, hung_up), aclosing(job.events()) as events:
            yield events
    finally:
        engine.cancel(job)


@asynccontextmanager
async def watching(request: Request, hung_up: Callable[[], None]) -> AsyncIterator[None]:
    """Call `hung_up` where the client hangs up before the block ends."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        hung_up()

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()


def _scored(model: Model, ids: Seq[int], top: int) -> list[TokenLogprobs]:
    from codellm.asking import prompt_logprobs

    return prompt_logprobs(model, ids, top)
