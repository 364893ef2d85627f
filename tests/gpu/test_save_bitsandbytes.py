"""Checkpoints that bitsandbytes wrote: loaded again, by us and by transformers alone, they compute the same."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import codellm
from codellm.artifacts.ensure import ensure
from codellm.errors import ModelFileError, UnknownNameError
from codellm.loading import find
from codellm.plugins.registry import registry
from codellm.sources.local import read_directory
from codellm_gpu.quantize import add_tokenizer
from support.chats import CHATML, with_template
from support.safetensors_bytes import packed

SCHEMES = ("bnb-int8", "bnb-nf4", "bnb-fp4")
TEXT = "def add(a, b):\n    return"
PLACE = {"backend": "transformers-cpu", "context_length": 64, "dtype": "bfloat16"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint of the demo in each scheme, that passed the gate."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CODELLM_CACHE", str(tmp_path_factory.mktemp("cache")))
        source = find("codellm-demo").fetch()
        return {scheme: ensure(source, registry().scheme(scheme)) for scheme in SCHEMES}


def logits(model):
    return model.logits(model.tokenizer.encode(TEXT))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_loads_to_the_logits_that_it_was_saved_from(saved, scheme):
    with codellm.load("codellm-demo", scheme=scheme, **PLACE) as model:
        expected, info = logits(model), model.info
    with codellm.load(str(saved[scheme].path), **PLACE) as model:
        assert (model.info.scheme, model.info.parameters) == (scheme, info.parameters)
        assert model.info.weight_bytes == info.weight_bytes
        assert np.array_equal(logits(model), expected)


def test_the_chat_template_goes_along(tmp_path):
    source = read_directory(with_template(tmp_path), "demo")
    (tmp_path / "made").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(tmp_path / name, tmp_path / "made" / name)
    add_tokenizer(source, tmp_path / "made")
    assert read_directory(tmp_path / "made", "demo").chat_template == source.chat_template == CHATML


@pytest.mark.parametrize(
    ("dtype", "code", "size"), [("bfloat16", "BF16", 2), ("float16", "F16", 2), ("float32", "F32", 4)]
)
def test_bytes_that_are_stored_as_another_type_are_the_same_weights(saved, tmp_path, dtype, code, size):
    """`bnb_4bit_quant_storage`, which FSDP needs: the file differs in its header alone."""
    folder = Path(shutil.copytree(saved["bnb-nf4"].path, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["bnb_4bit_quant_storage"] = dtype
    (folder / "config.json").write_text(json.dumps(config))
    [weights] = folder.glob("*.safetensors")
    data = weights.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    for name, entry in header.items():
        if name.endswith(("_proj.weight", ".c_fc.weight")):
            assert entry["dtype"] == "U8"
            entry |= {"dtype": code, "shape": [entry["shape"][0] // size, 1]}
    weights.write_bytes(packed(header, data[end:]))
    with codellm.load(str(saved["bnb-nf4"].path), **PLACE) as model:
        expected, info = logits(model), model.info
    with codellm.load(str(folder), **PLACE) as model:
        assert np.array_equal(logits(model), expected)
        assert (model.info.scheme, model.info.weight_bytes) == ("bnb-nf4", info.weight_bytes)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_transformers_loads_it(saved, scheme):
    import torch
    import transformers

    with codellm.load(str(saved[scheme].path), **PLACE) as model:
        ids, expected = model.tokenizer.encode(TEXT), logits(model)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        saved[scheme].path, dtype=torch.bfloat16, device_map={"": "cpu"}
    )
    with torch.inference_mode():
        found = theirs(input_ids=torch.tensor([ids])).logits[0, -1].float().numpy()
    assert np.abs(found[: len(expected)] - expected).mean() < 0.15  # bfloat16 of logits that are 3 apart


def test_what_it_is_in_decides_who_loads_it(saved):
    path = str(saved["bnb-nf4"].path)
    chosen = registry().choose(codellm.LoadSpec(model=path, scheme=find(path).scheme), "safetensors")
    assert chosen.name == "transformers-cpu"
    with pytest.raises(UnknownNameError, match=r"backend 'torch-cpu' 'bnb-nf4'\. Backends that have it"):
        codellm.load(path, backend="torch-cpu")
    with pytest.raises(ModelFileError, match=r"quantized already \(bnb-nf4\); load the original"):
        registry().backend("torch-cpu").load(codellm.LoadSpec(model=path), find(path).fetch())
