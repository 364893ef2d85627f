"""`codellm eval` in a process of its own, in a place with a model and the plugin that knows HumanEval's answers."""

from pathlib import Path

import pytest

from codellm_eval.judge.sandbox import sandbox_status
from support.plugin_folder import codellm, install_plugin

ORACLE = (Path(__file__).parent / "oracle.py").read_text()
STATUS = sandbox_status()
needs_sandbox = pytest.mark.skipif(not STATUS.ok, reason=f"no sandbox here: {STATUS.reason}; {STATUS.remedy}")


def make_place(tmp_path, monkeypatch):
    """A directory with a model in it, to run in, and the plugin installed beside it."""
    site, model = tmp_path / "site", tmp_path / "model"
    site.mkdir()
    install_plugin(site, "codellm-oracle", ORACLE)
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "tokenizer.json").write_text("{}")
    (model / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_ALLOW_CODE_EVAL", raising=False)
    return tmp_path


def evaluate(place, *args, code=0, **env):
    """Run a command that ends with `code`, whatever happens without a traceback."""
    done = codellm("eval", *args, path=place / "site", **env)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def humaneval(place, *args, **how):
    """HumanEval with the plugin's model, into the folder `out`."""
    return evaluate(place, "humaneval", "-m", "model", "-b", "oracle", "--output", "out", *args, **how)


def error_line(done):
    """The one line that says what is wrong."""
    [line] = [line for line in done.stderr.splitlines() if line.startswith("codellm: ")]
    return line
