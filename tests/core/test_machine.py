"""What the machine is and gives, from its own files."""

import pytest

from codellm import machine

X86 = """processor\t: 0
model name\t: AMD EPYC 9354
flags\t\t: fpu sse sse2 pni ssse3 fma avx f16c avx2 avx512f avx512_bf16 md_clear

processor\t: 1
model name\t: the second one
flags\t\t: fpu
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd aes asimddp sve i8mm bf16\n"


@pytest.mark.parametrize(
    ("text", "features"),
    [
        (X86, ("sse3", "ssse3", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_bf16")),
        (ARM, ("neon", "dotprod", "i8mm", "sve", "bf16")),
        ("", ()),
    ],
)
def test_features_of_the_processor(text, features, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(machine, "_CPU_INFO", tmp_path / "cpuinfo")
    assert machine.cpu_features() == features


def test_the_processor_has_a_name_everywhere(tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(X86)
    monkeypatch.setattr(machine, "_CPU_INFO", tmp_path / "cpuinfo")
    assert machine.cpu_name() == "AMD EPYC 9354"
    monkeypatch.setattr(machine, "_CPU_INFO", tmp_path / "none")
    assert machine.cpu_name()


@pytest.mark.parametrize(("quota", "threads"), [("max 100000", 8), ("250000 100000", 2), ("1000 100000", 1), ("", 8)])
def test_threads_stay_within_the_quota_of_a_container(quota, threads, tmp_path, monkeypatch):
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr(machine, "usable_threads", lambda: 16)
    monkeypatch.setattr(machine, "physical_cores", lambda: 8)
    assert machine.default_threads() == threads


def test_memory_stays_within_the_limit_of_a_container(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    free = machine.available_memory()
    assert 0 < free <= machine.total_memory()
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert machine.available_memory() == 2_000_000


def test_this_process_takes_memory():
    assert 0 < machine.resident_memory() <= machine.total_memory()
    assert machine.peak_memory() > 0


def test_a_read_has_a_bandwidth():
    assert machine.default_threads() >= 1
    assert 1e8 < machine.read_bandwidth(1, 32 << 20, 1) < 1e13
