"""A first load in a process of its own: what llama.cpp aborts on, crashes on or never ends with, dies there.

llama.cpp holds a file against hundreds of assertions of its own, each of which ends the process; no check before it
can know them all. So a file that no verdict is kept of is loaded by probe_child.py under limits, and computes one
token, which reads its weights once. The verdict is kept in codellm's cache.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
import psutil

from codellm.artifacts import store
from codellm.errors import BackendError, ModelFileError
from codellm.sources.regular import shown
from codellm.system.cache import Memo, cache_path, state
from codellm_cpu.llama.check import check
from codellm_cpu.llama.header import Header, read_header
from codellm_cpu.llama.probe_child import REFUSED

COMMAND = (sys.executable, "-P", "-m", "codellm_cpu.llama.probe_child")
"""What loads the file that is named after it."""

_LOOK = 0.5
"""Seconds between looks at what it has used."""

_TAIL = 8192
"""Bytes kept of what the child prints: a broken file may make llama.cpp print without end."""

_LINE = 500
"""Characters of its last line that a message shows."""

_FOLDER = re.compile(r"(\S*/)(?=[\w.-]+:\d+: )")
"""The folder that llama.cpp was built in, before the source file that an assertion names."""


@attrs.frozen(kw_only=True)
class Limits:
    """How long a probe may take.

    Its first thread may compute for `seconds`, and a second more for every `bytes_per_second` of the file. On the clock
    it may take `patience` times as long: a machine that is busy, or whose disk is, changes no verdict.
    """

    seconds: float = 20.0
    bytes_per_second: float = 50e6
    patience: float = 10.0


LIMITS = Limits()


@attrs.frozen
class Outcome:
    """End of a probe: `fault` is empty where the file loads; `final` where another try would end the same."""

    fault: str
    final: bool = True


def probe(path: Path, limits: Limits = LIMITS, command: Sequence[str] = COMMAND) -> Outcome:
    """Load `path` in a child process, which `command` starts. Ctrl-C ends it at once.

    Raises:
        BackendError: no process can be started, or it fails before it comes to the file.
    """
    seconds = limits.seconds + path.stat().st_size / limits.bytes_per_second
    try:
        child = subprocess.Popen(
            [*command, str(path.absolute())],
            stdin=subprocess.PIPE,  # held open: the child ends when it closes
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,  # Ctrl-C reaches this process only, which then ends the child
            # without the first, an abort starts a debugger; without the second, numpy takes memory for every core
            env=os.environ | {"GGML_NO_BACKTRACE": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
    except OSError as error:
        raise BackendError(f"cannot start a process to try {shown(path)} in ({error.strerror})") from error
    assert child.stdin is not None  # pipes were asked for
    assert child.stdout is not None
    end = time.monotonic() + limits.patience * seconds
    try:
        said = _listen(child, seconds, end)
        code = child.wait(timeout=max(1.0, end - time.monotonic()))
    except (TimeoutError, subprocess.TimeoutExpired):
        return Outcome(f"llama.cpp did not finish loading it within {seconds:.0f} seconds of computing", final=False)
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()
    return _outcome(path, code, said)


def vetted(path: Path, tried: Callable[[Path], Outcome] = probe) -> Header:
    """The header of a file that llama.cpp may be handed: by the verdict that is kept of it, else as it is `tried` now.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelFileError: it is damaged, no model, or llama.cpp does not survive it.
        BackendError: no process can be started to try it in.
    """
    header = checked(path)
    require_probed(path, tried)
    return header


def checked(path: Path) -> Header:
    """The header of a file that holds what llama.cpp needs, by what can be told without it.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelFileError: it is damaged, or no model.
    """
    header = read_header(path)
    check(path, header)
    return header


def require_probed(path: Path, tried: Callable[[Path], Outcome] = probe) -> None:
    """See that llama.cpp survives a checked file.

    Raises:
        ModelFileError: it does not.
        BackendError: no process can be started to try it in.
    """
    if not _gated(path):
        require(path, tried)


def _gated(path: Path) -> bool:
    """Whether codellm made the file itself, which its quality gate has loaded and probed, and it is as it was kept."""
    kept = store.read(path.parent) if path.parent.parent == cache_path() / "artifacts" else None
    return kept is not None and kept.path == path and kept.intact


def require(path: Path, tried: Callable[[Path], Outcome] = probe) -> None:
    """See that llama.cpp loads `path` and computes with it: by the verdict that is kept of it, else by trying.

    Raises:
        ModelFileError: it does not; the message says how it failed.
        BackendError: no process can be started to try it in.
    """
    verdicts, key = Memo("probes.json", most=500), file_key(path)
    fault = verdicts.read().get(key)
    if fault is None:
        outcome = tried(path)
        if not outcome.final:  # nothing about the file is known yet
            outcome = tried(path)
        fault = outcome.fault
        if outcome.final and file_key(path) == key:
            verdicts.keep({key: fault})
    if fault:
        raise ModelFileError(f"{shown(path)}: {fault}")


def file_key(path: Path) -> str:
    """A file as it is now, and the llama.cpp that tries it.

    Raises:
        ModelFileError: the file is gone.
    """
    import llama_cpp

    try:
        now, real = state(path), path.resolve()
    except (OSError, RuntimeError) as error:  # the second for symbolic links in a circle
        raise ModelFileError(f"{shown(path)}: cannot be read ({error})") from error
    return f"{real}|{now}|{llama_cpp.__version__}"


def _listen(child: subprocess.Popen[bytes], seconds: float, end: float) -> str:
    """The last that the child prints, until it prints no more.

    Raises:
        TimeoutError: it prints, or may yet, when its first thread has computed for `seconds`, or the clock shows `end`.
    """
    assert child.stdout is not None  # a pipe was asked for
    tail, look = b"", 0.0
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while (now := time.monotonic()) < end:
            if now >= look:
                look = now + min(_LOOK, seconds)
                if _computed(child.pid) > seconds:
                    break
            if selector.select(min(look, end) - now):
                data = os.read(child.stdout.fileno(), 1 << 16)
                if not data:
                    return tail.decode("utf-8", "replace")
                tail = (tail + data)[-_TAIL:]
    raise TimeoutError


def _computed(process: int) -> float:
    """Seconds of processor time of its first thread, or of all where that is not told."""
    with contextlib.suppress(psutil.Error):
        running = psutil.Process(process)
        for thread in running.threads():
            if thread.id == process:
                return float(thread.user_time + thread.system_time)
        times = running.cpu_times()
        return float(times.user + times.system)
    return 0.0


def _outcome(path: Path, code: int, said: str) -> Outcome:
    """What an exit code and the last line printed mean.

    Raises:
        BackendError: the child could not try the file.
    """
    if code == 0:
        return Outcome("")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = shown(_FOLDER.sub("", lines[-1]))[:_LINE] if lines else "it gave no reason"
    if code == REFUSED:
        return Outcome(last)
    if code > 0:
        raise BackendError(f"cannot try {shown(path)} in a process of its own: {last}")
    name = signal.Signals(-code).name
    return Outcome(f"llama.cpp crashes on it ({name}): {last}", final=-code != signal.SIGKILL)
