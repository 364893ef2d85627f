"""Without an answer of the hub the cache is enough, or the true cause is told."""

import hashlib

import pytest

from codellm.errors import DownloadError, ModelNotFoundError
from codellm.loading import find
from support.hub_client import NOBODY
from support.hub_server import COMMIT, DEMO, Fault

pytestmark = pytest.mark.usefixtures("client")
WEIGHTS = "GET /cdn"
"""What a request for weights holds: they are had from another host."""
MODEL = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
Q8, Q4 = {"demo.Q8_0.gguf": b"GGUF q8"}, {"demo-q4_k_m.gguf": b"GGUF q4"}


@pytest.fixture
def folder(client):
    """The model's folder in the hub's cache."""
    return client.cache / "models--ours--demo"


def test_offline_without_the_model_says_what_to_do(client):
    client.offline()
    with pytest.raises(
        DownloadError, match=r"ours/demo: not in the local cache.* HF_HUB_OFFLINE .*`hf download ours/demo`"
    ):
        find("ours/demo").fetch()


@pytest.mark.parametrize("how", ["offline", "nobody listens", "500", "gone"])
def test_without_an_answer_the_cache_is_enough(hub, how, client):
    digest = find("ours/demo").fetch().digest
    if how == "offline":
        client.offline()
    elif how == "nobody listens":
        client.point_to(NOBODY)
    elif how == "500":
        hub.faults.append(Fault("", 500))
    else:
        del hub.repos["ours/demo"]
    source = find("ours/demo").fetch()
    assert (source.digest, source.revision, source.licence) == (digest, COMMIT, "apache-2.0")
    assert find("ours/demo:q8_0").scheme == "q8_0"
    with pytest.raises((DownloadError, ModelNotFoundError), match="ours/demo@v1: "):
        find("ours/demo", "v1")


def test_offline_a_published_file_is_found(hub, client):
    hub.repos["ours/demo"].files = dict.fromkeys(("demo-Q8_0.gguf", "demo-Q4_0.gguf"), b"GGUF")
    find("ours/demo:q8_0").fetch()
    client.offline()
    assert find("ours/demo:q8_0").fetch().path.name == "demo-Q8_0.gguf"
    with pytest.raises(DownloadError, match="not all of it, and HF_HUB_OFFLINE"):
        find("ours/demo:q4_0")


def test_a_cut_download_leaves_the_older_commit_to_who_is_offline(hub, client):
    find("ours/demo").fetch()
    repo = hub.repos["ours/demo"]
    newer = {**DEMO, "config.json": DEMO["config.json"] + b"\n", "model.safetensors": DEMO["model.safetensors"] + b"x"}
    repo.commits = {"f" * 40: newer, COMMIT: dict(DEMO)}
    repo.refs["main"] = "f" * 40
    hub.faults.append(Fault(WEIGHTS, cut=0))
    with pytest.raises(DownloadError):
        find("ours/demo").fetch()
    client.offline()
    assert find("ours/demo").fetch().revision == COMMIT


def test_offline_with_a_part_of_the_model_says_so(hub, client):
    hub.faults.append(Fault(WEIGHTS, cut=0))
    with pytest.raises(DownloadError):
        find("ours/demo", COMMIT).fetch()
    client.offline()
    with pytest.raises(DownloadError, match="or not all of it, and HF_HUB_OFFLINE is set"):
        find("ours/demo", COMMIT).fetch()


def put(folder, files, ref="main"):
    """Files in the cache as huggingface_hub lays them there."""
    for name, content in files.items():
        blob = folder / "blobs" / hashlib.sha256(content + name.encode()).hexdigest()
        link = folder / "snapshots" / COMMIT / name
        for path in (blob, link):
            path.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link.symlink_to(blob)
    if ref:
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / ref).write_text(COMMIT)


def cause(client, model, how="offline"):
    """The one line that `model` ends in, without an answer of the hub."""
    if how == "offline":
        client.offline()
    else:
        client.point_to(NOBODY)
    with pytest.raises((DownloadError, ModelNotFoundError)) as caught:
        find(model).fetch()
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("ours/demo")
    return str(caught.value)


CONFIG = {"config.json": DEMO["config.json"]}
PARTS = {f"demo-q8_0-0000{part}-of-00002.gguf": b"GGUF" for part in (1, 2)}


