import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from codellm import load
from codellm.errors import CodellmError, ModelFileError, ModelNotFoundError, UnknownNameError
from codellm.loading import find
from codellm.sources.bundled import bundled_directory
from support.plugin_folder import codellm, install_plugin

DEMO = bundled_directory("codellm-demo")


@pytest.fixture
def copy(tmp_path):
    return Path(shutil.copytree(DEMO, tmp_path / "model"))


def test_the_bundled_model_is_a_starcoder2_within_its_size():
    source = find("codellm-demo").fetch()
    assert source.format == "safetensors"
    assert source.licence == "apache-2.0"
    assert source.config["architectures"] == ["Starcoder2ForCausalLM"]
    assert not source.config["hidden_size"] % 256
    assert not source.config["intermediate_size"] % 256
    assert {info.dtype for info in source.tensors} == {"bfloat16"}
    assert sum(int(np.prod(info.shape)) for info in source.tensors) <= 6_000_000
    assert sum(file.stat().st_size for file in source.files if file.suffix == ".safetensors") <= 12_100_000


def test_a_directory_is_the_same_model_with_the_same_digest(copy):
    source = find(str(copy)).fetch()
    assert source.digest == find("codellm-demo").fetch().digest
    assert source.path == copy
    before = source.digest
    (copy / "tokenizer.json").write_bytes((copy / "tokenizer.json").read_bytes() + b"\n")
    assert find(str(copy)).fetch().digest != before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "holds no config.json"),
        ("config.json", b"{", "config.json: not valid JSON"),
        ("config.json", b"[1]", "not a JSON object but a list"),
        ("config.json", b"[" * 100_000, "config.json: not valid JSON"),
        ("tokenizer.json", None, "tokenizer.json: missing"),
        ("model.safetensors", None, "holds no .safetensors file"),
        ("model.safetensors", b"", "model.safetensors"),
        ("model.safetensors", b"\xff" * 8, "model.safetensors"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "gone.safetensors"}}', "gone.safetensors: missing"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "../x.safetensors"}}', "outside the directory"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "s/../../x.safetensors"}}', "outside the directory"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "/x.safetensors"}}', "outside the directory"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "."}}', "outside the directory"),
        ("model.safetensors.index.json", b'{"weight_map": 3}', "no weight_map"),
        ("model.safetensors.index.json", b'{"weight_map": {}}', "no weight_map"),
    ],
)
def test_a_broken_directory_names_the_file_and_the_fault(copy, name, content, message):
    (copy / name).unlink(missing_ok=True)
    if name == "model.safetensors.index.json":  # of shards: weights in one file need none
        (copy / "model.safetensors").unlink()
    if content is not None:
        (copy / name).write_bytes(content)
    with pytest.raises(ModelFileError, match=message):
        find(str(copy)).fetch()


def test_a_truncated_safetensors_is_told(copy):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ModelFileError, match=r"model\.safetensors"):
        find(str(copy)).fetch()


def test_pickled_weights_are_never_looked_at(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ModelFileError, match="pickled weights are never loaded"):
        find(str(copy)).fetch()


@pytest.mark.parametrize(("content", "message"), [(b"", "empty"), (b"PK\x03\x04zip", "not a GGUF file")])
def test_a_file_that_is_no_gguf_is_told(tmp_path, content, message):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=message):
        find(str(path))


def test_a_directory_of_gguf_says_which_file_to_name(tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelFileError, match=r"name the file itself: .*a\.gguf"):
        find(str(tmp_path))


def test_names_that_lead_nowhere():
    with pytest.raises(UnknownNameError, match="did you mean 'codellm-demo'"):
        find("codellm_demo")
    with pytest.raises(UnknownNameError, match=r"did you mean .(dummy:)?starcoder2-7b"):
        find("dummy:starcoder-7b")
    with pytest.raises(ModelNotFoundError, match="no such file"):
        find("./models/nothing.gguf")


def test_dummy_weights_say_so():
    source = find("dummy:tiny").fetch()
    assert source.dummy
    assert source.path is None
    assert json.dumps(dict(source.config))
    assert source.digest == find("dummy:tiny").fetch().digest != find("dummy:starcoder2-3b").fetch().digest


BABBLER = """
from codellm import Backend, Scheme, hookimpl

class Babbler(Backend):
    name = "babbler"
    formats = frozenset({"folder", "babble"})
    def load(self, spec, source):
        raise RuntimeError(f"{source.format} of {[file.name for file in source.files]}")

@hookimpl
def codellm_backends():
    return [Babbler()]
"""


def test_a_plugin_may_take_folders_and_files_of_its_own(tmp_path):
    site, folder = tmp_path / "site", tmp_path / "words"
    site.mkdir()
    install_plugin(site, "babbler", BABBLER)
    for name in ("b.py", "a/a.txt", ".git/config", "z.babble"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    assert "folder of ['b.py', 'z.babble', 'a.txt']" in codellm("generate", "-m", str(folder), "x", path=site).stderr
    made = str(folder / "z.babble")
    assert "babble of ['z.babble']" in codellm("generate", "-m", made, "x", path=site).stderr
    # without the plugin, the same are told what a model is
    assert "holds no config.json" in codellm("generate", "-m", str(folder), "x").stderr
    assert "not a GGUF file" in codellm("generate", "-m", made, "x").stderr


@pytest.mark.parametrize("model", ["x" * 5000, "a/" * 3000, "~nobody-of-this-name/model", "./\0", "/nowhere/\ud800/x"])
def test_a_name_that_no_file_can_have_is_an_unknown_model(model):
    with pytest.raises(CodellmError, match=r"unknown model|no such file|must be"):
        load(model)
