"""Ends that nobody plans: a killed judge, Ctrl-C, a full disk, another user, a machine with no time."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import psutil
import pytest

import codellm
import codellm_eval
from codellm_eval.judge.judge import CONTROL, judge_all
from codellm_eval.judge.limits import Limits
from support.judging import add, sandbox_of
from support.processes import name, running, started

SLEEPER = """
    import os, time
    try: os.fork()
    except OSError: pass
    time.sleep(3600)
"""
JUDGE = """
import json, sys
from codellm_eval.judge.judge import CONTROL, judge_all
from codellm_eval.judge.limits import Limits
from codellm_eval.judge.sandbox import find_sandbox
programs, level = json.loads(sys.argv[1]), sys.argv[2]
sandbox = find_sandbox(level).require()
print("judging", flush=True)
for number, verdict in judge_all(((n, CONTROL, p) for n, p in enumerate(programs)), sandbox=sandbox,
                                 limits=Limits(cpu_seconds=2, wall_seconds=600.0 if "3600" in sys.argv[1] else 8.0),
                                 workers=2):
    print(json.dumps([number, verdict.outcome, verdict.message]), flush=True)
"""


@pytest.fixture(scope="module", params=["A", "B", "C"])
def level(request):
    sandbox_of(request.param)
    return request.param


def start(level, *programs, python=sys.executable, prefix=(), **options):
    return subprocess.Popen(
        [*prefix, python, "-c", JUDGE, json.dumps(programs), level], stdout=subprocess.PIPE, text=True, **options
    )


def descendants(judge):
    return psutil.Process(judge.pid).children(recursive=True)


def wait_for(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def gone(processes):
    return not [process for process in processes if running(process)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_judge_that_is_ended_leaves_nothing(level, number):
    with start(level, CONTROL.canonical_solution, SLEEPER, SLEEPER, stderr=subprocess.DEVNULL) as judge:
        assert judge.stdout.readline() == "judging\n"
        assert json.loads(judge.stdout.readline())[:2] == [0, "passed"]
        time.sleep(0.3)
        started = wait_for(lambda: descendants(judge))
        judge.send_signal(number)
        judge.wait(30)
        wait_for(lambda: gone(started))


def test_a_killed_server_or_checker_costs_no_verdict():
    sandbox = sandbox_of("A")
    sleep = "    import time; time.sleep(0.3); return a + b\n"
    verdicts = judge_all(((n, CONTROL, sleep) for n in range(8)), sandbox=sandbox, limits=Limits(), workers=1)
    found = [next(verdicts)]
    for _ in range(2):
        found.append(next(verdicts))
        [worker] = psutil.Process().children()
        [bwrap] = [child for child in worker.children() if name(child) == "bwrap"]
        bwrap.kill()
    found += verdicts
    assert sorted(key for key, _ in found) == list(range(8))
    assert all(verdict.passed for _, verdict in found), found


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small folder in namespaces of its own")
def test_a_full_temporary_folder_changes_no_verdict(level, tmp_path):
    script = 'mount -t tmpfs -o size=64k tmpfs "$TMPDIR"; head -c 1M /dev/zero > "$TMPDIR/full" 2>/dev/null; exec "$@"'
    prefix = ("unshare", "--mount", "sh", "-c", script, "sh")
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(tmp_path)}
    with start(level, CONTROL.canonical_solution, "    return 0", prefix=prefix, env=environment) as judge:
        lines = judge.stdout.read().splitlines()[1:]
    assert sorted(json.loads(line)[:2] for line in lines) == [[0, "passed"], [1, "failed"]]


@pytest.mark.skipif(os.geteuid() != 0, reason="this is another user already")
def test_another_user_judges_as_root_does(level):
    """In a mount namespace, where the interpreter lies at a place that everyone may read."""
    site = [sysconfig.get_path("purelib"), *(path for path in sys.path if path.endswith("site-packages"))]
    sources = [str(Path(package.__file__).parents[1]) for package in (codellm, codellm_eval)]
    escape = "    return a + b if open('/etc/shadow').read() else 0\n"
    program = "\n".join((  # everything that this user needs, at paths that it may read
        "set -e; mount -t tmpfs tmpfs /mnt; cd /mnt; mkdir python lib; chmod 755 /mnt; shift 1",
        f"mount --bind {sys.base_prefix} python",
        *(f"mkdir lib/{number}; mount --rbind {path} lib/{number}" for number, path in enumerate((*sources, *site))),
        'exec setpriv --reuid 4321 --regid 4321 --clear-groups --bounding-set -all "$@"',
    ))  # fmt: skip
    places = os.pathsep.join(f"/mnt/lib/{number}" for number in range(len((*sources, *site))))
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": places, "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/tmp"}
    executable = f"/mnt/python/bin/python{sys.version_info[0]}.{sys.version_info[1]}"
    prefix = ("unshare", "--mount", "sh", "-c", program, "sh", "-")
    programs = (
        CONTROL.canonical_solution,
        "    return 0",
        escape,
        "    import os; os.abort()\n",
        "    while True: pass\n",
    )
    with start(level, *programs, python=executable, prefix=prefix, env=environment) as judge:
        lines = judge.stdout.read().splitlines()[1:]
    outcomes = [json.loads(line)[1] for line in sorted(lines, key=lambda line: json.loads(line)[0])]
    assert outcomes == ["passed", "failed", "failed", "crash", "timeout"]


@pytest.mark.skipif(not shutil.which("python3", path="/usr/bin"), reason="no interpreter of the system's")
def test_the_systems_own_interpreter_judges(level):
    site = [path for path in sys.path if path.endswith("site-packages")]
    sources = [str(Path(package.__file__).parents[1]) for package in (codellm, codellm_eval)]
    found = subprocess.run(["/usr/bin/python3", "-V"], capture_output=True, text=True).stdout.split()[1]
    if tuple(map(int, found.split(".")[:2])) != sys.version_info[:2]:
        pytest.skip(f"the system's interpreter is {found}, the installed packages are for another version")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join((*sources, *site))}
    with start(level, CONTROL.canonical_solution, "    return 0", python="/usr/bin/python3", env=environment) as judge:
        lines = judge.stdout.read().splitlines()[1:]
    assert sorted(json.loads(line)[:2] for line in lines) == [[0, "passed"], [1, "failed"]]


CLOCK = """
    import time
    start = time.process_time()
    while time.process_time() - start < {seconds}: pass
    return a + b
