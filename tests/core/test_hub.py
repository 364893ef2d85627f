"""The real huggingface_hub client against a hub on this machine."""

import json
import struct

import pytest

from codellm.errors import DownloadError, ModelFileError, ModelNotFoundError, UnknownNameError
from codellm.loading import find
from codellm.plugins.registry import registry
from codellm.sources.download import CHUNK
from codellm.sources.local import NAMING
from codellm.sources.published import Published
from support.hub_server import COMMIT, DEMO, Fault, Repo, hubs

SIZE = len(DEMO["model.safetensors"])
WEIGHTS = "GET /cdn"
"""What a request for weights holds: they are had from another host."""


@pytest.fixture
def hub():
    with hubs({"ours/demo": Repo(dict(DEMO))}) as hub:
        yield hub


@pytest.fixture(autouse=True)
def client(hub, tmp_path, monkeypatch):
    """The client reads its environment when it is imported, so its constants are what is set."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(tmp_path / "agents"), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    point_to(hub.url, monkeypatch)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("codellm.sources.download.PAUSE", 0.01)


def point_to(url, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


def offline(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


# --- what is fetched --------------------------------------------------------------------------------------------------


def test_a_hub_model_is_the_same_as_the_directory(hub):
    source = find("ours/demo").fetch()
    assert (source.name, source.revision, source.licence) == ("ours/demo", COMMIT, "apache-2.0")
    assert source.digest == find("codellm-demo").fetch().digest
    hub.requests.clear()
    assert find("ours/demo").fetch().digest == source.digest
    assert hub.lines() == ["GET /api/models/ours/demo"]


def test_only_what_is_needed_is_fetched(hub):
    unwanted = ("consolidated.safetensors", "pytorch_model.bin", "model.pt", "modeling.py", "onnx/model.onnx")
    hub.repos["ours/demo"].files |= dict.fromkeys((*unwanted, "original/model.safetensors"), b"unwanted")
    find("ours/demo").fetch()
    wanted = {"config.json", "tokenizer.json", "README.md", "model.safetensors", *NAMING}
    assert hub.served == {name: len(DEMO[name]) for name in wanted}


def test_what_another_tool_left_in_the_cache_is_not_taken_for_weights(hub):
    source = find("ours/demo").fetch()
    (source.path / "consolidated.safetensors").write_bytes(DEMO["model.safetensors"])
    assert find("ours/demo").fetch().digest == source.digest


def sharded(weights):
    """The same tensors in two files, and their index."""
    length = struct.unpack("<Q", weights[:8])[0]
    header, data = json.loads(weights[8 : 8 + length]), weights[8 + length :]
    header.pop("__metadata__", None)
    names = sorted(header)
    files, index = {}, {}
    for number, part in enumerate((names[:9], names[9:]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        begin, entries, body = 0, {}, b""
        for name in part:
            piece = data[slice(*header[name]["data_offsets"])]
            entries[name] = {**header[name], "data_offsets": [begin, begin + len(piece)]}
            begin, body, index[name] = begin + len(piece), body + piece, file
        text = json.dumps(entries).encode()
        files[file] = struct.pack("<Q", len(text)) + text + body
    files["model.safetensors.index.json"] = json.dumps({"weight_map": index}).encode()
    return files


def test_of_shards_those_that_the_index_names(hub):
    files = {name: content for name, content in DEMO.items() if name != "model.safetensors"}
    files |= sharded(DEMO["model.safetensors"]) | {"model-00003-of-00002.safetensors": b"left over"}
    hub.repos["ours/demo"].files = files
    source, whole = find("ours/demo").fetch(), find("codellm-demo").fetch()
    assert sorted(info.name for info in source.tensors) == sorted(info.name for info in whole.tensors)
    assert all((source.tensors.read(info.name) == whole.tensors.read(info.name)).all() for info in whole.tensors)
    assert "model-00003-of-00002.safetensors" not in hub.served
    del files["model-00002-of-00002.safetensors"]
    hub.repos["ours/demo"].refs["main"] = "f" * 40
    with pytest.raises(ModelFileError, match=r"model-00002-of-00002\.safetensors, which the repository does"):
        find("ours/demo").fetch()


def test_weights_in_one_file_go_before_an_index_that_stayed(hub):
    stale = {name: content for name, content in sharded(DEMO["model.safetensors"]).items() if name.endswith(".json")}
    hub.repos["ours/demo"].files = DEMO | stale
    assert find("ours/demo").fetch().digest == find("codellm-demo").fetch().digest
    assert "model.safetensors.index.json" not in hub.served


def test_an_index_may_name_its_files_with_a_dot_in_front(hub):
    files = {name: content for name, content in DEMO.items() if name != "model.safetensors"}
    files |= sharded(DEMO["model.safetensors"])
    index = files["model.safetensors.index.json"]
    files["model.safetensors.index.json"] = b"\xef\xbb\xbf" + index.replace(b'"model-0', b'"./model-0')
    hub.repos["ours/demo"].files = files
    names = [info.name for info in find("ours/demo").fetch().tensors]
    assert sorted(names) == sorted(info.name for info in find("codellm-demo").fetch().tensors)


@pytest.mark.parametrize(("revision", "commit"), [(None, "a"), ("main", "a"), ("v1", "b"), ("b" * 40, "b")])
def test_a_revision_is_a_branch_a_tag_or_a_commit(hub, revision, commit, monkeypatch):
    older = {**DEMO, "README.md": b"---\nlicense: mit\n---\n"}
    refs = {"main": "a" * 40, "v1": "b" * 40}
    hub.repos["ours/demo"] = Repo(dict(DEMO), refs=refs, commits={"b" * 40: older})
    for _ in range(2):
        source = find("ours/demo", revision).fetch()
        assert source.revision == commit * 40
        assert source.licence == {"a": "apache-2.0", "b": "mit"}[commit]
        offline(monkeypatch)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        (b"no metadata", None),
        (b"---\nlicense: 'mit'\n---\n", "mit"),
        (b"---\nlicense: other\nlicense_name: deepseek\n---\n", "deepseek"),
        (b"---\nlicense: [mit, apache-2.0]\n---\n", "mit, apache-2.0"),
        (b"---\nlanguage: : :\n---\n", None),
        (b'---\nlicense: "m\\e[2Jit"\n---\n', "m[2Jit"),
        (None, None),
    ],
)
def test_the_licence_is_what_the_card_says_and_told_when_something_comes(hub, card, licence):
    if card is None:
        del hub.repos["ours/demo"].files["README.md"]
    else:
        hub.repos["ours/demo"].files["README.md"] = card
    told = []
    assert (
        find("ours/demo", progress=lambda what, done, total: told.append((what, done, total))).fetch().licence
        == licence
    )
    assert [what for what, _, total in told if not total] == ([f"licence of ours/demo: {licence}"] if licence else [])
    assert told[-1] == ("fetching ours/demo, 12 MB", SIZE, SIZE)
    told.clear()
    find("ours/demo", progress=lambda *words: told.append(words)).fetch()
    assert not told


# --- published GGUF files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("model-Q4_K_M.gguf", "q4_k_m"),
        ("starcoder2-7b.q4_k_m.gguf", "q4_k_m"),
        ("Q8_0.GGUF", "q8_0"),
        ("qwen2.5-coder-7b-instruct-fp16.gguf", "f16"),
        ("model_bf16.gguf", "bf16"),
        ("model-Q4_0_4_4.gguf", "q4_0_4_4"),
        ("model-IQ4_XS.gguf", "iq4_xs"),
        ("model-Q4_K_M-imat.gguf", "q4_k_m"),
        ("ggml-model.gguf", ""),
    ],
)
def test_the_scheme_stands_in_the_name(name, scheme):
    assert Published.of([name, "config.json", "mmproj-F16.gguf", "imatrix.gguf"]) == Published({scheme: name}, {})


def test_of_a_scheme_in_one_file_and_in_parts_the_one_file_is_taken():
    parts = [f"m-{scheme}-0000{n}-of-00002.gguf" for scheme in ("q4_k_m", "f16") for n in (1, 2)]
    found = Published.of(["m-q4_k_m.gguf", *parts])
    assert found.whole == {"q4_k_m": "m-q4_k_m.gguf"}
    assert found.others == {"f16": "in parts, which are not supported"}


def ggufs(hub, *names, model=()):
    hub.repos["ours/demo"].files = {name: b"GGUF" + name.encode() for name in names} | {
        name: DEMO[name] for name in model
    }


def test_a_published_file_is_preferred_to_making_one(hub):
    ggufs(hub, "demo-Q8_0.gguf", "demo-Q4_0.gguf", model=DEMO)
    plain, named = find("ours/demo"), find("ours/demo:q8_0")
    assert (plain.format, plain.scheme) == ("safetensors", None)
    assert (named.format, named.scheme) == ("gguf", "q8_0")
    for found in (named, plain.in_scheme(registry().scheme("q8_0"))):
        source = found.fetch()
        assert (source.format, source.scheme, source.path.name) == ("gguf", "q8_0", "demo-Q8_0.gguf")
        assert (source.revision, source.licence) == (COMMIT, "apache-2.0")
    assert sorted(hub.served) == ["README.md", "config.json", "demo-Q8_0.gguf"]  # how the weights are packed is asked
    other = find("ours/demo:q6_k")
    assert (other.format, other.scheme) == ("safetensors", "q6_k")
    assert plain.in_scheme(registry().scheme("q6_k")) is plain


@pytest.mark.parametrize(
    ("file", "scheme"), [("demo-Q8_0.gguf", "q8_0"), ("demo.gguf", None), ("demo-Q4_0_4_4.gguf", None)]
)
def test_the_only_file_is_taken(hub, file, scheme):
    ggufs(hub, file)
    source = find("ours/demo").fetch()
    assert (source.path.name, source.scheme, source.licence) == (file, scheme, None)


@pytest.mark.parametrize(
    ("model", "names", "words"),
    [
        ("", ("a-q8_0.gguf", "a-q4_k_m.gguf"), "name one: ours/demo:q4_k_m, ours/demo:q8_0"),
        (":q6_k", ("a-q8_0.gguf",), "name one: ours/demo:q8_0"),
        (":q8_0", ("a-q8_0.gguf", "b-q8_0.gguf"), "q8_0 in several files: a-q8_0.gguf, b-q8_0.gguf"),
        (":f16", ("a-f16-00001-of-00002.gguf", "a-f16-00002-of-00002.gguf"), "f16 in parts, which are not supported"),
        ("", ("a-q4_0_4_4.gguf", "b.gguf"), "`hf download ours/demo a-q4_0_4_4.gguf` and give the file"),
    ],
)
def test_where_the_choice_is_open_it_says_what_there_is(hub, model, names, words):
    ggufs(hub, *names)
    with pytest.raises(ModelNotFoundError) as caught:
        find(f"ours/demo{model}").fetch()
    assert str(caught.value).startswith("ours/demo: holds only GGUF files; ")
    assert words in str(caught.value)


def test_a_scheme_that_nobody_has_is_not_asked_of_the_hub(hub):
    with pytest.raises(UnknownNameError, match="q4_k"):
        find("ours/demo:q4_k")
    assert not hub.lines()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("config.json", "pytorch_model.bin"), "pickled .pytorch_model.bin., which is never loaded"),
        (("config.json", "model.safetensors"), "has no tokenizer.json"),
        (("adapter_model.safetensors", "README.md"), "no model that can be read"),
        (("model.safetensors", "tokenizer.json"), "no model that can be read"),
    ],
)
def test_what_is_no_model_is_told_before_anything_is_fetched(hub, names, words):
    hub.repos["ours/demo"].files = dict.fromkeys(names, b"{}")
    with pytest.raises(ModelNotFoundError, match=words):
        find("ours/demo")
    assert not hub.served


# --- what goes wrong --------------------------------------------------------------------------------------------------


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


def test_nobody_listens(monkeypatch):
    point_to("http://127.0.0.1:9", monkeypatch)
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


# --- cut and gone on with ---------------------------------------------------------------------------------------------


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


# --- offline ----------------------------------------------------------------------------------------------------------


def test_offline_without_the_model_says_what_to_do(monkeypatch):
    offline(monkeypatch)
    with pytest.raises(
        DownloadError, match=r"ours/demo: not in the local cache.* HF_HUB_OFFLINE .*`hf download ours/demo`"
    ):
        find("ours/demo").fetch()


@pytest.mark.parametrize("how", ["offline", "nobody listens", "500", "gone"])
def test_without_an_answer_the_cache_is_enough(hub, how, monkeypatch):
    digest = find("ours/demo").fetch().digest
    if how == "offline":
        offline(monkeypatch)
    elif how == "nobody listens":
        point_to("http://127.0.0.1:9", monkeypatch)
    elif how == "500":
        hub.faults.append(Fault("", 500))
    else:
        del hub.repos["ours/demo"]
    source = find("ours/demo").fetch()
    assert (source.digest, source.revision, source.licence) == (digest, COMMIT, "apache-2.0")
    assert find("ours/demo:q8_0").scheme == "q8_0"
    with pytest.raises((DownloadError, ModelNotFoundError), match="ours/demo@v1: "):
        find("ours/demo", "v1")


def test_offline_a_published_file_is_found(hub, monkeypatch):
    ggufs(hub, "demo-Q8_0.gguf", "demo-Q4_0.gguf")
    find("ours/demo:q8_0").fetch()
    offline(monkeypatch)
    assert find("ours/demo:q8_0").fetch().path.name == "demo-Q8_0.gguf"
    with pytest.raises(DownloadError, match="not all of it, and HF_HUB_OFFLINE"):
        find("ours/demo:q4_0")


def test_a_cut_download_leaves_the_older_commit_to_who_is_offline(hub, monkeypatch):
    find("ours/demo").fetch()
    repo = hub.repos["ours/demo"]
    newer = {**DEMO, "config.json": DEMO["config.json"] + b"\n", "model.safetensors": DEMO["model.safetensors"] + b"x"}
    repo.commits = {"f" * 40: newer, COMMIT: dict(DEMO)}
    repo.refs["main"] = "f" * 40
    hub.faults.append(Fault(WEIGHTS, cut=0))
    with pytest.raises(DownloadError):
        find("ours/demo").fetch()
    offline(monkeypatch)
    assert find("ours/demo").fetch().revision == COMMIT


def test_offline_with_a_part_of_the_model_says_so(hub, monkeypatch):
    hub.faults.append(Fault(WEIGHTS, cut=0))
    with pytest.raises(DownloadError):
        find("ours/demo", COMMIT).fetch()
    offline(monkeypatch)
    with pytest.raises(DownloadError, match="or not all of it, and HF_HUB_OFFLINE is set"):
        find("ours/demo", COMMIT).fetch()
