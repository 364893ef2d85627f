"""A first reading of a tokenizer.json in a process of its own.

The tokenizers library does what a file says, whatever that is: it may take all memory, never end, or panic, which is no
Exception. So a file that no verdict is kept of is tried by tokenizer_child.py under limits. The verdict is kept in
codellm's cache by the file's content; the file that codellm brings with it is not tried.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import attrs

from codellm.errors import BackendError, ModelFileError
from codellm.sources.regular import read_text, shown
from codellm.system.cache import Memo
from codellm.system.child import Ending, running
from codellm.tokenizer_child import REFUSED
from codellm.tokenizer_library import LINE


@attrs.frozen(kw_only=True)
class Limits:
    """What a first reading may take.

    Bytes: by default several times what the largest published files need. Seconds of processor time, which a busy
    machine does not change: a large published file takes one or two.
    """

    memory: int = 2 << 30
    seconds: int = 10


LIMITS = Limits()


def probe(path: Path, limits: Limits = LIMITS) -> tuple[str, bool]:
    """Try a file in a child process: what is wrong with it, empty where nothing is, and whether it would be again.

    Raises:
        BackendError: no process can be started, or it fails before it comes to the file.
    """
    quiet = {"RUST_BACKTRACE": "0", "TOKENIZERS_PARALLELISM": "false"}
    try:
        with running(
            "codellm.tokenizer_child", path.absolute(), limits.memory, limits.seconds, environment=quiet
        ) as child:
            for _ in child.lines():
                pass
            ending = child.wait()
    except OSError as error:
        raise BackendError(f"cannot start a process to try {shown(path)} in ({error.strerror})") from error
    return _verdict(path, ending, limits)


def require_sound(path: Path, text: str, tried: Callable[[Path], tuple[str, bool]] = probe) -> None:
    """See that the tokenizers library survives the file at `path`, which holds `text`: by the verdict that is kept of
    such content, else as it is `tried` now.

    Raises:
        ModelFileError: it does not; the message says how it failed.
        BackendError: no process can be started to try it in.
    """
    if Path(__file__).parent / "data" in path.parents:
        return
    import tokenizers

    verdicts = Memo("tokenizers.json", most=500)
    key = f"{hashlib.sha256(text.encode()).hexdigest()}|{tokenizers.__version__}"
    fault = verdicts.read().get(key)
    if fault is None:
        fault, final = tried(path)
        if final and read_text(path) == text:
            verdicts.keep({key: fault})
    if fault:
        raise ModelFileError(f"{shown(path)}: {fault}")


def _verdict(path: Path, ending: Ending, limits: Limits) -> tuple[str, bool]:
    last = shown(ending.last)[:LINE]
    match ending.signal:
        case "SIGXCPU":
            return f"the tokenizers library takes more than {limits.seconds} seconds of processor time for it", True
        case "SIGABRT" if any(line.startswith("memory allocation of ") for line in ending.lines):
            return f"the tokenizers library takes more than {limits.memory / 2**30:g} GiB of memory for it", True
        case "SIGKILL":  # somebody else's doing
            return "the process that tried it was killed, perhaps for want of memory; try again", False
        case "":
            if ending.code not in (0, REFUSED):
                raise BackendError(f"cannot try {shown(path)} in a process of its own: {last}")
            return (last if ending.code else ""), True
        case other:
            return f"the tokenizers library crashes on it ({other}): {last}", True