"""


def spin():
    while True:
        pass


@pytest.mark.alone
def test_verdicts_are_the_same_when_every_core_is_busy():
    sandbox = sandbox_of("A")
    work = CLOCK.format(seconds=1.0)
    others = [multiprocessing.get_context("spawn").Process(target=spin, daemon=True) for _ in range(4 * os.cpu_count())]
    for other in others:
        other.start()
    try:
        # on the clock this takes longer than its limit, of which the program has to wait for a processor most
        assert add(work, sandbox, Limits(cpu_seconds=2, wall_seconds=2.0)).outcome == "passed"
        assert (
            add("    import time; time.sleep(60)\n", sandbox, Limits(cpu_seconds=2, wall_seconds=2.0)).outcome
            == "timeout"
        )
    finally:
        for other in others:
            other.kill()
            other.join()


def test_many_samples_leave_the_judge_as_it_was():
    """The short form of the soak in tests/benchmarks/judge.py."""
    jobs = ((number, CONTROL, CONTROL.canonical_solution) for number in range(600))
    mounts = Path("/proc/self/mountinfo").read_text().count("\n")
    others = set(psutil.Process().children())  # multiprocessing keeps one of its own, once it has started another
    sizes, descriptors = [], []
    for number, verdict in judge_all(jobs, sandbox=sandbox_of("A"), limits=Limits(), workers=1):
        assert verdict.passed, verdict
        if number % 100 == 99:
            [worker] = set(psutil.Process().children()) - others
            [bwrap] = [child for child in worker.children() if name(child) == "bwrap"]
            inside = [child for child in bwrap.children(recursive=True) if name(child) not in {"", "bwrap"}]
            server = min(inside, key=started)  # the samples come after it
            # all that is resident: what is private to the server depends on whether a sample shares its pages now
            sizes.append(worker.memory_info().rss + server.memory_info().rss)
            descriptors.append([worker.num_fds(), server.num_fds()])
    assert max(sizes[1:]) - sizes[1] < 2 << 20
    assert max(map(max, descriptors)) < 24
    assert set(psutil.Process().children(recursive=True)) == others
    assert Path("/proc/self/mountinfo").read_text().count("\n") == mounts
