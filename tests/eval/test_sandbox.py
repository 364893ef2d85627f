"""Which level of isolation is chosen, and what is said where code cannot or may not run."""

import json
import os
import subprocess
import sys

import attrs
import pytest

from codellm.errors import InvalidValueError
from codellm_eval.errors import CodeExecutionError, SandboxError
from codellm_eval.judge import isolation
from codellm_eval.judge.judge import judge
from codellm_eval.judge.limits import Limits
from codellm_eval.judge.probe import probe
from codellm_eval.judge.sandbox import (
    code_allowed,
    find_sandbox,
    require_permission,
    sandbox_status,
    unsandboxed_or_sandbox,
)
from support.judging import CONTROL, sandbox_of


@pytest.fixture
def fresh():
    """Look again, not at what an earlier look found."""
    find_sandbox.cache_clear()
    yield
    find_sandbox.cache_clear()


def only_bwrap(folder, complaint):
    """A bwrap that refuses, before what is installed."""
    broken = folder / "bwrap"
    broken.write_text(f"#!/bin/sh\necho '{complaint}' >&2\nexit 1\n")
    broken.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.parametrize("level", ["A", "B", "C"])
def test_each_level_proves_itself_when_forced(level, monkeypatch):
    sandbox_of(level)
    monkeypatch.setenv("CODELLM_ISOLATION", level)
    assert sandbox_status().require().level == level


def test_without_bubblewrap_the_next_level_is_taken_and_the_reason_told(monkeypatch, tmp_path, fresh):
    sandbox_of("C")
    monkeypatch.setenv("PATH", str(tmp_path))
    status = find_sandbox("ABC")
    assert status.require().level == "C"
    assert (status.reason, status.remedy) == ("bubblewrap is not installed", "apt-get install bubblewrap")


def test_no_weaker_level_than_asked_for(monkeypatch, tmp_path, fresh):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CODELLM_ISOLATION", "AB")
    with pytest.raises(SandboxError, match="bubblewrap is not installed; apt-get install bubblewrap"):
        sandbox_status().require()
    with pytest.raises(InvalidValueError, match="CODELLM_ISOLATION takes letters of ABC"):
        find_sandbox("D")


def test_what_bubblewrap_complains_of_is_passed_on(monkeypatch, tmp_path, fresh):
    monkeypatch.setenv("PATH", only_bwrap(tmp_path, "bwrap: Unknown option --size"))
    status = find_sandbox("AB")
    assert not status.ok
    assert "bwrap: Unknown option --size" in status.reason
    assert "0.8" in status.remedy


def test_a_sandbox_that_does_not_start_is_an_error_not_a_failure(tmp_path):
    broken = attrs.evolve(isolation.unconfined(), command=(str(tmp_path / "none"),))
    with pytest.raises(SandboxError, match="cannot start"):
        judge(CONTROL, "    return 3", sandbox=broken, limits=Limits())


def test_a_sandbox_that_isolates_nothing_does_not_pass_the_probe():
    reason = probe(isolation.unconfined())
    for hole in ("reads the machine's files", "sends signals to the judge", "reaches the machine's network"):
        assert hole in reason


def test_a_level_without_its_filter_does_not_pass_the_probe():
    level = sandbox_of("A")
    command = [part.replace("run()", "import harness.kernel as k; k.filter_calls = lambda _: None; run()")
               for part in level.command]  # fmt: skip
    assert "makes any system call" in probe(attrs.evolve(level, command=tuple(command)))


def test_unsandboxed_execution_only_where_asked_for_and_nothing_else_works(monkeypatch, tmp_path, fresh):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CODELLM_ISOLATION", "A")
    with pytest.raises(SandboxError):
        unsandboxed_or_sandbox(False)
    assert unsandboxed_or_sandbox(True).level == "D"
    verdict = judge(CONTROL, CONTROL.canonical_solution, sandbox=unsandboxed_or_sandbox(True), limits=Limits())
    assert (verdict.passed, verdict.isolation) == (True, "D")


def test_other_systems_are_told_of_a_container(monkeypatch, fresh):
    monkeypatch.setattr(sys, "platform", "darwin")
    status = find_sandbox("ABC")
    assert "darwin" in status.reason
    assert "docker run" in status.remedy
    with pytest.raises(SandboxError, match="docker run"):
        unsandboxed_or_sandbox(True)


def test_code_runs_only_with_permission():
    assert code_allowed(True, {})
    assert code_allowed(False, {"HF_ALLOW_CODE_EVAL": "1"})
    assert not code_allowed(False, {"HF_ALLOW_CODE_EVAL": "0"})
    with pytest.raises(CodeExecutionError, match="--allow-code-execution or HF_ALLOW_CODE_EVAL=1"):
        require_permission(False, {})


def test_a_judge_that_is_wrong_is_no_missing_sandbox():
    # the tests of the judge are skipped where a level cannot run; a wrong verdict must not skip them
    assert "known to be" not in find_sandbox("ABC").reason


CONTAINER = """
import json
from codellm_eval.judge.harness import kernel, seccomp
from codellm_eval.judge.judge import CONTROL, judge_all
from codellm_eval.judge.limits import Limits
from codellm_eval.judge.sandbox import find_sandbox

kernel.forbid_privileges()
kernel.filter_calls(seccomp.program())
status = find_sandbox("ABC")
programs = (CONTROL.canonical_solution, "    return 4\\n", "    return a + b if open('/etc/passwd').read() else 0\\n")
jobs = [(number, CONTROL, program) for number, program in enumerate(programs)]
verdicts = judge_all(jobs, sandbox=status.require(), limits=Limits(), workers=1)
print(json.dumps([status.sandbox.level, status.reason, [verdict.outcome for _, verdict in verdicts]]))
"""


def test_in_a_container_that_forbids_namespaces_programs_are_judged_without():
    """Docker's default filter refuses namespaces and mounts, as the sandbox's own does."""
    sandbox_of("A")
    sandbox_of("C")
    done = subprocess.run([sys.executable, "-c", CONTAINER], stdout=subprocess.PIPE, check=True)
    level, reason, outcomes = json.loads(done.stdout)
    assert (level, outcomes) == ("C", ["passed", "failed", "failed"])
    assert "bwrap: " in reason


def test_a_place_that_cannot_be_prepared_is_told_at_once():
    """Not waited for until the program's time is up: it never started."""
    broken = attrs.evolve(sandbox_of("A"), scratch={"/nowhere": "size=1"})
    limits = Limits(cpu_seconds=60, wall_seconds=600.0)
    with pytest.raises(SandboxError, match="cannot prepare a program's place: FileNotFoundError"):
        judge(CONTROL, CONTROL.canonical_solution, sandbox=broken, limits=limits)
