"""The first load in a child: its limits, and what is remembered of it."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from codellm.artifacts import store
from codellm.errors import BackendError, ModelFileError
from codellm_cpu.llama import header, probe
from codellm_cpu.llama.check import check
from codellm_cpu.llama.header import read_header
from support.gguf_bytes import ARRAY, STRING, Gguf, starcoder2


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CODELLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.gguf"
    path.write_bytes(starcoder2().encode())
    return path


@pytest.fixture
def bad(tmp_path):
    path = tmp_path / "bad.gguf"
    file = starcoder2()
    file.put("starcoder2.rope.scaling.type", STRING, "sideways")
    path.write_bytes(file.encode())
    return path


class Probes(list):
    """The paths that were probed, each for real."""

    def __call__(self, path):
        self.append(path)
        return probe.probe(path)


@pytest.fixture
def probes():
    return Probes()


def test_a_file_is_tried_once_until_it_changes(cache, good, bad, probes):
    for _ in range(3):
        probe.vetted(good, probes)
        with pytest.raises(ModelFileError, match=r"bad\.gguf: llama\.cpp crashes on it"):
            probe.vetted(bad, probes)
    assert probes == [good, bad]
    stat = good.stat()
    with good.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"\1")
    os.utime(good, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # whoever sets the time back does not hide the change
    probe.vetted(good, probes)
    assert probes == [good, bad, good]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff"])
def test_a_damaged_memory_is_forgotten(cache, good, probes, content):
    cache.mkdir()
    (cache / "probes.json").write_bytes(content)
    probe.vetted(good, probes)
    probe.vetted(good, probes)
    assert probes == [good]


def test_the_newest_verdicts_are_kept(cache, good):
    cache.mkdir()
    (cache / "probes.json").write_text(json.dumps({str(number): "" for number in range(1000)}))
    probe.vetted(good)
    kept = json.loads((cache / "probes.json").read_text())
    assert len(kept) == 500
    assert "999" in kept
    assert any(str(good) in key for key in kept)


def test_without_a_cache_each_load_tries_again(tmp_path, monkeypatch, good, probes):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("CODELLM_CACHE", str(tmp_path / "file" / "cache"))
    probe.vetted(good, probes)
    probe.vetted(good, probes)
    assert probes == [good, good]


def test_what_codellm_made_and_gated_is_not_tried_again(cache, good, probes):
    kept = cache / "artifacts" / "good-f32-0"
    kept.mkdir(parents=True)
    path = good.rename(kept / "good.gguf")
    (kept / "manifest.json").write_text(json.dumps({"file": path.name, "content": store.content(path)}))
    probe.vetted(path, probes)
    assert probes == []
    with path.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"\1")
    probe.vetted(path, probes)
    assert probes == [path]


def test_a_probe_that_takes_too_long_is_ended_and_nothing_is_concluded(cache, good):
    with pytest.raises(ModelFileError, match="did not finish loading it within"):
        probe.vetted(good, lambda path: probe.probe(path, probe.Limits(seconds=0.01)))
    assert not psutil.Process().children()
    assert not (cache / "probes.json").exists()


def test_a_file_on_which_two_blanks_end_the_process_is_refused(cache, tmp_path):
    file = starcoder2()
    file.put("tokenizer.ggml.pre", STRING, "whitespace")  # which wants whole characters in the vocabulary
    path = tmp_path / "whitespace.gguf"
    path.write_bytes(file.encode())
    with pytest.raises(ModelFileError, match=r"whitespace\.gguf: llama\.cpp crashes on it"):
        probe.vetted(path)


@pytest.mark.parametrize("script", ["exec yes", "exec >&- 2>&-; exec sleep 100"], ids=["flood", "silence"])
def test_a_child_that_floods_or_falls_silent_is_ended(good, tmp_path, script):
    """No file is known that does this to llama.cpp, so a shell stands in for it."""
    before = psutil.Process().memory_info().rss
    assert not probe.probe(good, probe.Limits(seconds=1.0, patience=2.0), ("/bin/sh", "-c", script)).final
    assert psutil.Process().memory_info().rss < before + (50 << 20)
    assert not psutil.Process().children()


@pytest.mark.parametrize(
    "script", ["sleep 2", "[ -e again ] || { touch again; exec sleep 100; }"], ids=["late", "once"]
)
def test_a_machine_that_is_busy_refuses_no_file(cache, good, tmp_path, script):
    """Time in which the child waits is not counted against the file, and a try that came to no end is made again."""
    command = ("/bin/sh", "-c", f"cd {tmp_path}\n{script}")
    probe.vetted(good, lambda path: probe.probe(path, probe.Limits(seconds=0.5), command))


CALLER = """
import sys
from pathlib import Path
from codellm_cpu.llama import probe
print("ready", flush=True)
probe.probe(Path(sys.argv[1]), command=sys.argv[2:])
"""


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGKILL, -signal.SIGKILL)])
def test_the_child_ends_with_its_caller(good, tmp_path, sent, code):
    """A real child, made slow: it ends on Ctrl-C at once, and by itself where the caller is killed."""
    mark = f"probe-{os.getpid()}-{sent}"
    slow = "import time; from codellm.system.child import end_with_parent; end_with_parent(None); time.sleep(60)"
    child = (sys.executable, "-c", slow, mark)
    caller = subprocess.Popen([sys.executable, "-c", CALLER, str(good), *child], stdout=subprocess.PIPE)
    with caller:
        assert caller.stdout is not None
        caller.stdout.readline()
        wait_for(lambda: marked(mark, caller))
        caller.send_signal(sent)
        assert caller.wait(timeout=30) == code
        wait_for(lambda: not marked(mark, caller))


def marked(mark: str, caller: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The processes that the caller has started."""
    processes = psutil.process_iter(["cmdline"])
    return [each for each in processes if mark in (each.info["cmdline"] or ()) and each.pid != caller.pid]


