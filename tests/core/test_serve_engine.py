"""The thread that owns a model: what joins, leaves, fails and waits, without HTTP."""

import asyncio
import threading

import pytest
from starlette.requests import ClientDisconnect, Request

from codellm.errors import BackendError, QueueFullError, StoppingError
from codellm.generation import complete
from codellm.sampling import SamplingParams
from codellm.sequence import Sequence
from codellm.serve.engine import Engine
from codellm.serve.job import Job
from codellm.serve.service import Service
from codellm.serve.work import Work
from support.script_model import ScriptModel

ENDLESS = SamplingParams(max_tokens=10**6, ignore_eos=True)


class GatedModel(ScriptModel):
    """Computes a step for each permit."""

    def __init__(self, *arguments, **options) -> None:
        super().__init__(*arguments, **options)
        self.permits = threading.Semaphore(0)

    def step(self, sequence, samplers):
        self.permits.acquire()
        return super().step(sequence, samplers)


class BrokenModel(ScriptModel):
    """Its first run fails at once where the prompt is an exclamation mark; later ones are sound."""

    def step(self, sequence, samplers):
        if sequence.prompt_ids == [ord("!")]:
            raise RuntimeError("out of order")
        return super().step(sequence, samplers)


def sequence(text="x", params=None):
    return Sequence(prompt_ids=list(text.encode()), params=params or SamplingParams())


def on(model, story, capacity=4):
    """Run a story beside an engine."""

    async def told():
        engine = Engine(model, capacity)
        engine.start()
        try:
            return await story(engine)
        finally:
            engine.abort()
            if isinstance(model, GatedModel):
                model.permits.release(10**6)
            assert await asyncio.to_thread(engine.join, 60)

    return asyncio.run(told())


async def text(job):
    return "".join([event.text async for event in job.events()])


def job_of(engine, *sequences):
    job = Job(sequences)
    engine.submit(job)
    return job


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


def test_jobs_come_and_go_in_one_run():
    model = ScriptModel("né né")
    runs = []
    model.run = lambda sequences: (runs.append(1), ScriptModel.run(model, sequences))[1]

    async def story(engine):
        first = [await text(job_of(engine, sequence())) for _ in range(3)]
        together = await asyncio.gather(*(text(job_of(engine, sequence())) for _ in range(3)))
        return [*first, *together]

    assert on(model, story) == ["né né"] * 6
    assert len(runs) == 1


def test_the_error_of_a_sequence_is_that_of_its_request_alone():
    async def story(engine):
        sound, faulty = job_of(engine, sequence()), job_of(engine, sequence("\0"))
        with pytest.raises(ValueError, match="cannot read NUL"):
            await text(faulty)
        assert await text(sound) == "hello"
        assert await text(job_of(engine, sequence())) == "hello"

    on(ScriptModel(slots=2), story)


def test_a_run_that_fails_is_the_end_of_what_ran_and_the_next_is_sound():
    async def story(engine):
        with pytest.raises(BackendError, match="out of order"):
            await text(job_of(engine, sequence("!")))
        assert await text(job_of(engine, sequence())) == "hello"
        assert engine.counts() == (0, 0)

    on(BrokenModel(), story)


class EarlyModel(ScriptModel):
    """Ends its run in the way that the first run left of `ends` says; later ones are sound."""

    def __init__(self, *ends, **options):
        super().__init__(**options)
        self.ends = list(ends)

    def run(self, sequences):
        end = self.ends.pop(0) if self.ends else None
        if end == "at once":
            return
        for step, tokens in enumerate(super().run(sequences)):
            yield tokens
            if end == "after two" and step == 1:
                return


@pytest.mark.parametrize("end", ["at once", "after two"])
def test_a_run_that_ends_early_fails_its_requests_alone_and_the_next_run_anew(end):
    model = EarlyModel(end, end, slots=1)

    async def story(engine):
        jobs = [job_of(engine, sequence()) for _ in range(4)]
        told = await asyncio.gather(*(text(job) for job in jobs), return_exceptions=True)
        assert [str(one)[:16] for one in told[:2]] == ["backend 'script'"] * 2
        assert all("it ended its run" in str(one) for one in told[:2])
        assert told[2:] == ["hello"] * 2
        assert engine.counts() == (0, 0)

    on(model, story)