@pytest.mark.parametrize("how", ["offline", "nobody listens"])
@pytest.mark.parametrize(
    ("model", "files", "words"),
    [
        ("", {**Q8, **Q4}, "the cache holds only GGUF files of it; name one: ours/demo:q4_k_m, ours/demo:q8_0"),
        ("", {**Q8, **Q4, **CONFIG}, "name one: ours/demo:q4_k_m, ours/demo:q8_0"),
        ("", PARTS, "it has q8_0 in parts, which are not supported; merge the parts with `llama-gguf-split --merge`"),
        (":q8_0", PARTS, "it has q8_0 in parts, which are not supported"),
        (":q8_0", {**PARTS, **Q4}, "name one: ours/demo:q4_k_m; it has q8_0 in parts"),
        ("", {"a.gguf": b"GGUF", "b.gguf": b"GGUF"}, "it has one without a scheme in several files: a.gguf, b.gguf"),
        ("", {"sub/demo-q8_0.gguf": b"GGUF"}, "in a folder, as sub/demo-q8_0.gguf; give its file: "),
        (":q8_0", {"a/b/demo-q8_0.gguf": b"GGUF"}, "in a folder, as a/b/demo-q8_0.gguf; give its file: "),
        ("", {f"sub/{name}": data for name, data in PARTS.items()}, "in a folder and in parts, as sub/demo-q8_0-00001"),
        ("", {**CONFIG, "pytorch_model.bin": b"x"}, "holds its weights pickled (pytorch_model.bin)"),
        ("", {**CONFIG, "pytorch_model-00001-of-00002.bin": b"x"}, "holds its weights pickled"),
        ("", {"adapter_config.json": b"{}", "adapter_model.safetensors": b"x"}, "is a LoRA adapter, not a whole model"),
    ],
)
def test_the_cause_is_told_where_the_hub_would_not_help(folder, client, model, files, words, how):
    put(folder, files)
    text = cause(client, f"ours/demo{model}", how)
    assert words in text
    assert "unset" not in text
    assert "OFFLINE" not in text
    assert "cannot be reached" not in text


def test_a_file_in_a_folder_is_named_by_a_path_that_is_there(folder, client):
    put(folder, {"sub/demo-q8_0.gguf": b"GGUF"})
    named = cause(client, "ours/demo").partition("give its file: ")[2]
    assert find(named).format == "gguf"


def test_a_file_in_a_folder_whose_content_is_gone_is_named_too(folder, client):
    put(folder, {"README.md": b"", "sub/demo-q8_0.gguf": b"GGUF"})
    (folder / "snapshots" / COMMIT / "sub" / "demo-q8_0.gguf").resolve().unlink()
    text = cause(client, "ours/demo:q8_0")
    assert "in a folder, as sub/demo-q8_0.gguf; fetch it with `hf download ours/demo sub/demo-q8_0.gguf`" in text


@pytest.mark.parametrize(
    ("model", "files", "words"),
    [
        ("", {name: DEMO[name] for name in MODEL[:2]}, "not all of it"),
        ("", {name: DEMO[name] for name in ("config.json", "model.safetensors")}, "not all of it"),
        ("", {**CONFIG, "training_args.bin": b"x", "optimizer.pt": b"x"}, "not all of it"),
        (":q6_k", Q8, "the cache holds ours/demo:q8_0"),
        (":q8_0", {"model.gguf": b"GGUF"}, "not all of it"),
    ],
)
def test_where_the_hub_would_help_it_is_told_how_to_ask_it(folder, client, model, files, words):
    put(folder, files)
    text = cause(client, f"ours/demo{model}")
    assert words in text
    assert "HF_HUB_OFFLINE is set; unset it" in text


def test_a_commit_without_a_name_is_told(folder, client):
    put(folder, {name: DEMO[name] for name in MODEL}, ref="")
    assert cause(client, "ours/demo").endswith(f"or name what the cache holds: --revision {COMMIT}")
    assert find("ours/demo", COMMIT).fetch().revision == COMMIT


def test_the_variable_that_is_set_is_the_one_to_unset(folder, client, monkeypatch):
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")
    assert "TRANSFORMERS_OFFLINE is set; unset it" in cause(client, "ours/demo")
