"""A checkpoint with everything that others leave in one gives the text of the plain one, on every backend."""

import json
import shutil
from typing import ClassVar

import numpy as np
import pytest

import codellm
from codellm.loading import find
from codellm.sources import TensorInfo, Tensors
from codellm.sources.bundled import bundled_directory
from support.checkpoints import save_safetensors

PLAIN = find("codellm-demo").fetch()
PROMPT = "def add(a, b):\n    return"
PARAMS = codellm.SamplingParams(max_tokens=10)
EXTRA = {
    "rotary_emb.inv_freq": np.ones(32, np.float32),
    "layers.0.self_attn.rotary_emb.inv_freq": np.ones(32, np.float32),
    "layers.1.self_attn.bias": np.ones((1, 1, 8, 8), np.float32),
    "layers.1.self_attn.masked_bias": np.array(-1e4, np.float32),
    "v_head.summary.weight": np.ones((1, 256), np.float32),
}


class Theirs(Tensors):
    """The base model without its prefix, the embedding under the output's name, and buffers."""

    names: ClassVar = {
        info.name.replace("model.embed_tokens", "lm_head").removeprefix("model."): info.name for info in PLAIN.tensors
    }

    def infos(self):
        known = {info.name: info for info in PLAIN.tensors}
        for ours, theirs in self.names.items():
            yield TensorInfo(ours, known[theirs].shape, known[theirs].dtype)
        for name, values in EXTRA.items():
            yield TensorInfo(name, values.shape, "float32")

    def read(self, name):
        return EXTRA[name] if name in EXTRA else PLAIN.tensors.read(self.names[name])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("theirs")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes(b"\xef\xbb\xbf" + (bundled_directory("codellm-demo") / name).read_bytes())
    save_safetensors(folder / "model.safetensors", Theirs(), [info.name for info in Theirs()])
    stale = dict.fromkeys(Theirs.names, "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": stale}))
    return folder


@pytest.mark.parametrize("backend", ["torch-cpu", "transformers-cpu", "llama-cpp"])
def test_the_text_is_that_of_the_plain_checkpoint(folder, backend):
    scheme = "bf16" if backend == "llama-cpp" else None
    texts = []
    for model in ("codellm-demo", str(folder)):
        with codellm.load(model, backend=backend, scheme=scheme) as loaded:
            texts.append(loaded.generate(PROMPT, PARAMS).text)
    assert texts[0] == texts[1] != ""


@pytest.mark.parametrize("backend", ["torch-cpu", "transformers-cpu", "llama-cpp"])
def test_tokens_without_a_row_of_the_embedding_are_text(folder, tmp_path, backend):
    """CodeLlama-34B's form: a tokenizer.json with more tokens than the embedding has rows."""
    theirs = shutil.copytree(folder, tmp_path / "more")
    data = json.loads((theirs / "tokenizer.json").read_text("utf-8-sig"))
    entry = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    for number, text in enumerate(("add(a", "<|new|>")):
        data["added_tokens"].append({"id": 3584 + number, "content": text, "special": bool(number), **entry})
    (theirs / "tokenizer.json").write_text(json.dumps(data))
    texts = []
    for model in ("codellm-demo", str(theirs)):
        with codellm.load(model, backend=backend, scheme="bf16" if backend == "llama-cpp" else None) as loaded:
            texts.append([loaded.generate(prompt, PARAMS).text for prompt in (PROMPT, "# <|new|>\n" + PROMPT)])
    assert texts[0] == texts[1]
