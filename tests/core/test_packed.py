"""Checkpoints that are quantized already: what their configuration says, and who takes them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import codellm
from codellm.artifacts import store
from codellm.artifacts.ensure import ensure
from codellm.errors import InvalidValueError, ModelFileError, UnknownNameError
from codellm.loading import find
from codellm.plugins.registry import registry
from codellm.sources.architectures import read_config
from codellm.sources.packed import packed_infos, packed_scheme
from support.checkpoints import Arrays, config_of, random_weights

DEMO = Path(codellm.__file__).parent / "data" / "codellm-demo"
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}
NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


@pytest.mark.parametrize(
    ("packing", "scheme"),
    [
        (GPTQ, "gptq-int4"),
        (GPTQ | {"bits": 3, "checkpoint_format": "gptq"}, "gptq-int3"),
        (GPTQ | {"bits": 8, "checkpoint_format": "gptq_v2", "pack_dtype": "int32", "lm_head": False}, "gptq-int8"),
        (AWQ, "awq-int4"),
        ({"quant_method": "awq", "w_bit": 4, "q_group_size": 64, "zero_point": True, "version": "GEMM"}, "awq-int4"),
        (NF4, "bnb-nf4"),
        (NF4 | {"bnb_4bit_quant_type": "fp4"}, "bnb-fp4"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False}, "bnb-int8"),
    ],
)
def test_the_scheme_of_a_checkpoint(packing, scheme):
    assert packed_scheme({"quantization_config": packing}, "here") == scheme


def test_plain_weights_have_none():
    assert packed_scheme({"quantization_config": None}, "here") is None


@pytest.mark.parametrize(
    ("packing", "message"),
    [
        (GPTQ | {"bits": 2}, "gptq of 2 bits is not supported; supported: 3, 4, 8"),
        (GPTQ | {"bits": "4"}, "gptq of '4' bits"),
        (GPTQ | {"checkpoint_format": "marlin"}, "in the format 'marlin'"),
        (GPTQ | {"is_marlin_format": True}, "in the format 'marlin'"),
        (GPTQ | {"group_size": 0}, "group_size is 0"),
        (GPTQ | {"lm_head": True}, "lm_head True is not supported"),
        (GPTQ | {"dynamic": {"-:.*": {}}}, "dynamic"),
        (AWQ | {"bits": 8}, "awq of 8 bits in the version 'gemm' is not supported; supported: 4 bits, gemm"),
        (AWQ | {"version": "gemv"}, "awq of 4 bits in the version 'gemv'"),
        (AWQ | {"group_size": None}, "awq's group_size is None"),
        ({"quant_method": "hqq", "bits": 4}, "'hqq' cannot be read; supported: gptq, bitsandbytes, awq"),
        ({"quant_method": "bitsandbytes"}, "neither 8 bits nor nf4 nor fp4"),
        ([1], "not an object"),
    ],
)
def test_what_cannot_be_read_is_told(packing, message):
    with pytest.raises(ModelFileError, match=f"here: .*{message}"):
        packed_scheme({"quantization_config": packing}, "here")


@pytest.fixture
def checkpoint(tmp_path):
    """The demo, as AutoGPTQ would have named it; its weights are the plain ones, which nobody here looks at."""
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO / name, tmp_path)
    shutil.copy(DEMO / "model.safetensors", tmp_path / "gptq_model-4bit-128g.safetensors")
    (tmp_path / "quantize_config.json").write_text(json.dumps({"bits": 4, "group_size": 128, "sym": True}))
    return tmp_path


def test_an_old_checkpoint_says_so_in_a_file_of_its_own(checkpoint):
    reference = find(str(checkpoint))
    source = reference.fetch()
    assert (reference.scheme, source.scheme) == ("gptq-int4", "gptq-int4")
    assert source.config["quantization_config"]["quant_method"] == "gptq"
    before = source.digest
    (checkpoint / "quantize_config.json").write_text(json.dumps({"bits": 4, "group_size": 64}))
    assert find(str(checkpoint)).fetch().digest != before


def test_a_backend_that_cannot_read_it_says_who_can(checkpoint):
    with pytest.raises(UnknownNameError, match=r"scheme of backend 'llama-cpp' 'gptq-int4'.*have it: .*transformers"):
        codellm.load(str(checkpoint), backend="llama-cpp")


@pytest.mark.parametrize("scheme", ["q4_0", "bf16", "bnb-nf4", "gptq-int8"])
def test_it_is_not_quantized_again(checkpoint, scheme):
    with pytest.raises(InvalidValueError, match=r"already quantized \(gptq-int4\); start from its original weights"):
        ensure(find(str(checkpoint)).fetch(), registry().scheme(scheme))


def words(packing, columns, rows):
    """The parts of a projection [rows, columns] in 4 bits, or those of `packing`, all of them zeros."""
    groups, bits = columns // 128, packing["bits"]
    if packing["quant_method"] == "awq":
        extents = {"qweight": (columns, rows // 8), "qzeros": (groups, rows // 8)}
    else:
        extents = {"qweight": (columns * bits // 32, rows), "qzeros": (groups, rows * bits // 32), "g_idx": (columns,)}
    parts = {part: np.zeros(shape, np.int32) for part, shape in extents.items()}
    return parts | {"scales": np.ones((groups, rows), np.float32)}


def packed(packing, **changes):
    """A tiny Llama whose projections are packed as `packing` says, with its architecture and configuration."""
    config = config_of("llama", 64, hidden_size=128, intermediate_size=256, num_attention_heads=4, **changes)
    arrays = random_weights(config)
    for name in [name for name in arrays if ".layers." in name and arrays[name].ndim == 2]:
        (rows, columns), stem = arrays.pop(name).shape, name.removesuffix("weight")
        arrays |= {f"{stem}{part}": values for part, values in words(packing, columns, rows).items()}
    source = codellm.ModelSource(name="tiny", format="safetensors", config=config | {"quantization_config": packing})
    return arrays, *read_config(source)


@pytest.mark.parametrize("packing", [GPTQ, AWQ])
def test_the_parts_of_a_packed_weight_are_held_against_the_configuration(packing):
    arrays, architecture, config = packed(packing)
    assert packed_infos(architecture, Arrays(arrays), config, "here").keys() == arrays.keys()
    part = "model.layers.0.mlp.up_proj.qweight"
    for wrong in (arrays[part][1:], arrays[part].astype(np.int64)):
        with pytest.raises(ModelFileError, match=r"here: tensor 'model.*up_proj\.qweight' is int"):
            packed_infos(architecture, Arrays(arrays | {part: wrong}), config, "here")
    with pytest.raises(ModelFileError, match=r"up_proj\.qweight' missing"):
        packed_infos(architecture, Arrays({name: arrays[name] for name in arrays if name != part}), config, "here")


def test_a_bias_of_zeros_that_the_model_has_no_place_for_is_left_out():
    arrays, architecture, config = packed(GPTQ)
    bias = {"model.layers.0.mlp.up_proj.bias": np.zeros(256, np.float16)}
    assert packed_infos(architecture, Arrays(arrays | bias), config, "here").keys() == arrays.keys()
    bias["model.layers.0.mlp.up_proj.bias"][7] = 1
    with pytest.raises(ModelFileError, match=r"up_proj\.bias' not known in llama"):
        packed_infos(architecture, Arrays(arrays | bias), config, "here")


def test_scales_in_a_cpu_s_own_order_are_refused():
    """Which is what transformers writes once a model of 4 bits was used on a CPU with AVX512."""
    config = config_of("llama", 64, hidden_size=128, intermediate_size=256, num_attention_heads=4)
    arrays = random_weights(config)
    part = "model.layers.0.mlp.up_proj.weight"
    arrays[part] = np.zeros((arrays[part].size // 2, 1), np.uint8)
    scales = {f"{part}.absmax": np.ones(512, np.float32), f"{part}.quant_map": np.ones(16, np.float32)}
    source = codellm.ModelSource(name="tiny", format="safetensors", config=config | {"quantization_config": NF4})
    read = read_config(source)
    assert packed_infos(read[0], Arrays(arrays | scales), read[1], "here").keys() == {*arrays, *scales}
    scales[f"{part}.absmax"] = np.ones((2, 256), np.float32)
    with pytest.raises(ModelFileError, match=r"up_proj\.weight' is uint8"):
        packed_infos(read[0], Arrays(arrays | scales), read[1], "here")


def four_bits(dtype, shape):
    """A tiny Llama one of whose projections is packed in 4 bits and stored as `dtype`, with all that it holds."""
    config = config_of("llama", 64, hidden_size=128, intermediate_size=256, num_attention_heads=4)
    arrays = random_weights(config)
    part = "model.layers.0.mlp.up_proj.weight"
    arrays[part] = np.zeros(shape, dtype)
    arrays[f"{part}.absmax"] = np.ones(512, np.float32)
    source = codellm.ModelSource(name="tiny", format="safetensors", config=config | {"quantization_config": NF4})
    return arrays, *read_config(source)


BYTES = 256 * 128 // 2


@pytest.mark.parametrize(
    ("dtype", "rows"),
    [("uint8", BYTES), ("int8", BYTES), ("float16", BYTES // 2), ("float32", BYTES // 4)],
)
def test_four_bits_may_be_stored_as_numbers_of_another_type(dtype, rows):
    """As FSDP wants them; of bfloat16, which numpy has not, see tests/gpu/test_save_bitsandbytes.py."""
    arrays, architecture, config = four_bits(dtype, (rows, 1))
    assert packed_infos(architecture, Arrays(arrays), config, "here").keys() == arrays.keys()
    for wrong in ((rows * 2, 1), (rows // 2, 1), (rows,), (1, rows)):
        arrays, architecture, config = four_bits(dtype, wrong)
        with pytest.raises(ModelFileError, match=r"up_proj\.weight' is "):
            packed_infos(architecture, Arrays(arrays), config, "here")


PLUGIN = """
import shutil
from codellm import Artifact, Scheme, hookimpl

