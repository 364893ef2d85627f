"""The models of one server: each is loaded when a request names it, and unloaded when it is idle or in the way."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from http import HTTPStatus
from typing import Any, TypeVar

from codellm.errors import CodellmError, NotEnoughMemoryError, StoppingError, message
from codellm.model import Model
from codellm.serve.engine import Engine
from codellm.serve.refusal import Refusal
from codellm.serve.service import Service
from codellm.serve.tally import Tally

T = TypeVar("T")

Load = Callable[[], Model]
"""Loads a model, in a thread of its own.

Raises:
    NotEnoughMemoryError: it does not fit beside what is loaded.
    CodellmError: it cannot be loaded at all.
"""


class Entry:
    """A model that clients may name, loaded or not. All but `load` is the event loop's."""

    def __init__(self, name: str, load: Load) -> None:
        self.name, self.load = name, load
        self.service: Service | None = None
        """None while it is not loaded."""
        self.loading: asyncio.Future[Service] | None = None
        """What requests wait for while it is being loaded."""
        self.users = 0
        """Requests that are being answered, or wait for it."""
        self.used = time.monotonic()
        """When the last of them ended, in seconds."""
        self.tally = Tally()
        self.loads = self.load_failures = self.unloads = 0
        """How often it was loaded, could not be, and was unloaded again."""

    @property
    def idle(self) -> bool:
        """Whether it is loaded for nobody."""
        return self.service is not None and not self.users

    @property
    def counts(self) -> tuple[int, int]:
        """How many sequences run on it, and how many wait."""
        return (0, 0) if self.service is None else self.service.engine.counts()

    @property
    def state(self) -> str:
        """A word for it: loaded, loading or unloaded."""
        return "loaded" if self.service is not None else "unloaded" if self.loading is None else "loading"


