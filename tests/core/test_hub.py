"""The real huggingface_hub client against a hub on this machine: what is fetched."""

import json
import struct

import pytest

from codellm.errors import ModelFileError
from codellm.loading import find
from codellm.sources.local import NAMING
from support.hub_server import COMMIT, DEMO, Repo

pytestmark = pytest.mark.usefixtures("client")
SIZE = len(DEMO["model.safetensors"])


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
def test_a_revision_is_a_branch_a_tag_or_a_commit(hub, revision, commit, client):
    older = {**DEMO, "README.md": b"---\nlicense: mit\n---\n"}
    refs = {"main": "a" * 40, "v1": "b" * 40}
    hub.repos["ours/demo"] = Repo(dict(DEMO), refs=refs, commits={"b" * 40: older})
    for _ in range(2):
        source = find("ours/demo", revision).fetch()
        assert source.revision == commit * 40
        assert source.licence == {"a": "apache-2.0", "b": "mit"}[commit]
        client.offline()


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
