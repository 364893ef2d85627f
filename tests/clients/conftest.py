"""The real server on the bundled model, and on the same model with a chat template, for other people's clients."""

import pytest

from support.chats import with_template
from support.serving import serving

COMPLETES, CONVERSES = "codellm-demo", "demo-chat"
"""What the two models are asked by."""


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The model that converses."""
    path = tmp_path_factory.mktemp("models") / CONVERSES
    path.mkdir()
    return with_template(path)


@pytest.fixture(scope="session")
def server(folder):
    with serving("-m", COMPLETES, "-m", str(folder), "--batch-size", "4") as server:
        yield server


@pytest.fixture(scope="session")
def api(server):
    return f"{server.url}/v1"
