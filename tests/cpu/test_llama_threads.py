"""How many threads decode: chosen by a measurement that is kept, and never against a user's word."""

from __future__ import annotations

import json

import pytest

from codellm.spec import LoadSpec
from codellm.system import machine
from codellm_cpu.llama import load, threads
from codellm_cpu.llama.backend import LlamaCppBackend
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


def load_without_threads(path):
    return LlamaCppBackend().load(LoadSpec(model=str(path)), source_of(path))


@pytest.fixture
def four_threads(monkeypatch, tmp_path):
    """A machine of four cores, an empty cache, and what was asked of the measurement there."""
    asked = []
    monkeypatch.setattr(machine, "default_threads", lambda: 4)
    monkeypatch.setattr(threads, "fewest", lambda step, use, most: asked.append((step(), most)) or 2)
    monkeypatch.setenv("CODELLM_CACHE", str(tmp_path / "cache"))
    return asked


def test_it_is_measured_once_a_machine_and_kept(four_threads, tiny_gguf, tmp_path):
    for _ in range(2):
        with load_without_threads(tiny_gguf) as model:
            assert model.info.threads == 2
            assert len(model.generate([5, 6, 7]).token_ids) > 0
    assert [most for _, most in four_threads] == [4]
    (key,) = json.loads((tmp_path / "cache" / "threads.json").read_text())
    assert machine.cpu_name() in key
    assert "4 of" in key


def test_another_quota_is_another_machine(four_threads, tiny_gguf, monkeypatch):
    for cores in (4, 3):
        monkeypatch.setattr(machine, "default_threads", lambda cores=cores: cores)
        load_without_threads(tiny_gguf).close()
    assert [most for _, most in four_threads] == [4, 3]


def test_what_is_kept_is_held_against_the_machine(four_threads, tiny_gguf, tmp_path):
    load_without_threads(tiny_gguf).close()
    file = tmp_path / "cache" / "threads.json"
    for damage in ("nonsense", "0", "5", ""):
        file.write_text(json.dumps(dict.fromkeys(json.loads(file.read_text()), damage)))
        with load_without_threads(tiny_gguf) as model:
            assert model.info.threads == 2
    file.write_text("{")
    load_without_threads(tiny_gguf).close()
    assert len(four_threads) == 6


def test_a_cache_that_cannot_be_written_is_done_without(four_threads, tiny_gguf, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CODELLM_CACHE", str(tmp_path / "file" / "cache"))
    with load_without_threads(tiny_gguf) as model:
        assert model.info.threads == 2


def test_named_threads_are_taken_as_they_are(four_threads, tiny_gguf, monkeypatch):
    monkeypatch.setattr(load, "decode_threads", None)
    with LlamaCppBackend().load(LoadSpec(model=str(tiny_gguf), threads=3), source_of(tiny_gguf)) as model:
        assert model.info.threads == 3


def test_a_single_core_is_not_measured(four_threads, tiny_gguf, monkeypatch):
    monkeypatch.setattr(machine, "default_threads", lambda: 1)
    with load_without_threads(tiny_gguf) as model:
        assert model.info.threads == 1
    assert not four_threads


def test_measuring_for_real_leaves_the_model_as_it_was(tiny_gguf, monkeypatch, tmp_path):
    monkeypatch.setenv("CODELLM_CACHE", str(tmp_path))
    monkeypatch.setattr(machine, "default_threads", lambda: 2)
    monkeypatch.setattr(threads, "_CALM", 0.0)
    monkeypatch.setattr(threads, "_SECONDS", 0.01)
    ids = [5, 6, 7, 8]
    with (
        LlamaCppBackend().load(LoadSpec(model=str(tiny_gguf), threads=2), source_of(tiny_gguf)) as named,
        load_without_threads(tiny_gguf) as measured,
    ):
        assert measured.info.threads in (1, 2)
        assert measured.generate(ids).token_ids == named.generate(ids).token_ids