def test_a_model_that_runs_elsewhere_is_an_error_and_no_hang():
    model = ScriptModel()

    async def story(engine):
        with model.claim(), pytest.raises(Exception, match="already generates"):
            await text(job_of(engine, sequence()))
        assert await text(job_of(engine, sequence())) == "hello"

    on(model, story)


def test_whoever_hangs_up_frees_the_slot_within_two_steps():
    model = GatedModel("a" * 40, slots=1)

    async def story(engine):
        gone = job_of(engine, sequence(params=ENDLESS))
        model.permits.release(5)
        await until(lambda: len(gone.sequences[0].token_ids) == 5)
        engine.cancel(gone)
        next_one = job_of(engine, sequence())
        model.permits.release(2)
        await until(lambda: next_one.sequences[0].token_ids or model.steps > 7)
        assert len(gone.sequences[0].token_ids) == 5
        assert next_one.sequences[0].token_ids

    on(model, story)


def test_what_waits_and_is_given_up_never_runs():
    model = GatedModel(slots=1)

    async def story(engine):
        running, gone = job_of(engine, sequence()), job_of(engine, sequence(), sequence())
        await until(lambda: engine.counts() == (1, 2))
        engine.cancel(gone)
        assert engine.counts() == (1, 0)
        model.permits.release(100)
        assert await text(running) == "hello"
        assert not any(one.token_ids for one in gone.sequences)

    on(model, story)


def test_a_full_queue_refuses_all_of_a_job_or_none():
    async def story(engine):
        job_of(engine, sequence())
        await until(lambda: engine.counts() == (1, 0))
        large = job_of(engine, *(sequence() for _ in range(9)))  # more than it holds, but nothing waits
        with pytest.raises(QueueFullError):
            job_of(engine, sequence())
        engine.cancel(large)
        job_of(engine, *(sequence() for _ in range(3)))
        with pytest.raises(QueueFullError):
            job_of(engine, sequence(), sequence())
        assert engine.counts() == (1, 3)
        job_of(engine, sequence())

    on(GatedModel(slots=1), story, capacity=4)


def test_a_stop_finishes_what_was_taken_and_takes_no_more():
    model = GatedModel(slots=1)

    async def story(engine):
        jobs = [job_of(engine, sequence()) for _ in range(3)]
        engine.stop()
        with pytest.raises(StoppingError):
            job_of(engine, sequence())
        model.permits.release(100)
        assert [await text(job) for job in jobs] == ["hello"] * 3

    on(model, story)


def of_the_model(result="done"):
    """Work that needs the model for itself, as scoring does."""

    def do(model):
        with model.claim():
            return result

    return Work(do)


def test_work_waits_for_what_came_before_and_what_comes_after_waits_for_it():
    model = GatedModel(slots=2)

    async def story(engine):
        before = job_of(engine, sequence())
        await until(lambda: engine.counts() == (1, 0))
        work = of_the_model()
        engine.perform([work])
        after = job_of(engine, sequence())
        told = asyncio.create_task(work.result())
        model.permits.release(4)
        await until(lambda: len(before.sequences[0].token_ids) == 4)
        assert engine.counts() == (1, 2)  # a slot is free, and nothing joins
        assert not told.done()
        model.permits.release(2)
        assert await text(before) == "hello"
        assert await told == "done"
        assert not after.sequences[0].token_ids
        model.permits.release(6)
        assert await text(after) == "hello"

    on(model, story)


