"""What a user does: `pip install codellm-cpu` into an empty environment, from built wheels."""

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of a new environment, with codellm-cpu installed the README's way."""
    folder = tmp_path_factory.mktemp("install")
    wheels = folder / "wheels"
    packages = [str(ROOT / f"codellm-{name}") for name in ("core", "cpu")]
    pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", str(wheels), *packages)
    venv.create(folder / "env", with_pip=True)
    python = str(folder / "env" / "bin" / "python")
    pip(python, "install", "--find-links", str(wheels), "codellm-cpu", "--config-settings=cmake.define.LLAVA_BUILD=OFF")
    return python


def pip(python: str, *arguments: str) -> None:
    done = subprocess.run([python, "-m", "pip", *arguments, "--quiet"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def run(python: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    return subprocess.run([python, *arguments], capture_output=True, text=True, env={**env, "HF_HUB_OFFLINE": "1"})


def test_the_command_line_works_at_once(python):
    done = run(python, "-m", "codellm", "generate", "-m", "codellm-demo", "def add(a, b):", "--max-tokens", "20")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_example_of_the_readme_works(python):
    [code] = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    done = run(python, "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_without_the_evaluation_its_commands_are_not_there(python):
    done = run(python, "-m", "codellm", "bench")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_nothing_heavy_comes_along(python):
    done = run(
        python, "-c", "import importlib.util as u; print([m for m in ('torch', 'transformers') if u.find_spec(m)])"
    )
    assert done.stdout.strip() == "[]"
