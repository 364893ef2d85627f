"""What the machine is and gives, from its own files."""

import pytest

from codellm.system import cgroup, machine

X86 = """processor\t: 0
model name\t: AMD EPYC 9354
flags\t\t: fpu sse sse2 pni ssse3 fma avx f16c avx2 avx512f avx512_bf16 md_clear

processor\t: 1
model name\t: the second one
flags\t\t: fpu
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd aes asimddp sve i8mm bf16\n"


def write(root, name, text):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


@pytest.mark.parametrize(
    ("text", "features"),
    [
        (X86, ("sse3", "ssse3", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_bf16")),
        (ARM, ("neon", "dotprod", "i8mm", "sve", "bf16")),
        ("", ()),
    ],
)
def test_features_of_the_processor(text, features, tmp_path):
    write(tmp_path, "proc/cpuinfo", text)
    assert machine.cpu_features(tmp_path) == features


def test_the_processor_has_a_name_everywhere(tmp_path):
    write(tmp_path, "proc/cpuinfo", X86)
    assert machine.cpu_name(tmp_path) == "AMD EPYC 9354"
    assert machine.cpu_name(tmp_path / "none")


@pytest.mark.parametrize(
    ("groups", "files", "threads"),
    [
        ("0::/\n", {"cpu.max": "max 100000"}, 8),
        ("0::/\n", {"cpu.max": "250000 100000"}, 2),
        ("0::/\n", {"cpu.max": "1000 100000"}, 1),
        ("0::/\n", {"cpu.max": ""}, 8),
        ("0::/\n", {"cpu.max": "100000 0"}, 8),
        # a service with a quota of its own, in a slice with a tighter one
        ("0::/a.slice/b.service\n", {"a.slice/cpu.max": "300000 100000", "a.slice/b.service/cpu.max": "max 100000"}, 3),
        ("0::/a.slice/b.service\n", {"cpu.max": "max 100000", "a.slice/b.service/cpu.max": "400000 100000"}, 4),
        # a container whose host's path is not there
        ("0::/../../docker/1\n", {"cpu.max": "500000 100000"}, 5),
        # version 1, alone and with the others empty
        (
            "4:memory:/docker/1\n3:cpu,cpuacct:/docker/1\n0::/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "200000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            2,
        ),
        ("1:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, 8),
        ("1:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "50000\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, 1),
        ("1:cpuset:/x\n", {"cpuset/x/cpu.cfs_quota_us": "100000\n", "cpuset/x/cpu.cfs_period_us": "100000\n"}, 8),
        ("nonsense\n", {}, 8),
    ],
)
def test_threads_stay_within_the_quota_of_a_container(groups, files, threads, tmp_path):
    for name, text in files.items():
        write(tmp_path / "sys/fs/cgroup", name, text)
    write(tmp_path, "proc/self/cgroup", groups)
    assert machine.threads_within(16, 8, cgroup.cpus(tmp_path)) == threads


def test_threads_stay_within_what_is_allowed_and_within_the_cores():
    assert machine.threads_within(3, 8, None) == 3
    assert machine.threads_within(16, None, None) == 16
    assert machine.default_threads() <= machine.usable_threads()


def test_this_process_takes_memory():
    assert 0 < machine.resident_memory() <= machine.total_memory()
    assert machine.peak_memory() > 0


def test_a_read_has_a_bandwidth():
    assert machine.default_threads() >= 1
    assert 1e8 < machine.read_bandwidth(1, 32 << 20, 1) < 1e13