class Pool:
    """Models by the names that clients call them by, the first of which is meant where they say none.

    `capacity` is how many sequences may wait for a slot of each. A model that nobody used for `keep_alive` seconds is
    unloaded; None keeps it while memory lasts. `log` is told what is loaded and unloaded.
    """

    def __init__(
        self, loads: Mapping[str, Load], capacity: int, log: Callable[[str], None], keep_alive: float | None = None
    ) -> None:
        self.created = int(time.time())
        self._entries = {name: Entry(name, load) for name, load in loads.items()}
        self._capacity, self._log, self._keep_alive = capacity, log, keep_alive
        self._changing = asyncio.Lock()  # one load or unload at a time: each counts on the memory that it finds
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    @property
    def entries(self) -> Iterable[Entry]:
        """Every model, in the order that they were given in."""
        return self._entries.values()

    def hold(self, name: str, model: Model) -> Service:
        """Take a model of the pool that is loaded."""
        entry = self._entries[name]
        engine = Engine(model, self._capacity, entry.tally)
        engine.start()
        entry.loads += 1
        entry.service, entry.used = Service(name, engine), time.monotonic()
        return entry.service

    def start(self) -> None:
        """Begin to count how long what is held has been idle; called in the event loop that the rest runs in."""
        for entry in self.entries:
            self._watch(entry)

    @contextlib.asynccontextmanager
    async def service(self, name: str) -> AsyncIterator[Service]:
        """The model of a name, loaded, or the first where the name is empty; it stays while the block lasts.

        Raises:
            Refusal: there is no such model, or it cannot be loaded, now or at all.
            StoppingError: the server stops.
        """
        entry = self._entry(name)
        entry.users += 1
        try:
            yield await self._loaded(entry)
        finally:
            entry.users -= 1
            entry.used = time.monotonic()
            self._watch(entry)

    def stop(self) -> None:
        """Take no more requests, and end what waits for a model; what runs is finished."""
        self._stopping = True
        for entry in self.entries:
            if entry.service is not None:
                entry.service.engine.stop()
            if entry.loading is not None and not entry.loading.done():
                entry.loading.set_exception(_stopping())

    def abort(self) -> None:
        """Stop, and end every request that is not done with an error."""
        self.stop()
        for entry in self.entries:
            if entry.service is not None:
                entry.service.engine.abort()

    def close(self) -> None:
        """Close every model, after `abort`."""
        for entry in self.entries:
            if entry.service is not None:
                entry.service.close()
                entry.service = None

    def _entry(self, name: str) -> Entry:
        if not name:
            return next(iter(self.entries))
        if name not in self._entries:
            known = ", ".join(map(repr, self._entries))
            text = f"no such model here: this server has {known}"
            raise Refusal(HTTPStatus.NOT_FOUND, text, code="model_not_found", param="model")
        return self._entries[name]

    async def _loaded(self, entry: Entry) -> Service:
        if self._stopping:
            raise _stopping()
        if entry.service is not None:
            return entry.service
        if entry.loading is None:
            entry.loading = asyncio.get_running_loop().create_future()
            self._spawn(self._load(entry, entry.loading))
        return await asyncio.shield(entry.loading)  # it is that of others too

    async def _load(self, entry: Entry, loading: asyncio.Future[Service]) -> None:
        """Load a model, and let `loading` be its service, or why it has none."""
        try:
            async with self._changing:
                model = await self._fitted(entry)
                if loading.done():  # the server stops
                    await aside(model.close)
                else:
                    loading.set_result(self.hold(entry.name, model))
        except Exception as error:
            entry.load_failures += 1
            self._log(f"codellm: {entry.name} is not loaded: {message(error)}")
            if not loading.done():
                loading.set_exception(error)
            loading.exception()  # seen, should nobody wait any more
        finally:
            entry.loading = None

    async def _fitted(self, entry: Entry) -> Model:
        """Load a model; where it does not fit, idle ones go until it does, least recently used first.

        Raises:
            Refusal: it does not fit beside those that work, or fails.
        """
        began = time.monotonic()
        while True:
            try:
                model = await aside(entry.load)
            except NotEnoughMemoryError as error:
                idle = min((one for one in self.entries if one.idle), key=lambda one: one.used, default=None)
                if idle is None:
                    text = f"{entry.name} cannot be loaded now: {message(error)}"
                    raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, text, code="not_enough_memory") from error
                await self._unload(idle, f"to make room for {entry.name}")
            except CodellmError as error:
                text = f"{entry.name} cannot be loaded: {message(error)}"
                raise Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, text, code="model_not_loaded") from error
            else:
                self._log(f"codellm: loaded {entry.name} in {time.monotonic() - began:.1f} s ({described(model)})")
                return model

    async def _unload(self, entry: Entry, why: str) -> None:
        """Unload an idle model, whose next request loads it again."""
        service, entry.service = entry.service, None
        if service is not None:
            entry.unloads += 1
            service.engine.abort()  # whoever hung up may run for two steps more
            await aside(service.close)
            self._log(f"codellm: unloaded {entry.name} {why}")

    def _watch(self, entry: Entry) -> None:
        """Look at an idle model again once it may be unloaded."""
        if self._keep_alive is not None and entry.idle and not self._stopping:
            used, loop = entry.used, asyncio.get_running_loop()
            loop.call_later(self._keep_alive, lambda: self._spawn(self._retire(entry, used)))

    async def _retire(self, entry: Entry, used: float) -> None:
        """Unload a model that nobody used meanwhile."""
        async with self._changing:
            if entry.idle and entry.used == used and not self._stopping:
                await self._unload(entry, f"after {self._keep_alive:g} s of idleness")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Let `work` be done, whoever asked for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # the loop alone would forget it
        task.add_done_callback(self._tasks.discard)


def described(model: Model) -> str:
    """How a model runs, in a few words."""
    info = model.info
    together = "1 sequence" if info.batch_size == 1 else f"{info.batch_size} sequences together"
    kept = "" if info.prefix_cache is None else f", prefixes kept there and in {info.prefix_cache >> 20} MiB more"
    return f"{info.backend}, {info.scheme}, {info.context_length} tokens, {together}{kept}"


async def aside(work: Callable[[], T]) -> T:
    """Do what takes long in a thread of its own, which keeps no process from ending."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def give(result: T | None, error: BaseException | None) -> None:
        if not done.done():
            done.set_exception(error) if error is not None else done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(give, result, error)

    threading.Thread(target=run, name="codellm-loader", daemon=True).start()
    return await done


def _stopping() -> StoppingError:
    return StoppingError("the server is stopping; ask again later")
