"""The real huggingface_hub client against a hub on this machine."""

import pytest

from codellm.sources import find
from codellm.sources.bundled import bundled_directory
from support.hub_server import COMMIT, Hub, Repo

DEMO = {path.name: path.read_bytes() for path in bundled_directory("codellm-demo").iterdir()}


@pytest.fixture
def hub():
    with Hub() as cdn, Hub(cdn=cdn) as hub:
        cdn.repos = hub.repos = {"ours/demo": Repo(dict(DEMO))}
        cdn.faults, cdn.served = hub.faults, hub.served
        yield hub


@pytest.fixture(autouse=True)
def client(hub, tmp_path, monkeypatch):
    """The client reads its environment when it is imported, so its constants are what is set."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("codellm.sources.download.PAUSE", 0.01)


def test_a_hub_model_is_the_same_as_the_directory(hub):
    source = find("ours/demo").fetch()
    assert (source.name, source.revision, source.licence) == ("ours/demo", COMMIT, "apache-2.0")
    assert source.digest == find("codellm-demo").fetch().digest
