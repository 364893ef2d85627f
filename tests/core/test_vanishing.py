"""A plugin that loops or ends the process where it is imported or asked: named, at once or by the next run."""

import os
import signal
import subprocess
import sys
import time

import pytest

from support.plugin_folder import codellm, install_plugin

GUEST = "plugin 'guest' of guest 1.0"
HOOK = "from codellm import hookimpl\n@hookimpl\n"

EXITS = {
    "import": ("import os; os._exit(0)", "os._exit(0)"),
    "import-from": ("from os import _exit\n_exit(3)", "os._exit(3)"),
    "finally": ("import os\ntry: 1 / 0\nfinally: os._exit(1)", "os._exit(1)"),
    "backends": (HOOK + "def codellm_backends():\n    import os; os._exit(0)", "os._exit(0)"),
    "schemes": (HOOK + "def codellm_schemes(): raise SystemExit(0)", "SystemExit: 0"),
    "mute": ("class X(BaseException):\n    def __str__(self): raise X\nraise X", "X"),
    "mute-repr": ("class X(KeyError):\n    def __repr__(self): raise SystemExit(0)\nraise X(X())", "X"),
    "infinite": (HOOK + "def codellm_backends():\n    while True: yield None",
                 "None (NoneType), which must be a Backend"),
    "too-many": (HOOK + "def codellm_doctor():\n    from codellm import Finding\n"
                 "    while True: yield Finding(topic='t', value='v')", "codellm_doctor returned more than 1000 items"),
}  # fmt: skip


@pytest.mark.parametrize("kind", EXITS)
@pytest.mark.parametrize("command", ["plugins", "doctor", "generate"])
def test_a_plugin_that_ends_the_process_is_named_and_the_others_go_on(tmp_path, kind, command):
    code, what = EXITS[kind]
    if (kind == "too-many") != (command == "doctor") and kind == "too-many":
        pytest.skip("only the doctor asks")
    install_plugin(tmp_path, "guest", code)
    arguments = ("x", "--max-tokens", "2") if command == "generate" else ()
    done = codellm(command, *arguments, path=tmp_path)
    assert done.returncode == 0
    assert done.stdout
    assert "Traceback" not in done.stderr
    told = " ".join((done.stdout if command != "generate" else done.stderr).split())
    assert what in told
    assert "guest" in told


def wait_for(text, child):
    """What the child writes to stderr up to the line that holds `text`."""
    for line in child.stderr:
        if text in line:
            return line
    raise AssertionError(f"the child ended without saying {text!r}")


LOOPS = {
    "while": "while True: pass",
    "sleep": "import time\nwhile True: time.sleep(60)",
    "swallows": "while True:\n    try: pass\n    except Exception: pass",
    "asked": HOOK + "def codellm_schemes():\n    while True: pass",
    "lock": "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()",
    "regex": "import re; re.match('(a+)+$', 'a' * 60 + 'b')",
}


@pytest.fixture(scope="module")
def looping(tmp_path_factory):
    """A process for each of them, all at once: each has a folder, which holds its cache too."""
    children = {}
    for kind, code in LOOPS.items():
        path = tmp_path_factory.mktemp(kind)
        install_plugin(path, "guest", code)
        env = {**os.environ, "PYTHONPATH": str(path), "CODELLM_CACHE": str(path / "cache")}
        command = [sys.executable, "-m", "codellm", "backends"]
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env, text=True)
        children[kind] = path / "cache", child
    yield children
    for _, child in children.values():
        child.kill()
        child.communicate()


@pytest.mark.parametrize("kind", LOOPS)
def test_a_plugin_that_loops_is_named_by_a_watchdog_and_by_the_next_run(looping, kind):
    cache, child = looping[kind]
    if kind == "regex":  # which lets no other thread run
        while not list(cache.glob(".loading-*")):
            time.sleep(0.05)
        time.sleep(0.5)
    else:
        line = wait_for(GUEST, child)
        assert "has been loading for 5 s and may never end" in line
        assert "CODELLM_DISABLE_PLUGINS=guest turns it off" in line
    child.kill()
    child.wait()
    told = codellm("backends", CODELLM_CACHE=str(cache))
    assert told.returncode == 0
    assert told.stderr.count(f"an earlier run ended while {GUEST} was loading, and it may be why") == 1
    assert "CODELLM_DISABLE_PLUGINS=guest turns it off" in told.stderr
    assert "guest" not in codellm("backends", CODELLM_CACHE=str(cache)).stderr  # told once


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "os.abort()", "ctypes.string_at(0)",
                                 "ctypes.CDLL(None)._exit(0)", "os.execv('/bin/true', ['true'])"])  # fmt: skip
