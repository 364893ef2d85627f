"""The judge on real programs, in each level of isolation that works here."""

import functools
import os
import socket
import tempfile
import time
from pathlib import Path

import attrs
import psutil
import pytest

from codellm_eval.errors import ProblemsError, SandboxError
from codellm_eval.humaneval.problems import load_problems
from codellm_eval.judge import isolation
from codellm_eval.judge.harness.checker import MAX_MESSAGE
from codellm_eval.judge.judge import CONTROL, Program, judge_all
from codellm_eval.judge.limits import Limits
from support.judging import LIMITS, add, judged, sandbox_of
from support.processes import running

HOSTILE = Path(__file__).parent / "hostile"
EXPECTED = dict(line.split("\t") for line in (HOSTILE / "expected.tsv").read_text().splitlines())
ALONE = {"c07_subprocess", "c23_multiprocessing", "c28_child_answers_nothing", "e11_daemon_survivor",
         "e39_second_survivor", "c27_shared_memory"}  # fmt: skip
"""Right programs that level C refuses, as docs/sandbox.md says: they start processes, or need more than a folder."""
EQUAL = """
class Equal:
    __eq__ = __le__ = __ge__ = __lt__ = __gt__ = __contains__ = lambda self, other: True
    __ne__ = lambda self, other: False
    __hash__ = lambda self: 0
    __bool__ = lambda self: True
    __len__ = lambda self: 1
    __getitem__ = __call__ = __sub__ = __rsub__ = __add__ = __abs__ = lambda self, *args: self
    __iter__ = lambda self: iter([self])
{name} = lambda *args, **kwargs: Equal()
"""


@pytest.fixture(scope="module", params=["A", "B", "C"])
def each(request):
    return sandbox_of(request.param)


def processes():
    return [process for process in psutil.Process().children(recursive=True) if running(process)]


def told(program, own):
    """A program that knows what is this run's own: two runs on one machine do not see each other's."""
    for name, value in own.items():
        program = program.replace(f"<{name}>", value)
    return program


def programs(level):
    """B is slow, and differs from A in what isolates: forged answers and time are no matter of that."""
    return [name for name in EXPECTED if level != "B" or name[0] not in "ft"]


@functools.cache
def verdicts_on_hostile_programs(level):
    """All of them beside each other, with secrets in reach of a leak.

    Of the memory only half is theirs: where the kernel has to make room for it, a whole GiB takes all of the CPU time.
    """
    sandbox, limits = sandbox_of(level), Limits(cpu_seconds=2, wall_seconds=6, memory=512 << 20)
    with (
        pytest.MonkeyPatch.context() as patch,
        socket.create_server(("127.0.0.1", 0)) as listener,
        tempfile.NamedTemporaryFile("w", prefix="codellm-canary-", dir="/tmp") as canary,
    ):
        canary.write("secret")
        canary.flush()
        Path(canary.name).chmod(0o644)  # anybody may read it, but for the sandbox
        patch.setenv("HF_TOKEN", "secret")
        own = {"PORT": str(listener.getsockname()[1]), "CANARY": canary.name}
        jobs = [(name, CONTROL, told((HOSTILE / f"{name}.py").read_text("utf-8"), own)) for name in programs(level)]
        verdicts = dict(judge_all(jobs, sandbox=sandbox, limits=limits, workers=4))
    assert processes() == []
    assert not Path("core").exists()
    return verdicts


@pytest.mark.parametrize(("level", "name"), [(level, name) for level in "ABC" for name in programs(level)])
def test_hostile_programs_get_the_right_verdict(level, name):
    verdict = verdicts_on_hostile_programs(level)[name]
    expected = EXPECTED[name].split("|")
    if level == "C" and name in ALONE:
        expected = ["failed"]
    elif level == "C" and name[0] != "c":
        expected.append("failed")  # what starts processes fails there before it comes to its end
    assert verdict.outcome in expected, verdict
    assert verdict.isolation == level
    assert len(verdict.message) <= MAX_MESSAGE
    assert verdict.message.isprintable()


def test_every_hostile_program_is_expected_to_end_somehow():
    assert {path.stem for path in HOSTILE.glob("*.py")} == set(EXPECTED)


def test_all_canonical_solutions_pass(each):
    problems = load_problems()
    jobs = ((task, problem, problem.canonical_solution) for task, problem in problems.items())
    verdicts = dict(judge_all(jobs, sandbox=each, limits=Limits(), workers=2))
    assert len(verdicts) == 164
    assert {task: verdict.message for task, verdict in verdicts.items() if not verdict.passed} == {}


