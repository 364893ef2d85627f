"""The limits of cgroups, as containers, systemd and Kubernetes set them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from codellm.system import cgroup, machine

V2 = {"limit": "memory.max", "usage": "memory.current", "prefix": ""}
V1 = {"limit": "memory.limit_in_bytes", "usage": "memory.usage_in_bytes", "prefix": "total_"}


@pytest.fixture
def root(tmp_path):
    """A machine without groups, and with no word yet of those that the process is in."""
    for folder in ("proc/self", "sys/fs/cgroup"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


def join(root, own):
    (root / "proc/self/cgroup").write_text(own)


def group(folder, version, limit, used, files=0):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / version["limit"]).write_text(f"{limit}\n")
    (folder / version["usage"]).write_text(f"{used}\n")
    prefix = version["prefix"]
    (folder / "memory.stat").write_text(f"anon 5\n{prefix}inactive_file {files}\n{prefix}active_file 1000\n")


@pytest.mark.parametrize(
    ("own", "folder", "version"),
    [
        ("0::/\n", "", V2),
        ("0::/user.slice/run.scope\n", "user.slice/run.scope", V2),
        ("9:cpu,cpuacct:/a\n4:memory:/b\n0::/\n", "memory/b", V1),
        ("4:memory:/docker/0123\n", "memory", V1),  # the container's own group stands at the root
    ],
)
def test_pages_of_files_are_free(root, own, folder, version):
    join(root, own)
    group(root / "sys/fs/cgroup" / folder, version, 3_000_000, 1_500_000, files=499_000)
    assert cgroup.free_memory(root) == 2_000_000
    assert machine.available_memory(root) == 2_000_000


def test_the_tightest_of_the_groups_above_counts(root):
    join(root, "0::/slice/scope\n")
    group(root / "sys/fs/cgroup" / "slice" / "scope", V2, "max", 10_000)
    group(root / "sys/fs/cgroup" / "slice", V2, 8_000_000, 1_001_000)
    group(root / "sys/fs/cgroup", V2, 9_000_000, 1_001_000)
    assert cgroup.free_memory(root) == 7_000_000


def test_a_group_beyond_its_limit_leaves_nothing(root):
    join(root, "0::/\n")
    group(root / "sys/fs/cgroup", V2, 1_000_000, 5_000_000)
    assert cgroup.free_memory(root) == 0


@pytest.mark.parametrize("own", ["", "garbage\n", "0::/gone\n", "::\n"])
def test_without_limits_the_machine_s_memory_counts(root, own):
    join(root, own)
    assert cgroup.free_memory(root) is None
    assert 0 < machine.available_memory(root) <= machine.total_memory()


def test_the_limit_of_a_real_group_is_found():
    """A child in a group of 300 MB, where this process may make one."""
    roots = [path for path in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")) if path.is_dir()]
    folder = roots[0] / f"codellm-test-{os.getpid()}"
    try:
        folder.mkdir()
        version = V1 if (folder / V1["limit"]).exists() else V2
        (folder / version["limit"]).write_text("300000000")
    except OSError as error:
        if folder.exists():
            folder.rmdir()
        pytest.skip(f"no cgroup can be made here: {error}")
    code = (
        "import os, sys; from pathlib import Path; Path(sys.argv[1]).write_text(str(os.getpid()));"
        "from codellm.system import machine; print(machine.available_memory())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "cgroup.procs")], capture_output=True, text=True, timeout=60
    )
    folder.rmdir()
    assert done.returncode == 0, done.stderr
    assert 200_000_000 < int(done.stdout) < 300_000_000
