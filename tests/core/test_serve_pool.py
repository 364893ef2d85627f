"""The models of a server: which is loaded when, which goes, and what becomes of those who wait."""

import asyncio
import gc
import threading
import weakref

import pytest

from codellm.errors import ModelFileError, NotEnoughMemoryError, StoppingError
from codellm.sampling import SamplingParams
from codellm.serve.pool import Pool
from codellm.serve.refusal import Refusal
from support.script_model import ScriptModel

ENDLESS = SamplingParams(max_tokens=10**6, ignore_eos=True)


class Machine:
    """Loads models by name into memory for so many of them; where `gate` is given, when it is set."""

    def __init__(self, room=10):
        self.room, self.loads, self.closed, self.gate = room, [], [], None
        self.faults = {}
        self.live = 0

    def load(self, name):
        def load():
            self.loads.append(name)
            if self.gate is not None:
                assert self.gate.wait(60)
            if self.faults.get(name):
                raise self.faults[name].pop()
            if self.live >= self.room:
                raise NotEnoughMemoryError(f"{name} needs 2.0 GB of memory, and 1.0 are free")
            self.live += 1
            return Counted(name, self)

        return load


class Counted(ScriptModel):
    def __init__(self, name, machine):
        super().__init__(name, context=10**7)
        self.name, self.machine = name, machine

    def close(self):
        super().close()
        self.machine.live -= 1
        self.machine.closed.append(self.name)


def on(machine, story, names="ab", **options):
    """Run a story beside a pool; what the pool says goes to `log`."""
    log = []

    async def told():
        pool = Pool({name: machine.load(name) for name in names}, 4, log.append, **options)
        try:
            pool.start()
            return await story(pool)
        finally:
            pool.abort()
            await asyncio.to_thread(pool.close)

    result = asyncio.run(told())
    assert machine.live == 0
    return result, log


async def ask(pool, name, params=None):
    async with pool.service(name) as service:
        job = await service.submit(["x"], params or SamplingParams())
        return "".join([event.text async for event in job.events()])


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


def states(pool):
    return [entry.state for entry in pool.entries]


def test_each_is_loaded_when_it_is_named_and_the_first_where_nothing_is():
    machine = Machine()

    async def story(pool):
        assert states(pool) == ["unloaded", "unloaded"]
        assert [await ask(pool, name) for name in ("b", "", "b", "a")] == ["b", "a", "b", "a"]
        assert states(pool) == ["loaded", "loaded"]

    _, log = on(machine, story)
    assert machine.loads == ["b", "a"]
    assert [line.split()[2] for line in log] == ["b", "a"]


def test_another_name_is_refused_with_those_there_are():
    async def story(pool):
        with pytest.raises(Refusal, match="this server has 'a', 'b'") as caught:
            await ask(pool, "c")
        assert (caught.value.status, caught.value.param) == (404, "model")

    on(Machine(), story)


def test_those_who_ask_while_it_loads_wait_for_the_one_load():
    machine = Machine()
    machine.gate = threading.Event()

    async def story(pool):
        asked = [asyncio.create_task(ask(pool, "a")) for _ in range(3)]
        await until(lambda: machine.loads)
        assert states(pool)[0] == "loading"
        machine.gate.set()
        assert await asyncio.gather(*asked) == ["a"] * 3

    on(machine, story)
    assert machine.loads == ["a"]


def test_whoever_gives_up_waiting_takes_nothing_from_the_others():
    machine = Machine()
    machine.gate = threading.Event()

    async def story(pool):
        gone, stays = (asyncio.create_task(ask(pool, "a")) for _ in range(2))
        await until(lambda: machine.loads)
        gone.cancel()
        await asyncio.wait([gone])
        machine.gate.set()
        assert await stays == "a"

    on(machine, story)
    assert machine.loads == ["a"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ModelFileError("a.gguf is cut short"), "a cannot be loaded: a.gguf is cut short"),
        (OSError("no disk"), "no disk"),
    ],
)
def test_a_load_that_fails_is_told_to_all_who_wait_and_the_next_tries_again(error, said):
    machine = Machine()
    machine.gate, machine.faults = threading.Event(), {"a": [error]}

    async def story(pool):
        asked = [asyncio.create_task(ask(pool, "a")) for _ in range(2)]
        await until(lambda: machine.loads)
        machine.gate.set()
        for one in await asyncio.gather(*asked, return_exceptions=True):
            assert said in str(one)
        assert await ask(pool, "a") == "a"

    _, log = on(machine, story)
    assert machine.loads == ["a", "a"]
    assert said in log[0]


def test_where_memory_is_short_those_go_that_were_idle_longest():
    machine = Machine(room=2)

    async def story(pool):
        for name in ("a", "b", "a", "c"):
            assert await ask(pool, name) == name
        assert states(pool) == ["loaded", "unloaded", "loaded"]
        assert await ask(pool, "b") == "b"
        assert machine.closed == ["b", "a"]

    _, log = on(machine, story, "abc")
    assert "codellm: unloaded b to make room for c" in log


def test_what_works_is_not_unloaded_and_who_finds_no_room_is_told_so():
    machine = Machine(room=1)

    async def story(pool):
        works = asyncio.create_task(ask(pool, "a", ENDLESS))
        await until(lambda: states(pool)[0] == "loaded")
        with pytest.raises(Refusal, match="b cannot be loaded now: b needs") as caught:
            await ask(pool, "b")
        assert (caught.value.status, caught.value.code) == (503, "not_enough_memory")
        assert not works.done()
        assert not machine.closed
        works.cancel()
        await asyncio.wait([works])
        assert await ask(pool, "b") == "b"

    on(machine, story)


@pytest.mark.parametrize("seconds", [0, 0.02])
def test_what_is_idle_is_unloaded_and_loaded_again(seconds):
    machine = Machine()

    async def story(pool):
        async with pool.service("a") as service:
            model = weakref.ref(service.model)
            await asyncio.sleep(3 * seconds)
            assert states(pool)[0] == "loaded"
            del service
        await until(lambda: machine.closed == ["a"])
        await until(lambda: states(pool)[0] == "unloaded")
        await asyncio.sleep(0.01)
        gc.collect()
        assert model() is None
        assert await ask(pool, "a") == "a"

    on(machine, story, keep_alive=seconds)
    assert machine.loads == ["a", "a"]


def test_what_was_held_from_the_start_is_unloaded_too():
    machine = Machine()

    async def story(pool):
        pool.hold("a", machine.load("a")())
        pool.start()
        await until(lambda: machine.closed == ["a"])

    on(machine, story, keep_alive=0)


def test_a_stop_ends_what_waits_for_a_model_and_closes_it():
    machine = Machine()
    machine.gate = threading.Event()

    async def story(pool):
        waits = asyncio.create_task(ask(pool, "a"))
        await until(lambda: machine.loads)
        pool.stop()
        with pytest.raises(StoppingError):
            await waits
        with pytest.raises(StoppingError):
            await ask(pool, "b")
        machine.gate.set()
        await until(lambda: machine.closed == ["a"])

    on(machine, story)
    assert machine.loads == ["a"]