def test_neither_work_nor_sequences_starve():
    async def story(engine):
        done = []

        async def works():
            for number in range(20):
                work = of_the_model(number)
                engine.perform([work])
                done.append(await work.result())

        async def sequences():
            for _ in range(20):
                done.append(await text(job_of(engine, sequence())))

        await asyncio.gather(works(), works(), sequences(), sequences())
        assert done.count("hello") == 40
        assert sorted(one for one in done if one != "hello") == sorted([*range(20)] * 2)

    on(ScriptModel(slots=2), story)


def test_work_that_nobody_waits_for_is_not_done_and_holds_nobody_up():
    model, done = GatedModel(slots=2), []

    async def story(engine):
        first = job_of(engine, sequence())
        await until(lambda: engine.counts() == (1, 0))
        work = Work(done.append)
        engine.perform([work])
        second = job_of(engine, sequence())
        engine.give_up([work], RuntimeError("gone"))
        with pytest.raises(RuntimeError, match="gone"):
            await work.result()
        await until(lambda: (model.permits.release(), engine.counts())[1] == (2, 0))
        model.permits.release(100)
        assert [await text(job) for job in (first, second)] == ["hello"] * 2
        assert not done

    on(model, story)


def test_whoever_hangs_up_gives_up_what_is_told_of_a_prompt():
    model = GatedModel(slots=2)
    model.score = lambda _: pytest.fail("nobody wants it")

    async def story(engine):
        running = job_of(engine, sequence())
        await until(lambda: engine.counts() == (1, 0))
        gone = asyncio.Event()

        async def receive():
            await gone.wait()
            return {"type": "http.disconnect"}

        asked = asyncio.create_task(Service("x", engine).scored(Request({"type": "http"}, receive), [[1, 2]], 0))
        await until(lambda: engine.counts() == (1, 1))
        gone.set()
        with pytest.raises(ClientDisconnect):
            await asked
        assert engine.counts() == (1, 0)
        model.permits.release(100)
        assert await text(running) == "hello"

    on(model, story)


def test_work_that_fails_is_the_fault_of_its_request_alone():
    model = ScriptModel()

    async def story(engine):
        broken, sound = Work(lambda _: 1 / 0), of_the_model()
        engine.perform([broken, sound])
        with pytest.raises(ZeroDivisionError):
            await broken.result()
        assert await sound.result() == "done"
        assert await text(job_of(engine, sequence())) == "hello"

    on(model, story)


def test_work_is_refused_where_the_queue_is_full_or_the_server_stops():
    model = GatedModel(slots=1)

    async def story(engine):
        job_of(engine, sequence())
        await until(lambda: engine.counts() == (1, 0))
        waiting = [of_the_model() for _ in range(4)]
        engine.perform(waiting)
        for full in (lambda: engine.perform([of_the_model()]), lambda: job_of(engine, sequence())):
            with pytest.raises(QueueFullError):
                full()
        engine.stop()
        with pytest.raises(StoppingError):
            engine.perform([of_the_model()])
        engine.abort()
        for work in waiting:
            with pytest.raises(StoppingError):
                await work.result()

    on(model, story)


def test_a_stop_finishes_work_too():
    async def story(engine):
        works = [of_the_model(number) for number in range(3)]
        engine.perform(works)
        engine.stop()
        assert [await work.result() for work in works] == [0, 1, 2]

    on(ScriptModel(), story)


def test_an_abort_tells_all():
    async def story(engine):
        jobs = [job_of(engine, sequence()) for _ in range(3)]
        engine.abort()
        for job in jobs:
            with pytest.raises(StoppingError):
                await text(job)
        assert engine.counts() == (0, 0)

    on(GatedModel(slots=1), story)


def test_a_cancelled_sequence_has_a_result_that_says_so():
    model = ScriptModel("abc", slots=2)
    one, other = sequence(params=ENDLESS), sequence()
    results = {}
    for event in complete(model, [one, other]):
        if event.sequence is one and len(one.token_ids) == 2:
            one.cancel()
        if event.result is not None:
            results[event.sequence] = event.result
    assert (results[one].finish_reason, results[one].text) == ("cancelled", "ab")
    assert results[other].text == "abc"
