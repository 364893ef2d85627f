"""`codellm eval` in a process of its own, in a directory with a model and the plugin that knows HumanEval's answers."""

from pathlib import Path

import pytest

from codellm_eval.judge.sandbox import sandbox_status
from support.plugin_folder import codellm
from support.workdir import make_workdir

ORACLE = (Path(__file__).parent / "oracle.py").read_text()
STATUS = sandbox_status()
needs_sandbox = pytest.mark.skipif(not STATUS.ok, reason=f"no sandbox here: {STATUS.reason}; {STATUS.remedy}")


def oracle_workdir(tmp_path, monkeypatch):
    """A directory with a model in it, to run in, and the plugin installed beside it."""
    make_workdir(tmp_path, "codellm-oracle", ORACLE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_ALLOW_CODE_EVAL", raising=False)
    return tmp_path


def evaluate(workdir, *args, code=0, **env):
    """Run a command that ends with `code`, whatever happens without a traceback."""
    done = codellm("eval", *args, path=workdir / "site", **env)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def humaneval(workdir, *args, **how):
    """HumanEval with the plugin's model, into the folder `out`."""
    return evaluate(workdir, "humaneval", "-m", "model", "-b", "oracle", "--output", "out", *args, **how)


def error_line(done):
    """The one line that says what is wrong."""
    [line] = [line for line in done.stderr.splitlines() if line.startswith("codellm: ")]
    return line
