"""Runs inside the sandbox, as `python -I -S -c <this file>`: one program against its tests, then the process ends.

Standard library only; nothing of codellm can be imported there. stdin carries 8 bytes of length, that many bytes of
JSON, then a token. The token stays unread until `check` has returned and is then copied to stdout, so neither an exit
status nor anything printed can mean passed. A program that goes looking for the pipe can still forge a pass, and can
read the tests, which run in its process.
"""

import json
import os
import resource
import sys
import types

READY = b"R"
MESSAGE_LIMIT = 300
CHILD = "candidate"


def main() -> None:
    """Take the payload, shed every privilege, run, report."""
    payload, report = _private(0), _private(1)
    size = int.from_bytes(_read(payload, 8), "big")
    task = json.loads(_read(payload, size))
    drop_user(task["uid"])
    limit(task["limits"])
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.write(report, READY)
    process = os.getpid()
    failure = run(task["program"], task["test"], task["entry_point"])
    if os.getpid() != process:
        os._exit(1)  # a copy that the program forked: the verdict is the original's
    os.write(report, _read(payload, task["token_bytes"]) if failure is None else json.dumps(failure).encode())
    os._exit(0)  # a thread or exit handler of the program must not hold up the verdict


def _private(standard: int) -> int:
    """A copy of a standard stream that no program started from here inherits."""
    copy = os.dup(standard)
    os.set_inheritable(copy, False)
    return copy


def _read(pipe: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = os.read(pipe, size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def drop_user(uid: int | None) -> None:
    """Become `uid`, where the sandbox was started by root: resource limits on processes do not hold for root."""
    if uid is None:
        return
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def limit(limits: dict[str, int]) -> None:
    """Set soft and hard resource limits by their names."""
    for name, value in limits.items():
        # One second between SIGXCPU, which tells what happened, and SIGKILL, which cannot be ignored.
        hard = value + 1 if name == "RLIMIT_CPU" else value
        resource.setrlimit(getattr(resource, name), (value, hard))


def run(program: str, test: str, entry_point: str) -> "list[str] | None":
    """None when the tests pass, else the exception's type and text."""
    # A module of its own, not __main__: a main block must not run, and dataclasses look their module up by its name.
    module = types.ModuleType(CHILD)
    sys.modules[CHILD] = module
    try:
        exec(compile(program, "completion.py", "exec"), module.__dict__)  # noqa: S102 - what the sandbox is for
        sys.settrace(None)
        sys.setprofile(None)
        # The tests use helpers of the prompt, so they run in a copy of its names; in a copy, so that the program does
        # not find `check` among its own.
        names = dict(module.__dict__)
        exec(compile(test, "test.py", "exec"), names)  # noqa: S102 - likewise
        names["check"](names[entry_point])
    except BaseException as error:  # SystemExit and KeyboardInterrupt are failures too
        return [type(error).__name__[:MESSAGE_LIMIT], _text_of(error)]
    return None


def _text_of(error: BaseException) -> str:
    try:
        return str(error)[:MESSAGE_LIMIT]
    except BaseException:  # an exception class of the program may fail to print
        return ""


main()
