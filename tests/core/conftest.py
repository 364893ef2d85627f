"""A hub on this machine, and the client that asks it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.hub_client import Client
from support.hub_server import DEMO, Hub, Repo, hubs


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub with one repository, the bundled model's."""
    with hubs({"ours/demo": Repo(dict(DEMO))}) as hub:
        yield hub


@pytest.fixture
def client(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    """huggingface_hub in this process, asking `hub`."""
    client = Client(monkeypatch, tmp_path)
    client.point_to(hub.url)
    return client