def test_an_object_that_equals_everything_passes_nothing(sandbox):
    jobs = ((task, problem, Program(EQUAL.format(name=problem.entry_point)))
            for task, problem in load_problems().items())  # fmt: skip
    verdicts = dict(judge_all(jobs, sandbox=sandbox, limits=LIMITS, workers=2))
    assert [task for task, verdict in verdicts.items() if verdict.passed] == []
    assert {verdict.outcome for verdict in verdicts.values()} == {"failed"}


def test_empty_completions_fail(sandbox):
    problems = list(load_problems().values())[:6]
    verdicts = list(judge_all([(p, p, "") for p in problems], sandbox=sandbox, limits=LIMITS, workers=2))
    assert {verdict.outcome for _, verdict in verdicts} == {"failed"}


def test_a_test_that_catches_everything_does_not_go_on_without_its_candidate(sandbox):
    test = "try: f()\nexcept BaseException: pass"
    assert judged("def f(): raise ValueError", test, sandbox).passed
    assert judged("import os\ndef f(): os._exit(0)", test, sandbox).outcome == "failed"
    assert judged("import os\ndef f(): os.abort()", test, sandbox).outcome == "crash"


def test_a_candidate_that_was_never_called_has_not_passed(sandbox):
    verdict = judged("def f(): return 3", "pass", sandbox)
    assert (verdict.outcome, verdict.message) == ("failed", "the test never called the candidate")


def test_a_test_that_an_answer_leads_astray_is_ended(sandbox):
    endless = judged(
        "def f():\n    while True: yield 1",
        "assert sum(f()) == 3",
        sandbox,
        limits=Limits(cpu_seconds=1, wall_seconds=4),
    )
    assert endless.outcome == "timeout"
    assert judged("def f(): return 1 << 40", "x = [0] * f()", sandbox).outcome == "memory"


def test_time_is_budgeted_over_the_whole_check(sandbox):
    program = "import time\ndef f():\n    t = time.process_time()\n    while time.process_time() - t < 0.4: pass"
    assert (
        judged(program, "for _ in range(20): f()", sandbox, limits=Limits(cpu_seconds=1, wall_seconds=20)).outcome
        == "timeout"
    )


def test_memory_is_limited_as_asked(sandbox):
    program = "def f(): return len(bytearray(300 << 20))"
    assert judged(program, "assert f() == 300 << 20", sandbox).passed
    assert judged(program, "assert f() == 300 << 20", sandbox, limits=Limits.of(3, memory=128)).outcome == "memory"


def test_messages_are_one_bounded_line_even_when_an_exception_will_not_print(sandbox):
    assert add("    raise ValueError('a\\nb\\x1b[31m' * 10000)", sandbox).message.startswith("ValueError: a b?[31ma b?")
    silent = "    class E(Exception):\n        def __str__(self): raise E\n    raise E\n"
    assert add(silent, sandbox).message == "E"


def test_a_large_program_goes_through_the_pipe(sandbox):
    assert add("    x = '" + "y" * 500_000 + "'\n    return a + b\n", sandbox).passed


def test_a_problem_that_is_no_python_is_an_error_of_the_problem(sandbox):
    broken = attrs.evolve(CONTROL, task_id="Test/7", test="def check(:\n")
    with pytest.raises(ProblemsError, match="Test/7"):
        list(judge_all([(0, broken, "    return 3")], sandbox=sandbox, limits=LIMITS, workers=1))


def test_a_problem_without_a_canonical_solution_can_be_judged(sandbox):
    problem = attrs.evolve(CONTROL, canonical_solution="")
    [(_, verdict)] = judge_all([(0, problem, "    return a + b")], sandbox=sandbox, limits=LIMITS, workers=1)
    assert verdict.passed


def test_jobs_are_pulled_as_there_is_room(sandbox):
    pulled = []

    def jobs():
        for number in range(12):
            pulled.append(number)
            yield number, CONTROL, CONTROL.canonical_solution

    verdicts = judge_all(jobs(), sandbox=sandbox, limits=LIMITS, workers=1)
    next(verdicts)
    assert len(pulled) < 6
    verdicts.close()


def test_dropping_the_iterator_kills_what_runs(each):
    sleeper = "    import time; time.sleep(60)\n"
    jobs = [(0, CONTROL, CONTROL.canonical_solution), (1, CONTROL, sleeper), (2, CONTROL, sleeper)]
    verdicts = judge_all(jobs, sandbox=each, limits=Limits.of(60), workers=3)
    assert next(verdicts)[0] == 0
    start = time.monotonic()
    verdicts.close()
    assert time.monotonic() - start < 20
    assert processes() == []


def test_a_killed_worker_costs_no_verdict(each):
    verdicts = judge_all(
        ((n, CONTROL, CONTROL.canonical_solution) for n in range(30)), sandbox=each, limits=LIMITS, workers=1
    )
    found = [next(verdicts)]
    psutil.Process().children()[0].kill()
    found += verdicts
    assert sorted(key for key, _ in found) == list(range(30))
    assert all(verdict.passed for _, verdict in found)
    assert processes() == []


