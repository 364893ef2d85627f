"""What is said where model-written code cannot or may not run; these need no working bubblewrap."""

import os

import pytest

from codellm_eval.bubblewrap import Limits, Sandbox
from codellm_eval.errors import CodeExecutionError, SandboxError
from codellm_eval.judge import run_program
from codellm_eval.sandbox import code_allowed, require_permission, sandbox_status


def run(sandbox):
    return run_program("def f(): pass", "def check(f): pass", "f", sandbox, Limits())


def test_a_sandbox_that_does_not_start_is_an_error_not_a_failure(tmp_path):
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create a new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(SandboxError, match="No permissions to create a new namespace"):
        run(Sandbox(str(broken), False))
    with pytest.raises(SandboxError, match="cannot start"):
        run(Sandbox(str(tmp_path / "none"), False))


def test_status_names_the_command_that_installs_bubblewrap(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    status = sandbox_status.__wrapped__()
    assert not status.ok
    assert status.remedy == "apt-get install bubblewrap"
    with pytest.raises(SandboxError, match="bubblewrap is not installed; apt-get install bubblewrap"):
        status.require()


def test_status_passes_on_what_bubblewrap_complains_of(monkeypatch, tmp_path):
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: Unknown option --size' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    status = sandbox_status.__wrapped__()
    assert (status.ok, status.reason) == (False, "bwrap: Unknown option --size")
    assert "0.8" in status.remedy


def test_code_runs_only_with_permission():
    assert code_allowed(True, {})
    assert code_allowed(False, {"HF_ALLOW_CODE_EVAL": "1"})
    assert not code_allowed(False, {"HF_ALLOW_CODE_EVAL": "0"})
    with pytest.raises(CodeExecutionError, match="--allow-code-execution or HF_ALLOW_CODE_EVAL=1"):
        require_permission(False, {})


def test_a_judge_that_is_wrong_is_no_missing_sandbox():
    # the other tests of the judge are skipped where bubblewrap cannot run; a wrong verdict must not skip them
    assert "judged" not in sandbox_status().reason
