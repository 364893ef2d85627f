from __future__ import annotations

import pytest

from codellm_eval.judge.isolation import Sandbox
from support.bench_toy import toy_workdir
from support.judging import sandbox_of


@pytest.fixture(scope="session")
def sandbox() -> Sandbox:
    """The strongest level of isolation, or a skip where it cannot run."""
    return sandbox_of("A")


@pytest.fixture
def workdir(tmp_path):
    """A directory to run `codellm bench` in, a model in it, and the toy plugin installed beside it."""
    return toy_workdir(tmp_path)