@hookimpl
def codellm_schemes():
    return [Scheme(name="whole", bits=16, applies="file", format="safetensors", takes=frozenset({"safetensors"}))]

@hookimpl
def codellm_quantize(request):
    if request.scheme.name == "whole":
        shutil.copytree(request.source.path, request.destination)
        return Artifact(path=request.destination, scheme="whole", format="safetensors")
"""


def test_an_artifact_may_be_a_directory(tmp_path, monkeypatch):
    """Kept, counted and removed as a file is; the gate is not asked here, since no backend of this scheme is there."""
    import pluggy

    from codellm.plugins.manager import manager

    monkeypatch.setenv("CODELLM_CACHE", str(tmp_path))
    scope: dict = {}
    exec(PLUGIN, scope)
    plugin = type("Plugin", (), {name: staticmethod(scope[name]) for name in ("codellm_schemes", "codellm_quantize")})
    plugins = manager()
    assert isinstance(plugins, pluggy.PluginManager)
    plugins.register(plugin, "whole")
    try:
        source, [scheme] = find("codellm-demo").fetch(), scope["codellm_schemes"]()
        made = ensure(source, scheme, measure=lambda source: 1.0)
        assert (made.scheme, made.name, made.digest) == ("whole", "codellm-demo", source.digest)
        assert (made.path.name, made.tensors is not None) == ("codellm-demo-whole", True)
        assert ensure(source, scheme).path == made.path
        [kept] = store.kept_artifacts()
        assert kept.size == kept.manifest["bytes"] == sum(file.stat().st_size for file in DEMO.iterdir())
        store.remove(kept)
        assert store.kept_artifacts() == []
    finally:
        plugins.unregister(plugin)
