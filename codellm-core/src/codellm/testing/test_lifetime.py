"""Lifetime: one run at a time, streams that are dropped, and what `close` gives back."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import pytest

from codellm.errors import ModelBusyError, ModelClosedError
from codellm.model import Memory, Model
from codellm.sampling import SamplingParams
from codellm.sequence import Sequence
from codellm.system.machine import resident_memory
from codellm.testing.running import PROMPTS, drive, error_of, sequence, steps, told
from codellm.testing.subject import Subject

USES: dict[str, Callable[[Model, list[int]], object]] = {
    "run": lambda model, ids: drive(model, [sequence(model, ids)]),
    "score": lambda model, ids: model.score([ids]),
    "logits": lambda model, ids: model.logits(ids),
}
_TELLING = 64 << 20
"""A leak of so many bytes stands out from what an allocator keeps."""


def still_generates(model: Model, after: str) -> None:
    """See that `model` is free and works."""
    __tracebackhide__ = True
    error = error_of(lambda: model.generate(PROMPTS[1], SamplingParams(max_tokens=4, ignore_eos=True)))
    assert error is None, (
        f"after {after} the model gave {told(error)}: `with self.claim():` in run() frees it however the run ends."
    )


@pytest.mark.parametrize("use", ["run", "score"])
def test_a_second_use_is_refused(fresh: Model, use: str) -> None:
    """While a run goes on a second `run` or `score` raises ModelBusyError, and the first goes on."""
    first = sequence(fresh, PROMPTS[0], max_tokens=100)
    running = steps(fresh, [first])
    next(running)
    error = error_of(lambda: USES[use](fresh, first.prompt_ids))
    assert isinstance(error, ModelBusyError), (
        f"{use}() beside a run gave {told(error)}. Do the work of run and score inside `with self.claim():`."
    )
    error = error_of(lambda: next(running))
    assert error is None, f"after the refusal the first run gave {told(error)}: refusing must not disturb it."
    running.close()


@pytest.mark.parametrize("how", ["dropped", "closed"])
def test_a_stream_left_frees_the_model(fresh: Model, how: str) -> None:
    """Dropping or closing a stream ends its run, and the next one may begin."""
    stream = fresh.stream(PROMPTS[0], SamplingParams(max_tokens=100, ignore_eos=True))
    next(stream)
    if how == "closed":
        stream.close()
    del stream
    gc.collect()
    still_generates(fresh, f"a stream was {how}")


def test_an_iterable_that_raises_frees_the_model(fresh: Model) -> None:
    """An error of the iterable itself leaves `run` as it is, and the model is free."""

    class GoneError(Exception):
        pass

    def failing() -> Iterator[Sequence]:
        yield sequence(fresh, PROMPTS[0], max_tokens=1)
        raise GoneError("the client went away")

    error = error_of(lambda: drive(fresh, failing()))
    assert isinstance(error, GoneError), f"an error of the iterable came out of run() as {told(error)}."
    still_generates(fresh, "its iterable raised")


def test_close_may_be_called_twice(fresh: Model) -> None:
    """`close` is idempotent: a `with` block around an explicit close is no error."""
    fresh.close()
    error = error_of(fresh.close)
    assert error is None, f"the second close() raised {told(error)}."


@pytest.mark.parametrize("use", list(USES))
def test_a_closed_model_says_so(fresh: Model, use: str) -> None:
    """Using a model after `close` raises ModelClosedError, and touches nothing that was freed."""
    ids = fresh.tokenizer.encode(PROMPTS[0])
    fresh.close()
    error = error_of(lambda: USES[use](fresh, ids))
    assert isinstance(error, ModelClosedError), (
        f"{use}() of a closed model gave {told(error)}. `with self.claim():` raises the right error, if close() calls "
        "super().close()."
    )


def test_memory_is_counted(model: Model) -> None:
    """`memory` says what is in use now and was at the peak: no less than now, and nothing negative."""
    memory = model.memory()
    assert isinstance(memory, Memory), f"memory() returned {memory!r}, not a Memory."
    assert memory.host_peak >= memory.host > 0, (
        f"the host's bytes, {memory.host}, exceed their peak or are not counted: {memory}."
    )
    assert memory.device_peak >= memory.device >= 0, (
        f"the device's bytes, {memory.device}, exceed their peak: {memory}."
    )


def test_memory_returns_after_close(subject: Subject, single: Model) -> None:
    """`close` frees the weights: loading again and again takes no more memory, on host and device."""
    size = max(1, single.info.weight_bytes)
    cycles = max(3, -(-_TELLING // size))
    if cycles > 16:
        pytest.skip(f"{size} bytes of weights are too few to tell a leak from noise")
    device = [use_once(subject)]  # what a library sets up once counts before
    before = resident_memory()
    device += [use_once(subject) for _ in range(cycles)]
    growth = (resident_memory() - before) / cycles
    assert growth < size / 2, (
        f"each of {cycles} loads left {growth / 2**20:.1f} MiB behind, of {size / 2**20:.1f} MiB of weights: close() "
        "must free what load() took. Look for references from caches, closures and native handles."
    )
    assert device[-1] - device[0] < size / 2, (
        f"{device[0]} bytes of device memory were in use at the first load and {device[-1]} at the last: close() must "
        "free them."
    )


def use_once(subject: Subject) -> int:
    """Load, generate, close → the bytes of device memory before closing."""
    model = subject.load()
    try:
        model.generate(PROMPTS[0], SamplingParams(max_tokens=2, ignore_eos=True))
        return model.memory().device
    finally:
        model.close()
        del model
        gc.collect()
