"""What goes wrong between a hub and its client is one line, and a cut download goes on."""

import pytest

from codellm.errors import DownloadError, ModelNotFoundError
from codellm.loading import find
from codellm.sources.download import CHUNK
from support.hub_client import NOBODY
from support.hub_server import COMMIT, DEMO, Fault, Repo

pytestmark = pytest.mark.usefixtures("client")
SIZE = len(DEMO["model.safetensors"])
WEIGHTS = "GET /cdn"
"""What a request for weights holds: they are had from another host."""


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (Fault("GET /api", 404, {"X-Error-Code": "RepoNotFound"}), ModelNotFoundError, "no such model"),
        (Fault("GET /api", 401, {"X-Error-Code": "RepoNotFound"}), ModelNotFoundError, "set HF_TOKEN if it is private"),
        (Fault("GET /api", 404, {"X-Error-Code": "RevisionNotFound"}), ModelNotFoundError, "no such revision"),
        (Fault("GET /api", 403, {"X-Error-Code": "GatedRepo"}), DownloadError, "accept its terms at http.*ours/demo"),
        (Fault("HEAD", 403, {"X-Error-Code": "GatedRepo"}), DownloadError, "accept its terms at http.*ours/demo"),
        (Fault("GET /api", 401), DownloadError, "set HF_TOKEN to one"),
        (Fault("GET /api", 403), DownloadError, "access is denied"),
        (Fault("GET /api", 429, {"Retry-After": "30"}), DownloadError, "try again in 30 s"),
        (Fault("GET /api", 500), DownloadError, "fails with HTTP 500; try again later"),
        (Fault("GET /api", 200), DownloadError, "gives no answer of a hub .* HF_ENDPOINT"),
        (Fault("HEAD", 500), DownloadError, "fails with HTTP 500; try again later"),
        (Fault("HEAD", 200), DownloadError, "has no ETag"),
        (Fault(WEIGHTS, 429), DownloadError, "what came is kept.*HF_TOKEN"),
        (Fault(WEIGHTS, 503), DownloadError, "HTTP 503"),
        (Fault("model.safetensors", 404, {"X-Error-Code": "EntryNotFound"}), ModelNotFoundError, "is not there"),
        (Fault("GET /api", cut=0), DownloadError, "cannot be reached"),
        (Fault(WEIGHTS, cut=0), DownloadError, "cannot be reached at .*what came is kept"),
        (Fault(WEIGHTS, short=1000, times=1), None, ""),
        (Fault(WEIGHTS, short=0), DownloadError, f"0 of {SIZE} bytes came"),
        (Fault(WEIGHTS, garbage=True), DownloadError, "its checksum is wrong"),
        (Fault("GET /ours/demo/resolve", garbage=True), DownloadError, "its checksum is wrong"),
    ],
)  # fmt: skip
def test_each_fault_is_one_line_and_the_next_run_is_well(hub, fault, kind, words, caplog):
    hub.faults.append(fault)
    if kind is not None:
        with pytest.raises(kind, match=words) as caught:
            find("ours/demo").fetch()
        assert "ours/demo" in str(caught.value)
        assert "\n" not in str(caught.value)
    hub.faults.clear()
    assert find("ours/demo").fetch().digest == find("codellm-demo").fetch().digest
    assert not [record for record in caplog.records if record.name.startswith("huggingface_hub")]


def test_a_missing_revision_of_a_real_repository(hub):
    with pytest.raises(ModelNotFoundError, match=r"ours/demo@nope: no such revision; .*/ours/demo/commits/main"):
        find("ours/demo", "nope")


def test_nobody_listens(client):
    client.point_to(NOBODY)
    with pytest.raises(DownloadError, match=r"ours/demo: .*127\.0\.0\.1:9 .*refused.*`hf download ours/demo`"):
        find("ours/demo")


def test_a_strange_id_is_told(hub):
    with pytest.raises(ModelNotFoundError, match=r"a--b/c: no hub id"):
        find("a--b/c")


def test_a_small_disk_is_told_before_anything_comes(hub, monkeypatch):
    from shutil import disk_usage

    monkeypatch.setattr("shutil.disk_usage", lambda path: disk_usage(path)._replace(free=1_000_000))
    with pytest.raises(DownloadError, match=r"ours/demo: 12 MB are to come, and .* has 1 MB free; .*HF_HOME"):
        find("ours/demo").fetch()
    assert "model.safetensors" not in hub.served


def test_the_token_is_for_the_hub_alone(hub, monkeypatch):
    hub.repos["ours/demo"].token = "hf_secret"
    with pytest.raises(ModelNotFoundError, match="private"):
        find("ours/demo")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    find("ours/demo").fetch()
    assert {one.token for one in hub.requests[-5:]} == {"hf_secret"}
    assert [(one.line.split("/")[-1], one.token) for one in hub.cdn.requests] == [("model.safetensors", None)]


@pytest.mark.parametrize("token", [None, "hf_other"])
def test_a_gated_repository_says_where_to_accept_its_terms(hub, token, monkeypatch):
    hub.repos["ours/demo"] = Repo(dict(DEMO), gated=True, token="hf_secret")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(DownloadError, match=rf"gated; accept its terms at {hub.url}/ours/demo, then set HF_TOKEN"):
        find("ours/demo").fetch()
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert find("ours/demo").fetch().revision == COMMIT


def test_a_cut_goes_on_in_the_same_run(hub):
    hub.faults.append(Fault(WEIGHTS, cut=5_000_000, times=1))
    hub.faults.append(Fault(WEIGHTS, cut=3_000_000, times=1))
    assert find("ours/demo").fetch().digest == find("codellm-demo").fetch().digest
    assert len(hub.cdn.lines(WEIGHTS)) == 3
    assert SIZE <= hub.served["model.safetensors"] <= SIZE + 2 * CHUNK


def test_a_cut_goes_on_in_the_next_run(hub):
    hub.faults.append(Fault(WEIGHTS, cut=6_000_000, times=1))
    hub.faults.append(Fault(WEIGHTS, cut=0))
    with pytest.raises(DownloadError, match="what came is kept"):
        find("ours/demo").fetch()
    hub.faults.clear()
    told = []
    find("ours/demo", progress=lambda what, done, total: total and told.append(done)).fetch()
    assert SIZE <= hub.served["model.safetensors"] <= SIZE + CHUNK
    assert told[0] >= 6_000_000 - CHUNK
    assert told[-1] == SIZE


def test_a_server_that_knows_no_ranges_sends_it_again(hub):
    hub.faults.append(Fault(WEIGHTS, cut=6_000_000, times=1))
    hub.faults.append(Fault(WEIGHTS, whole=True))
    told = []
    source = find("ours/demo", progress=lambda what, done, total: told.append((done, total))).fetch()
    assert source.digest == find("codellm-demo").fetch().digest
    assert told[-1] == (SIZE, SIZE)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["sub/demo-q8_0.gguf"], "as sub/demo-q8_0.gguf; fetch it with `hf download ours/demo sub/demo-q8_0.gguf`"),
        (["Q8_0/m-00001-of-00002.gguf", "Q8_0/m-00002-of-00002.gguf"], "`hf download ours/demo --include 'Q8_0/[*]'`"),
        (["adapter_config.json", "adapter_model.safetensors"], "is a LoRA adapter, not a whole model; merge it"),
    ],
)
def test_what_a_repository_holds_instead_of_a_model_is_told_of_the_hub_too(hub, names, words):
    hub.repos["ours/demo"].files = dict.fromkeys(names, b"GGUF")
    with pytest.raises(ModelNotFoundError, match=words):
        find("ours/demo")
    assert not hub.served