def test_a_plugin_that_takes_the_process_with_it_is_named_by_the_next_run(tmp_path, end):
    install_plugin(tmp_path, "guest", f"import ctypes, os, signal\n{end}")
    cache = str(tmp_path / "cache")
    codellm("backends", path=tmp_path, CODELLM_CACHE=cache)
    told = codellm("backends", path=tmp_path, CODELLM_CACHE=cache)
    assert f"an earlier run ended while {GUEST} was loading" in told.stderr
    off = codellm("backends", path=tmp_path, CODELLM_CACHE=cache, CODELLM_DISABLE_PLUGINS="guest")
    assert off.returncode == 0
    assert off.stdout


def test_who_ends_well_leaves_no_trace(tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    assert codellm("backends", CODELLM_CACHE=str(cache)).returncode == 0
    assert not list(cache.iterdir())


def test_a_process_that_still_loads_is_not_taken_for_gone(tmp_path):
    install_plugin(tmp_path, "guest", "import time; time.sleep(600)")
    cache = tmp_path / "cache"
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "CODELLM_CACHE": str(cache)}
    command = [sys.executable, "-m", "codellm", "backends"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env) as child:
        while not list(cache.glob(".loading-*")):
            time.sleep(0.05)
        assert "guest" not in codellm("backends", CODELLM_CACHE=str(cache)).stderr
        child.send_signal(signal.SIGINT)
        assert child.wait() == 130
    assert not list(cache.glob(".loading-*"))


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(tmp_path):
    (tmp_path / "file").write_text("")
    done = codellm("backends", CODELLM_CACHE=str(tmp_path / "file" / "cache"))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_child_of_a_plugin_may_exit(tmp_path):
    code = """
import os, threading
if os.fork() == 0:
    os._exit(7)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
"""
    install_plugin(tmp_path, "guest", code)
    done = codellm("plugins", "--format", "csv", path=tmp_path)
    assert "guest,hooks,guest 1.0,works" in done.stdout


@pytest.mark.parametrize(
    "code",
    [
        "raise KeyboardInterrupt",
        HOOK + "def codellm_backends(): raise KeyboardInterrupt",
        HOOK + "def codellm_load(): raise KeyboardInterrupt",
        HOOK + "def codellm_generate(): raise KeyboardInterrupt",
        HOOK + "def codellm_generated(): raise KeyboardInterrupt",
        HOOK.replace("hookimpl\n", "hookimpl(wrapper=True)\n").replace(
            "import hookimpl(wrapper=True)", "import hookimpl"
        )
        + "def codellm_generate():\n    yield\n    raise KeyboardInterrupt",
    ],
)
def test_an_interrupt_is_one_wherever_it_comes_from(tmp_path, code):
    install_plugin(tmp_path, "guest", code)
    done = codellm("generate", "x", "--max-tokens", "1", path=tmp_path)
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1] == "interrupted"
    assert "Traceback" not in done.stderr


def test_what_fails_where_nobody_waits_is_one_line(tmp_path):
    code = """
import atexit, threading
class Late:
    def __del__(self): raise SystemExit("gone")
def fail(): raise OSError("no such bus")
thread = threading.Thread(target=fail); thread.start(); thread.join()
Late()
atexit.register(fail)
"""
    install_plugin(tmp_path, "guest", code)
    done = codellm("backends", path=tmp_path)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert f"codellm: a thread ended in OSError: no such bus (raised in {GUEST})" in done.stderr
    assert f"codellm: ignored SystemExit: gone (raised in {GUEST})" in done.stderr
    assert done.stderr.count("no such bus") == 2


COMMAND = "import click, sys\n@click.command()\ndef command(): {}"


@pytest.mark.parametrize(
    ("body", "code", "what"),
    [
        ("raise SystemExit(0)", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit('no bus')", 1, "no bus"),
        ("raise KeyError('bus')", 1, "codellm: KeyError: 'bus' (raised in command 'guest' of guest 1.0); report it to"),
        ("raise GeneratorExit", 1, "codellm: GeneratorExit (raised in command 'guest' of guest 1.0); report it to the"),
        ("raise KeyboardInterrupt", 130, "interrupted"),
        ("raise click.UsageError('no bus')", 2, "no bus"),
    ],
)
def test_a_command_of_another_package_ends_as_it_wants_and_its_faults_are_its_own(tmp_path, body, code, what):
    install_plugin(tmp_path, "guest", COMMAND.format(body), group="codellm.commands", entry="guest = guest:command")
    done = codellm("guest", path=tmp_path)
    assert done.returncode == code
    assert what in done.stderr
    assert "Traceback" not in done.stderr