def test_a_sandbox_that_fails_again_and_again_ends_the_run(sandbox):
    dying = attrs.evolve(sandbox, command=("/bin/sh", "-c", "exit 3"))
    with pytest.raises(SandboxError, match="failed 6 times"):
        list(judge_all([(0, CONTROL, "    return 3")], sandbox=dying, limits=LIMITS, workers=1))


def test_a_judge_that_passes_everything_ends_the_run(sandbox):
    command = [part.replace("run()", "import harness.candidate as c; c._define = lambda *x: lambda *x: 3; run()")
               for part in sandbox.command]  # fmt: skip
    forged = attrs.evolve(sandbox, command=tuple(command))
    with pytest.raises(SandboxError, match="a program known to be failed was passed"):
        list(judge_all([(0, CONTROL, "    return 3")], sandbox=forged, limits=LIMITS, workers=1))


def test_a_sandbox_that_shows_installed_packages_ends_the_run():
    open_to_all = attrs.evolve(isolation.unconfined(), level="A")
    with pytest.raises(SandboxError, match="a program that reads site-packages was passed"):
        list(judge_all([(0, CONTROL, "    return 3")], sandbox=open_to_all, limits=LIMITS, workers=1))


ALONE_TRIES = """
def tries(judge):
    import ctypes, fcntl, os, resource, signal, socket
    libc, done = ctypes.CDLL(None, use_errno=True), []
    open("own", "w").close()

    def attempt(name, act, *args):
        try:
            act(*args)
        except OSError:
            return
        done.append(name)

    def system(name, *args):
        if getattr(libc, name)(*(ctypes.c_long(arg) if type(arg) is int else arg for arg in args)) == -1:
            raise OSError(ctypes.get_errno(), name)

    attempt("fork", os.fork)
    attempt("vfork and exec", os.posix_spawn, "/bin/true", ["true"], {})
    attempt("exec", os.execv, "/bin/true", ["true"])
    attempt("signal to the judge", os.kill, judge, 0)
    attempt("signal to the server", os.kill, os.getppid(), 0)
    attempt("signal to all", os.kill, -1, 0)
    attempt("signal to the group", os.killpg, os.getpgid(os.getppid()), 0)
    attempt("signal through a thread", system, "tgkill", judge, judge, 0)
    attempt("descriptor of a process", os.pidfd_open, judge)
    attempt("signals by ownership", fcntl.fcntl, os.open("own", os.O_RDONLY), fcntl.F_SETOWN, judge)
    attempt("socket", socket.socket)
    attempt("unix socket", socket.socket, socket.AF_UNIX)
    attempt("mode", os.chmod, "own", 0o777)
    attempt("mode of the parent", os.chmod, "..", 0o777)
    attempt("owner", os.chown, "own", os.getuid(), os.getgid())
    attempt("times", os.utime, "own")
    attempt("attribute", os.setxattr, "own", "user.x", b"1")
    attempt("link out", os.link, "/etc/passwd", "linked")
    attempt("rename out", os.rename, "own", "/tmp/codellm-own")
    attempt("write beside", open, "../beside", "w")
    attempt("list beside", os.listdir, "..")
    attempt("read through a link", lambda: (os.symlink("/etc/passwd", "soft"), open("soft")))
    attempt("process", os.listdir, "/proc/self")
    attempt("memory of the server", open, f"/proc/{os.getppid()}/mem")
    attempt("priority of the judge", os.setpriority, os.PRIO_PROCESS, judge, 5)
    attempt("processors of the judge", os.sched_setaffinity, judge, {0})
    attempt("limits of the judge", resource.prlimit, judge, resource.RLIMIT_NOFILE, (8, 8))
    attempt("death signal", system, "prctl", 1, 0)
    attempt("watch", system, "inotify_add_watch", libc.inotify_init(), b"/etc", 0xFFF)
    attempt("message queue", system, "msgget", 0, 0o1600)
    attempt("new filter without effect", os.truncate, "/etc/hostname", 0)
    os.kill(os.getpid(), 0)
    return done
"""


def test_a_program_alone_in_its_process_reaches_nothing_else():
    program = Program(ALONE_TRIES)
    test = f"def check(candidate):\n    done = candidate({os.getpid()})\n    assert done == [], done\n"
    problem = attrs.evolve(
        CONTROL, prompt="", canonical_solution="def tries(judge): pass", entry_point="tries", test=test
    )
    [(_, verdict)] = judge_all([(0, problem, program)], sandbox=sandbox_of("C"), limits=LIMITS, workers=1)
    assert verdict.passed, verdict.message
