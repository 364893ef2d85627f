"""CONTRIBUTING.md: its door followed to the letter, from a clone of this repository, and the files that it names."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from support.documentation import door, place

ROOT = Path(__file__).parents[2]
PUBLISHED = "https://github.com/codellm/codellm"

NAMED = re.findall(r"`((?:codellm\w*|docs|tests)/[\w./-]*)`", (ROOT / "CONTRIBUTING.md").read_text())


@pytest.mark.parametrize("name", sorted(set(NAMED) - {"codellm_cpu/"}))
def test_a_file_to_go_to_is_there(name):
    assert place(name).exists(), f"CONTRIBUTING.md sends to {name}, which is not there"


def test_a_newcomer_comes_from_a_clone_to_a_test_that_passes(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    environment |= {  # git clones what is here under the name that it is published by
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{ROOT}.insteadOf",
        "GIT_CONFIG_VALUE_0": PUBLISHED,
    }
    done = subprocess.run(
        ["bash", "-e"], input=door(), cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout.splitlines()[-1]
    assert (tmp_path / "codellm" / ".venv").is_dir()
