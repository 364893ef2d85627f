"""What the hub's cache holds: cut files come again."""

import pytest

from codellm.errors import DownloadError
from codellm.loading import find
from support.hub_server import COMMIT, DEMO, Fault

pytestmark = pytest.mark.usefixtures("client")
SIZE = len(DEMO["model.safetensors"])
Q8, Q4 = {"demo.Q8_0.gguf": b"GGUF q8"}, {"demo-q4_k_m.gguf": b"GGUF q4"}


@pytest.fixture
def folder(client):
    """The model's folder in the hub's cache."""
    return client.cache / "models--ours--demo"


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("model.safetensors", 5_000_000),
        ("model.safetensors", 1),
        ("model.safetensors", 0),
        ("tokenizer.json", 1000),
        ("config.json", 10),
        ("tokenizer_config.json", 0),
    ],
)
def test_a_file_that_was_cut_in_the_cache_comes_again(hub, folder, name, kept):
    digest = find("ours/demo").fetch().digest
    file = folder / "snapshots" / COMMIT / name
    file.resolve().write_bytes(DEMO[name][:kept])
    hub.served.clear()
    assert find("ours/demo").fetch().digest == digest
    assert hub.served == {name: len(DEMO[name]) - kept}
    hub.served.clear()
    assert find("ours/demo").fetch().digest == digest
    assert not hub.served


def test_a_file_that_grew_in_the_cache_comes_again(hub, folder):
    digest = find("ours/demo").fetch().digest
    file = (folder / "snapshots" / COMMIT / "model.safetensors").resolve()
    file.write_bytes(file.read_bytes() + b"x")
    assert find("ours/demo").fetch().digest == digest


def test_a_cut_copy_in_a_cache_without_links_comes_again(hub, folder):
    digest = find("ours/demo").fetch().digest
    file = folder / "snapshots" / COMMIT / "model.safetensors"
    file.resolve().unlink()
    file.unlink()
    file.write_bytes(DEMO["model.safetensors"][:100])
    assert find("ours/demo").fetch().digest == digest
    assert file.read_bytes() == DEMO["model.safetensors"]


def test_a_cut_gguf_file_comes_again(hub, folder):
    hub.repos["ours/demo"].files = dict(Q8)
    file = find("ours/demo").fetch().path
    file.resolve().write_bytes(b"GG")
    assert find("ours/demo:q8_0").fetch().path.read_bytes() == Q8["demo.Q8_0.gguf"]


def test_what_is_left_of_a_cut_file_is_kept_where_the_rest_does_not_come(hub, folder):
    digest = find("ours/demo").fetch().digest
    (folder / "snapshots" / COMMIT / "model.safetensors").resolve().write_bytes(DEMO["model.safetensors"][:6_000_000])
    hub.faults.append(Fault("GET /cdn", cut=0))
    with pytest.raises(DownloadError, match="what came is kept"):
        find("ours/demo").fetch()
    hub.faults.clear()
    hub.served.clear()
    assert find("ours/demo").fetch().digest == digest
    assert hub.served["model.safetensors"] == SIZE - 6_000_000
