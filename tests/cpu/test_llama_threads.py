"""How many threads decode: chosen by a measurement that is kept, and never against a user's word."""

from __future__ import annotations

import json

import pytest

from codellm.spec import LoadSpec
from codellm.system import machine
from codellm_cpu.llama import threads
from codellm_cpu.llama.backend import LlamaCppBackend
from codellm_cpu.llama.header import read_header
from support.tiny_gguf import source_of


class Machine:
    """A clock that a step of `seconds[threads]` moves, on processors that are `share` ours."""

    def __init__(self, seconds, share=1.0):
        self.seconds, self.share = seconds, share
        self.now = self.used = 0.0
        self.threads, self.tried = 0, []

    def use(self, count):
        self.threads = count
        self.tried.append(count)

    def step(self):
        self.now += self.seconds[self.threads]
        self.used += self.seconds[self.threads] * self.threads * self.share

    def fewest(self):
        return threads.fewest(self.step, self.use, max(self.seconds), lambda: self.now, lambda: self.used)


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({2: 0.100, 1: 0.180}, 2),
        ({2: 0.100, 1: 0.104}, 1),  # memory that one core uses up
        ({8: 0.030, 4: 0.031, 2: 0.040, 1: 0.079}, 4),
        ({64: 0.010, 32: 0.009, 16: 0.0089, 8: 0.0092, 4: 0.014}, 8),
        ({6: 0.010, 3: 0.012}, 6),
        ({4: 0.0004, 2: 0.0003, 1: 0.0002}, 1),  # a model so small that threads only meet
    ],
)
def test_the_fewest_within_five_percent_of_the_best(seconds, chosen):
    assert Machine(seconds).fewest() == chosen


def test_no_more_is_tried_than_needed_and_not_for_long():
    slow = Machine({8: 0.6, 4: 1.1, 2: 2.2, 1: 4.4})
    assert slow.fewest() == 8
    assert set(slow.tried) == {8, 4}
    assert slow.now < 5


def test_a_busy_machine_is_not_measured():
    busy = Machine({2: 3.0, 1: 3.0}, share=0.6)
    assert busy.fewest() is None
    assert busy.now == 6.0  # one step to read the file, and one to see it


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("CODELLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "threads.json"


@pytest.fixture
def asked(cache):
    """How many threads each measurement might take at most; each finds two."""
    return []


def measured(asked, most=4, found=2):
    return threads.decode_threads("f32", most, lambda most: asked.append(most) or found)


def test_it_is_measured_once_a_machine_and_kept(asked, cache):
    assert [measured(asked), measured(asked)] == [2, 2]
    assert asked == [4]
    (key,) = json.loads(cache.read_text())
    assert machine.cpu_name() in key
    assert "4 of" in key


def test_another_quota_is_another_machine(asked):
    for cores in (4, 3):
        measured(asked, cores)
    assert asked == [4, 3]


def test_what_is_kept_is_held_against_the_machine(asked, cache):
    measured(asked)
    for damage in ("nonsense", "0", "5", ""):
        cache.write_text(json.dumps(dict.fromkeys(json.loads(cache.read_text()), damage)))
        assert measured(asked) == 2
    cache.write_text("{")
    measured(asked)
    assert len(asked) == 6


def test_a_measurement_that_cannot_tell_is_not_kept(asked):
    assert [measured(asked, found=None), measured(asked, found=None)] == [4, 4]
    assert asked == [4, 4]


def test_a_cache_that_cannot_be_written_is_done_without(asked, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CODELLM_CACHE", str(tmp_path / "file" / "cache"))
    assert measured(asked) == 2


def test_a_single_core_is_not_measured(asked):
    assert measured(asked, most=1) == 1
    assert not asked


def load(path, **spec):
    return LlamaCppBackend().load(LoadSpec(model=str(path), **spec), source_of(path))


def test_a_model_takes_what_is_kept_of_its_kind(cache, tiny_gguf):
    kind = threads.model_kind("f32", read_header(tiny_gguf).decode_bytes)
    threads.decode_threads(kind, machine.default_threads(), lambda most: 1)
    with load(tiny_gguf) as model:
        assert model.info.threads == 1
        assert len(model.generate([5, 6, 7]).token_ids) > 0


def test_named_threads_are_taken_as_they_are(cache, tiny_gguf):
    with load(tiny_gguf, threads=3) as model:
        assert model.info.threads == 3
    assert not cache.exists()


def test_measuring_for_real_leaves_the_model_as_it_was(cache, tiny_gguf):
    ids = [5, 6, 7, 8]
    with load(tiny_gguf, threads=2) as named, load(tiny_gguf) as measured:
        assert measured.info.threads in range(1, machine.default_threads() + 1)
        assert measured.generate(ids).token_ids == named.generate(ids).token_ids
