"""What the hub's cache holds: cut files come again, and without the hub the true cause is told."""

import hashlib

import pytest

from codellm.errors import DownloadError, ModelNotFoundError
from codellm.loading import find
from support.hub_server import COMMIT, DEMO, Fault, Repo, hubs

MODEL = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
SIZE = len(DEMO["model.safetensors"])
Q8, Q4 = {"demo.Q8_0.gguf": b"GGUF q8"}, {"demo-q4_k_m.gguf": b"GGUF q4"}


@pytest.fixture
def hub():
    with hubs({"ours/demo": Repo(dict(DEMO))}) as hub:
        yield hub


@pytest.fixture(autouse=True)
def cache(hub, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(tmp_path / "agents"), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("codellm.sources.download.PAUSE", 0.01)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    return tmp_path / "hub" / "models--ours--demo"


# --- cut --------------------------------------------------------------------------------------------------------------


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
def test_a_file_that_was_cut_in_the_cache_comes_again(hub, cache, name, kept):
    digest = find("ours/demo").fetch().digest
    file = cache / "snapshots" / COMMIT / name
    file.resolve().write_bytes(DEMO[name][:kept])
    hub.served.clear()
    assert find("ours/demo").fetch().digest == digest
    assert hub.served == {name: len(DEMO[name]) - kept}
    hub.served.clear()
    assert find("ours/demo").fetch().digest == digest
    assert not hub.served


def test_a_file_that_grew_in_the_cache_comes_again(hub, cache):
    digest = find("ours/demo").fetch().digest
    file = (cache / "snapshots" / COMMIT / "model.safetensors").resolve()
    file.write_bytes(file.read_bytes() + b"x")
    assert find("ours/demo").fetch().digest == digest


def test_a_cut_copy_in_a_cache_without_links_comes_again(hub, cache):
    digest = find("ours/demo").fetch().digest
    file = cache / "snapshots" / COMMIT / "model.safetensors"
    file.resolve().unlink()
    file.unlink()
    file.write_bytes(DEMO["model.safetensors"][:100])
    assert find("ours/demo").fetch().digest == digest
    assert file.read_bytes() == DEMO["model.safetensors"]


def test_a_cut_gguf_file_comes_again(hub, cache):
    hub.repos["ours/demo"].files = dict(Q8)
    file = find("ours/demo").fetch().path
    file.resolve().write_bytes(b"GG")
    assert find("ours/demo:q8_0").fetch().path.read_bytes() == Q8["demo.Q8_0.gguf"]


def test_what_is_left_of_a_cut_file_is_kept_where_the_rest_does_not_come(hub, cache):
    digest = find("ours/demo").fetch().digest
    (cache / "snapshots" / COMMIT / "model.safetensors").resolve().write_bytes(DEMO["model.safetensors"][:6_000_000])
    hub.faults.append(Fault("GET /cdn", cut=0))
    with pytest.raises(DownloadError, match="what came is kept"):
        find("ours/demo").fetch()
    hub.faults.clear()
    hub.served.clear()
    assert find("ours/demo").fetch().digest == digest
    assert hub.served["model.safetensors"] == SIZE - 6_000_000


# --- offline ----------------------------------------------------------------------------------------------------------


def put(cache, files, ref="main"):
    """Files in the cache as huggingface_hub lays them there."""
    for name, content in files.items():
        blob = cache / "blobs" / hashlib.sha256(content + name.encode()).hexdigest()
        link = cache / "snapshots" / COMMIT / name
        for path in (blob, link):
            path.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link.symlink_to(blob)
    if ref:
        (cache / "refs").mkdir(exist_ok=True)
        (cache / "refs" / ref).write_text(COMMIT)


def cause(model, monkeypatch, how="offline"):
    """The one line that `model` ends in, without an answer of the hub."""
    from huggingface_hub import constants

    if how == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
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
def test_the_cause_is_told_where_the_hub_would_not_help(cache, monkeypatch, model, files, words, how):
    put(cache, files)
    text = cause(f"ours/demo{model}", monkeypatch, how)
    assert words in text
    assert "unset" not in text
    assert "OFFLINE" not in text
    assert "cannot be reached" not in text


def test_a_file_in_a_folder_is_named_by_a_path_that_is_there(cache, monkeypatch):
    put(cache, {"sub/demo-q8_0.gguf": b"GGUF"})
    named = cause("ours/demo", monkeypatch).partition("give its file: ")[2]
    assert find(named).format == "gguf"


def test_a_file_in_a_folder_whose_content_is_gone_is_named_too(cache, monkeypatch):
    put(cache, {"README.md": b"", "sub/demo-q8_0.gguf": b"GGUF"})
    (cache / "snapshots" / COMMIT / "sub" / "demo-q8_0.gguf").resolve().unlink()
    text = cause("ours/demo:q8_0", monkeypatch)
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
def test_where_the_hub_would_help_it_is_told_how_to_ask_it(cache, monkeypatch, model, files, words):
    put(cache, files)
    text = cause(f"ours/demo{model}", monkeypatch)
    assert words in text
    assert "HF_HUB_OFFLINE is set; unset it" in text


def test_a_commit_without_a_name_is_told(cache, monkeypatch):
    put(cache, {name: DEMO[name] for name in MODEL}, ref="")
    assert cause("ours/demo", monkeypatch).endswith(f"or name what the cache holds: --revision {COMMIT}")
    assert find("ours/demo", COMMIT).fetch().revision == COMMIT


def test_the_variable_that_is_set_is_the_one_to_unset(cache, monkeypatch):
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")
    assert "TRANSFORMERS_OFFLINE is set; unset it" in cause("ours/demo", monkeypatch)


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