def wait_for(condition) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_child_has_little_memory_and_writes_no_file(tmp_path):
    code = """
import sys
from codellm.system import child
from codellm_cpu.llama import probe_child
child.limit(probe_child.MEMORY)
try:
    bytearray(probe_child.MEMORY)
except MemoryError:
    print("no memory")
try:
    open(sys.argv[1], "w").write("x" * 100_000)
except OSError as error:
    print(error.strerror)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "file")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["no memory", "File too large"]


def test_a_file_that_takes_memory_without_end_is_stopped(tmp_path):
    """By the limit of memory, or on a busy machine by that of time. llama.cpp splits these tokens for ever."""
    path = tmp_path / "rwkv.gguf"
    file = starcoder2()
    file.put("tokenizer.ggml.model", STRING, "rwkv")
    path.write_bytes(file.encode())
    check(path, read_header(path))
    assert probe.probe(path).fault in {
        "llama.cpp crashes on it (SIGABRT): what():  std::bad_alloc",
        "llama.cpp did not finish loading it within 20 seconds",
    }


def test_a_file_cut_short_while_it_is_read_gives_an_error_and_no_signal(good):
    with good.open("rb") as stream:
        reader = header._Reader(good, stream)
        os.truncate(good, 100)
        with pytest.raises(ModelFileError, match="it changed while it was read"):
            reader.header()


def test_reading_a_header_takes_bounded_time(tmp_path):
    """As many strings as a header may have, all empty; one more is refused before the first is read."""
    path = tmp_path / "strings.gguf"
    for count, says in (
        (1 << 22, "0 dimensions"),
        ((1 << 22) + 1, "claims 4194305 values"),
        (1 << 24, "claims 16777216"),
    ):
        file = Gguf(tensor_count=1)
        file.put_bytes("a", ARRAY, struct.pack("<IQ", STRING, count))
        path.write_bytes(file.encode())
        os.truncate(path, 200 << 20)  # zeros that take no space on the disk
        start = time.monotonic()
        with pytest.raises(ModelFileError, match=says if count > 1 << 22 else "empty or holds"):
            read_header(path)
        assert time.monotonic() - start < 30


def test_a_path_in_another_alphabet_is_tried_as_it_is(cache, tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + "/модель ".encode() + b"\xff.gguf"))
    path.write_bytes(starcoder2().encode())
    probe.vetted(path)


def test_a_child_that_cannot_run_says_nothing_of_the_file(cache, good):
    command = (sys.executable, "-c", "import nothing_of_this_name")
    with pytest.raises(BackendError, match=r"cannot try .*good\.gguf .*No module named 'nothing_of_this_name'"):
        probe.vetted(good, lambda path: probe.probe(path, command=command))
    assert not (cache / "probes.json").exists()
