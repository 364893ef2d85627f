"""The judge on real programs under the real bubblewrap."""

import threading
import time
from pathlib import Path

import psutil
import pytest

from codellm_eval.bubblewrap import Limits
from codellm_eval.errors import SandboxError
from codellm_eval.judge import judge, judge_all, run_program
from codellm_eval.problems import Problem, load_problems
from codellm_eval.sandbox import sandbox_status

HOSTILE = sorted((Path(__file__).parent / "hostile").glob("*.py"))
STATUS = sandbox_status()
LIMITS = Limits(cpu_seconds=3, wall_seconds=12)
ADD = Problem(
    "Test/add",
    "def add(a, b):\n",
    "add",
    "    return a + b\n",
    "def check(candidate):\n    assert candidate(1, 2) == 3\n",
)
FAILURES = {"failed", "crash"}
EXPECTED = {"c": {"passed"}, "f": FAILURES, "x": FAILURES, "t": {"timeout"}, "r": FAILURES, "e": FAILURES}
EITHER = FAILURES | {"timeout"}
OTHER = {
    "e11_daemon_survivor": {"passed"},
    "f15_catch_timeout": {"timeout"},
    "t06_input": FAILURES,
    "r02_fork_bomb": EITHER,
    "r05_output_flood": EITHER,
    "r06_inode_bomb": EITHER,
    "x01_segfault": {"crash"},
    "x02_abort": {"crash"},
    "x03_deep_c_stack": {"crash"},
}

pytestmark = pytest.mark.skipif(not STATUS.ok, reason=f"no sandbox here: {STATUS.reason}; {STATUS.remedy}")


@pytest.fixture(scope="module")
def sandbox():
    return STATUS.require()


def add(completion, sandbox, limits=LIMITS):
    return judge(ADD, completion, sandbox=sandbox, limits=limits)


def test_all_canonical_solutions_pass(sandbox):
    problems = load_problems()
    jobs = ((task, problem, problem.canonical_solution) for task, problem in problems.items())
    verdicts = dict(judge_all(jobs, sandbox=sandbox, limits=Limits(), workers=2))
    assert len(verdicts) == 164
    assert {task: verdict.message for task, verdict in verdicts.items() if not verdict.passed} == {}


def test_empty_completions_fail(sandbox):
    problems = list(load_problems().values())[:6]
    verdicts = list(judge_all([(p, p, "") for p in problems], sandbox=sandbox, limits=LIMITS, workers=2))
    assert {verdict.outcome for _, verdict in verdicts} == {"failed"}


@pytest.fixture(scope="module")
def hostile(sandbox, tmp_path_factory):
    """The verdicts on all hostile programs, beside each other, with secrets in reach of a leak."""
    canary = Path("/tmp/codellm-canary")
    canary.write_text("secret")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", "secret")
        jobs = [(path.stem, ADD, path.read_text("utf-8")) for path in HOSTILE]
        verdicts = dict(judge_all(jobs, sandbox=sandbox, limits=LIMITS, workers=2))
    canary.unlink()
    return verdicts


@pytest.mark.parametrize("name", [path.stem for path in HOSTILE])
def test_hostile_programs_get_the_right_verdict(name, hostile, sandbox):
    if name == "e08_ptrace_parent" and not sandbox.as_root:
        pytest.skip("without root the sandbox's init has the program's user id, and only Yama refuses the ptrace")
    assert hostile[name].outcome in OTHER.get(name, EXPECTED[name[0]]), hostile[name]
    assert len(hostile[name].message) <= 300
    assert "\n" not in hostile[name].message


def test_nothing_of_a_hostile_program_is_left(hostile):
    assert not [process for process in psutil.Process().children(recursive=True) if process.name() == "bwrap"]
    assert not Path("core").exists()


FORGED = """
    import os
    for fd in range(3, 20):
        try: os.write(fd, b'R' + b'x' * 16)
        except OSError: pass
"""
LOOK = """
import glob, os
def look():
    seen = [p for p in ('/home', '/root/.ssh', '/etc/passwd', '/var', '/opt') if os.path.exists(p)]
    readable = [p for p in glob.glob('/proc/*/environ') if os.access(p, os.R_OK)]
    leaked = any(b'secret' in open(p, 'rb').read() for p in readable)
    return seen, leaked, os.getuid() != 0, len(glob.glob('/proc/[0-9]*'))
"""


def test_a_pass_cannot_be_printed(sandbox):
    assert not add(FORGED, sandbox).passed


def test_nothing_of_the_machine_can_be_seen(sandbox, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    test = "def check(f):\n    *found, processes = f()\n    assert found == [[], False, True] and processes <= 3, f()\n"
    verdict = run_program(LOOK, test, "look", sandbox, LIMITS)
    assert verdict.passed, verdict.message


def test_only_scratch_space_can_be_written_and_it_is_bounded(sandbox):
    program = (
        "import os, sys\n"
        "def write():\n"
        "    for folder in ('/', '/dev', '/usr', sys.prefix, '/proc/sys/kernel'):\n"
        "        try: open(folder + '/x', 'w').close()\n"
        "        except OSError: continue\n"
        "        return folder\n"
        "    for number in range(40):\n"
        "        try: open(f'{number}', 'wb').write(bytes(8 << 20))\n"
        "        except OSError: return number\n"
    )
    test = "def check(f):\n    number = f()\n    assert number in range(2, 10), number\n"
    verdict = run_program(program, test, "write", sandbox, LIMITS)
    assert verdict.passed, verdict.message


def test_messages_are_one_bounded_line_even_when_an_exception_will_not_print(sandbox):
    assert add("    raise ValueError('a\\nb' * 10000)", sandbox).message.startswith("ValueError: a ba b")
    silent = "    class E(Exception):\n        def __str__(self): raise E\n    raise E\n"
    assert add(silent, sandbox).message == "E"


def test_a_large_program_goes_through_the_pipe(sandbox):
    assert add("    x = '" + "y" * 500_000 + "'\n    return a + b\n", sandbox).passed


def test_jobs_are_pulled_as_there_is_room(sandbox):
    pulled = []

    def jobs():
        for number in range(12):
            pulled.append(number)
            yield number, ADD, ADD.canonical_solution

    verdicts = judge_all(jobs(), sandbox=sandbox, limits=LIMITS, workers=1)
    next(verdicts)
    assert len(pulled) < 6
    verdicts.close()


def test_dropping_the_iterator_kills_what_runs(sandbox):
    sleeper = "    import time; time.sleep(60)\n"
    jobs = [(0, ADD, ADD.canonical_solution), (1, ADD, sleeper), (2, ADD, sleeper)]
    verdicts = judge_all(jobs, sandbox=sandbox, limits=Limits.of(60), workers=3)
    assert next(verdicts)[0] == 0
    start = time.monotonic()
    verdicts.close()
    assert time.monotonic() - start < 10
    assert not [process for process in psutil.Process().children(recursive=True) if process.name() == "bwrap"]


def test_a_cancelled_run_is_no_verdict(sandbox):
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(SandboxError, match="cancelled"):
        judge(ADD, "    return 3", sandbox=sandbox, limits=LIMITS, cancel=cancel)
