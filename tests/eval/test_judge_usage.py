"""What a sample's tasks use together, and how long they were kept from running, also on a busy machine."""

import os
import subprocess
import sys
import time

import pytest

from codellm_eval.judge.harness import usage
from codellm_eval.judge.isolation import unconfined
from codellm_eval.judge.judge import CONTROL, judge_all
from codellm_eval.judge.limits import Limits
from support.judging import add, judged, sandbox_of

BURN = """
    import os, signal, subprocess, sys, threading, time
    def burn(seconds, clock=time.process_time):
        start = clock()
        while clock() - start < seconds: pass
    def child(seconds):
        pid = os.fork()
        if pid == 0: burn(seconds); os._exit(0)
        return pid
    def orphan(seconds):
        r, w = os.pipe()
        pid = os.fork()
        if pid == 0:
            if os.fork() == 0: burn(seconds); os.write(w, b'x')
            os._exit(0)
        os.waitpid(pid, 0); os.close(w); os.read(r, 1); os.close(r)
    def threads(*seconds):
        all = [threading.Thread(target=burn, args=(each, time.thread_time)) for each in seconds]
        for thread in all: thread.start()
        for thread in all: thread.join()
"""
TOO_MUCH = {
    "orphans": "for _ in range(3): orphan(0.6)",
    "children that are waited for": "for _ in range(3): os.waitpid(child(0.6), 0)",
    "children beside each other": "for pid in [child(0.6) for _ in range(3)]: os.waitpid(pid, 0)",
    "children that nobody waits for": """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for _ in range(4):
        try: os.waitpid(child(0.6), 0)
        except ChildProcessError: pass""",
    "zombies": "[child(0.4) for _ in range(5)]; time.sleep(40)",
    "threads and a child": "threads(0.3, 0.3); os.waitpid(child(0.6), 0)",
    "orphans of orphans": """
    r, w = os.pipe()
    for depth in range(4):
        if os.fork(): burn(0.4); os._exit(0) if depth else None; break
    else: burn(0.4); os.write(w, b'x'); os._exit(0)
    os.read(r, 1)""",
}
ENOUGH = {
    "the main thread": "burn(0.5)",
    "a thread": "threads(0.5)",
    "threads": "threads(0.1, 0.1, 0.1, 0.1, 0.1)",
    "a child": "os.waitpid(child(0.5), 0)",
    "another program": "subprocess.run([sys.executable, '-c', 'sum(range(10**7))'], check=True)",
    "an orphan": "orphan(0.5)",
    "many children": "for _ in range(25): os.waitpid(child(0.02), 0)",
}


SPIN = "import os; os.setsid()\nwhile True: pass"
"""A session of its own, where the kernel shares the processors out by sessions."""


@pytest.fixture
def busy_machine():
    others = [subprocess.Popen([sys.executable, "-S", "-c", SPIN]) for _ in range(7 * os.cpu_count())]
    yield
    for other in others:
        other.kill()
        other.wait()


def judge_at(level, programs, limits):
    jobs = [(name, CONTROL, f"{BURN}    {lines.lstrip()}\n    return a + b\n") for name, lines in programs.items()]
    return dict(judge_all(jobs, sandbox=sandbox_of(level), limits=limits, workers=2))


@pytest.mark.parametrize(("level", "programs"), [("A", TOO_MUCH), ("B", {"orphans": TOO_MUCH["orphans"]})])
def test_processor_time_is_budgeted_over_all_tasks(level, programs):
    verdicts = judge_at(level, programs, Limits(cpu_seconds=1, wall_seconds=60))
    assert {name: verdict.outcome for name, verdict in verdicts.items()} == dict.fromkeys(programs, "timeout")
    assert all("CPU time together" in verdict.message for verdict in verdicts.values())


def test_processor_time_of_children_counts_without_a_sandbox_too():
    orphans = f"{BURN}    {TOO_MUCH['orphans']}\n    return a + b\n"
    assert add(orphans, unconfined(), Limits(cpu_seconds=1, wall_seconds=60)).outcome == "timeout"


@pytest.mark.alone
def test_a_busy_machine_fails_nobody_whose_tasks_wait_for_a_processor(busy_machine):
    verdicts = judge_at("A", ENOUGH, Limits(cpu_seconds=3, wall_seconds=2.5))
    assert {name: verdict.outcome for name, verdict in verdicts.items()} == dict.fromkeys(ENOUGH, "passed"), verdicts


@pytest.mark.alone
def test_a_busy_machine_waits_for_nobody_who_sleeps(busy_machine):
    assert add("    import time; time.sleep(60)\n", sandbox_of("A"), Limits(wall_seconds=1)).outcome == "timeout"


@pytest.mark.alone
def test_a_test_that_waits_for_a_processor_costs_its_program_nothing(busy_machine):
    work = "import time\nstart = time.process_time()\nwhile time.process_time() - start < 0.5: pass\nassert f() == 1"
    assert judged("def f(): return 1", work, sandbox_of("A"), limits=Limits(cpu_seconds=2, wall_seconds=2)).passed


class Processes(dict):
    """The folder in which a kernel tells of processes: their seconds of processor time."""

    def __init__(self, proc, seconds):
        super().__init__(seconds)
        self.proc = proc

    def __call__(self):
        ticks = os.sysconf("SC_CLK_TCK")
        for process, seconds in self.items():
            (self.proc / str(process)).mkdir(exist_ok=True)
            fields = ["0"] * 11 + [str(round(ticks * seconds)), "0", "0", "0"]
            (self.proc / str(process) / "stat").write_text(f"{process} (a) {' '.join(fields)}\n")
        return sorted(self)


def test_time_that_left_with_a_process_is_kept_and_none_is_counted_twice(tmp_path):
    seconds = Processes(tmp_path, {2: 1.0, 3: 0.5, 4: 2.0})
    counted = usage.Usage(seconds, proc=str(tmp_path))
    counted.look()
    assert counted.cpu == 3.5
    seconds[2] += seconds.pop(3)  # a parent collected it
    counted.look()
    assert counted.cpu == 3.5
    counted.collect(seconds.pop(4))  # process 1 did
    counted.look()
    assert counted.cpu == 3.5
    seconds[5] = 0.25
    counted.look()
    del seconds[5]  # nobody did
    counted.look()
    assert counted.cpu == 3.75
    seconds[2] += 1
    counted.look()
    assert counted.cpu == 4.75


def test_the_clock_stands_still_at_most_as_long_as_time_goes_by(tmp_path):
    for task in (7, 8):
        folder = tmp_path / "7" / "task" / str(task)
        folder.mkdir(parents=True)
        (folder / "schedstat").write_text("0 100000000000 1\n")
    counted = usage.Usage(lambda: [7], proc=str(tmp_path))
    time.sleep(0.01)
    counted.look()
    assert counted.clock == pytest.approx(0.0, abs=1e-6)
    time.sleep(0.01)
    counted.look()
    assert counted.clock >= 0.01
