import datetime as dt
import hashlib
import json

from codellm.model import ModelInfo
from codellm.system import machine
from codellm_eval.files.manifest import collect, digest, record


def info(path="", dummy=False):
    return ModelInfo(
        backend="b", architecture="a", parameters=1, weight_bytes=2, context_length=3, dtype="float32", scheme="f32",
        device="cpu", path=str(path), dummy=dummy,
    )  # fmt: skip


def test_names_what_another_needs_to_repeat_the_run(tmp_path):
    file = tmp_path / "model.gguf"
    file.write_bytes(b"weights")
    manifest = collect(seeds=[7], models=[record("mine", info(file))], command=["codellm", "eval", "a b"])
    written = json.loads(manifest.to_json())
    assert written["command"] == "codellm eval 'a b'"
    assert written["seeds"] == [7]
    assert written["models"][0]["name"] == "mine"
    assert written["models"][0]["sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert written["models"][0]["info"]["context_length"] == 3
    assert written["packages"]["codellm-core"]
    assert written["threads"] >= 1
    assert written["memory_bytes"] > 1 << 28
    assert written["cpu"]
    assert written["cpu_features"] == list(machine.cpu_features())
    assert dt.datetime.fromisoformat(written["date"]).utcoffset() == dt.timedelta(0)


def test_a_directory_is_named_by_its_weights_and_configuration(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"a")
    (tmp_path / "config.json").write_text("{}")
    first = digest(tmp_path)
    (tmp_path / "README.md").write_text("no part of the model")
    assert digest(tmp_path) == first
    (tmp_path / "config.json").write_text("{ }")
    assert digest(tmp_path) != first


def test_a_file_of_the_hub_cache_is_not_read_again(tmp_path):
    name = "ab" * 32
    blob = tmp_path / "blobs" / name
    blob.parent.mkdir()
    blob.write_bytes(b"weights")
    link = tmp_path / "model.safetensors"
    link.symlink_to(blob)
    assert digest(link) == name


def test_nothing_to_digest(tmp_path):
    assert digest(tmp_path / "none") is None
    assert record("dummy:tiny", info(tmp_path, dummy=True)).sha256 is None
