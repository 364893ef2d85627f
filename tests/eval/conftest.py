from __future__ import annotations

import pytest

from support.bench_place import make_place


@pytest.fixture
def place(tmp_path):
    """A directory to run `codellm bench` in, a model in it, and the toy plugin installed beside it."""
    return make_place(tmp_path)
