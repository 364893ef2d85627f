"""Runs that are killed anywhere, and runs at once: what is kept is whole, and made once."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from codellm.artifacts import store

LADDER = [sys.executable, "-m", "codellm", "quantize", "dummy:tiny", "--threads", "1"]
SCHEMES = ["-q", "iq3_s", "-q", "q4_0"]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CODELLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def start(*arguments):
    return subprocess.Popen(
        [*LADDER, *arguments], env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def contents():
    """What is kept, by scheme."""
    return {kept.manifest["scheme"]: kept.path.read_bytes() for kept in store.kept_artifacts()}


def folders(cache):
    return [path for path in (cache / "artifacts").glob("*") if path.is_dir()]


def test_whenever_a_run_is_killed_what_is_kept_is_whole_and_the_next_run_sweeps(cache):
    began = time.monotonic()
    whole = start(*SCHEMES)
    assert whole.communicate(timeout=120)
    assert whole.returncode == 0
    took = time.monotonic() - began
    expected = contents()
    assert set(expected) == {"bf16", "imatrix", "iq3_s", "q4_0"}

    draw, killed = random.Random(0), 0
    for turn in range(4):
        for kept in store.kept_artifacts():
            store.remove(kept)
        child = start(*SCHEMES)
        time.sleep(took * draw.uniform(0.1, 0.9))
        child.send_signal((signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[turn % 3])
        child.communicate(timeout=60)
        killed += child.returncode != 0
        for scheme, content in contents().items():
            assert content == expected[scheme], scheme
    assert killed >= 2

    last = start(*SCHEMES)
    last.communicate(timeout=120)
    assert last.returncode == 0
    assert contents() == expected
    assert len(folders(cache)) == 4


def test_two_runs_at_once_share_the_base_and_the_matrix(cache):
    both = [start("-q", scheme) for scheme in ("iq3_s", "q3_k_s")]
    notes = [child.communicate(timeout=120)[1] for child in both]
    assert [child.returncode for child in both] == [0, 0], notes
    assert sum("writing bf16" in note for note in notes) == 1
    assert set(contents()) == {"bf16", "imatrix", "iq3_s", "q3_k_s"}
    assert len(folders(cache)) == 4
