"""Checkpoints as others save them: whatever the names and files, the weights are those of the plain one."""

import json
import re
import shutil

import numpy as np
import pytest

from codellm.errors import ModelFileError
from codellm.loading import find
from codellm.sources import TensorInfo, Tensors
from codellm.sources.architectures import read_config
from codellm.sources.bundled import bundled_directory
from codellm.sources.naming import usual_name
from support.checkpoints import Arrays, config_of, random_weights, save_safetensors

DEMO = bundled_directory("codellm-demo")
PLAIN = find("codellm-demo").fetch()
NAMES = [info.name for info in PLAIN.tensors]
EMBEDDING, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
BOM = b"\xef\xbb\xbf"


class Edited(Tensors):
    """The demo's tensors under other names, and further arrays beside them."""

    def __init__(self, rename=lambda name: name, **extra):
        self.names = {rename(name): name for name in NAMES}
        self.extra = Arrays({name.replace("__", "."): array for name, array in extra.items()})

    def infos(self):
        known = {info.name: info for info in PLAIN.tensors}
        for ours, theirs in self.names.items():
            yield TensorInfo(ours, known[theirs].shape, known[theirs].dtype)
        yield from self.extra.infos()

    def read(self, name):
        return PLAIN.tensors.read(self.names[name]) if name in self.names else self.extra.read(name)


@pytest.fixture
def folder(tmp_path):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO / name, tmp_path / name)
    return tmp_path


def save(folder, tensors, name="model.safetensors"):
    save_safetensors(folder / name, tensors, [info.name for info in tensors])


def shards(folder, first="model-00001-of-00002.safetensors", second="model-00002-of-00002.safetensors", prefix=""):
    """The demo in two files, and their index, which names them with a `prefix`."""
    index = {}
    for file, names in ((first, NAMES[:40]), (second, NAMES[40:])):
        (folder / file).parent.mkdir(exist_ok=True)
        save_safetensors(folder / file, PLAIN.tensors, names)
        index |= dict.fromkeys(names, prefix + file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return index


def assert_is_the_demo(folder):
    source = find(str(folder)).fetch()
    expected = {info.name: info for info in PLAIN.tensors}
    architecture, config = read_config(source)
    infos = architecture.infos(source.tensors, config, folder)
    assert infos == {name: expected[name] for name in infos}
    assert infos.keys() == expected.keys()
    assert all((source.tensors.read(name) == PLAIN.tensors.read(name)).all() for name in expected)
    assert (config.tied, source.dtype) == (True, "bfloat16")


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name.removeprefix("model."),
        lambda name: f"module.{name}",
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module.{name.removeprefix('model.')}",
        lambda name: f"_forward_module._orig_mod.{name}",
        lambda name: f"pretrained_model.{name}",
        lambda name: re.sub(r"layers\.(\d+)", r"layers.\1._orig_mod", name),
        lambda name: re.sub(r"layers\.(\d+)", r"layers.\1._fsdp_wrapped_module._checkpoint_wrapped_module", name),
        lambda name: name.replace(EMBEDDING, OUTPUT),
        lambda name: f"module.{name.replace(EMBEDDING, OUTPUT)}",
        lambda name: name.replace(EMBEDDING, OUTPUT).removeprefix("model."),
    ],
)
def test_names_are_those_of_transformers_whoever_saved_them(folder, rename):
    save(folder, Edited(rename))
    assert_is_the_demo(folder)


F32 = np.float32


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("model.layers.0.self_attn.rotary_emb.inv_freq", np.ones(32, F32)),
        ("layers.3.self_attn.rotary_emb.inv_freq", np.ones(32, F32)),
        ("model.rotary_emb.inv_freq", np.ones(32, F32)),
        ("rotary_emb.inv_freq", np.ones(32, F32)),
        ("module.model.rotary_emb.original_inv_freq", np.ones(32, F32)),
        ("model.layers.0.self_attn.rotary_emb.cos_cached", np.ones((1, 1, 64, 32), F32)),
        ("model.layers.0.self_attn.rotary_emb.sin_cached", np.ones((64, 32), F32)),
        ("model.layers.0.self_attn.bias", np.ones((1, 1, 8, 8), F32)),
        ("model.layers.0.attn.bias", np.ones((1, 1, 8, 8), bool)),
        ("model.layers.0.self_attn.masked_bias", np.array(-1e4, F32)),
        ("model.causal_mask", np.ones((8, 8), bool)),
        ("model.position_ids", np.arange(8)),
        ("value_head.weight", np.ones((1, 256), F32)),
        ("v_head.summary.weight", np.ones((1, 256), F32)),
        ("v_head.summary.bias", np.ones(1, F32)),
        ("score.weight", np.ones((2, 256), F32)),
        ("medusa_head.0.linear.weight", np.ones((256, 256), F32)),
    ],
)
def test_what_no_text_depends_on_is_passed_over(folder, name, values):
    save(folder, Edited(**{name.replace(".", "__"): values}))
    assert_is_the_demo(folder)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("model.layers.0.self_attn.bias", np.ones(256, F32)),
        ("model.layers.0.self_attn.q_norm.weight", np.ones(64, F32)),
        ("model.layers.99.mlp.c_fc.weight", np.ones((4, 4), F32)),
        ("model.layers.0.self_attn.q_proj.lora_A.default.weight", np.ones((4, 256), F32)),
        ("lm_head.bias", np.ones(3584, F32)),
        ("adapter.weight", np.ones(4, F32)),
        ("model.embed_positions.weight", np.ones((8, 256), F32)),
    ],
)
def test_what_may_change_the_text_is_refused_by_name(folder, name, values):
    save(folder, Edited(**{name.replace(".", "__"): values}))
    source = find(str(folder)).fetch()
    architecture, config = read_config(source)
    with pytest.raises(ModelFileError, match=rf"tensor '{re.escape(name)}' not known in starcoder2"):
        architecture.infos(source.tensors, config, folder)


def test_the_names_of_an_architecture_that_a_plugin_computes_are_its_own(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "theirs"}))
    names = {"layers.0.weight", "score.weight", "module.x", "lm_head.weight"}
    save(folder, Arrays({name: np.ones((2, 2), F32) for name in names}))
    assert {info.name for info in find(str(folder)).fetch().tensors} == names


def test_two_tensors_of_one_name_are_refused_with_both(folder):
    save(folder, Edited(norm__weight=np.ones(256, F32)))
    with pytest.raises(ModelFileError, match=r"'model\.norm\.weight' and 'norm\.weight' are both 'model\.norm"):
        find(str(folder)).fetch()


def test_a_tied_model_that_stores_its_output_too_is_the_same(folder):
    save(folder, Doubled(PLAIN.tensors.read(EMBEDDING)))
    source = find(str(folder)).fetch()
    architecture, config = read_config(source)
    assert config.tied
    assert architecture.infos(source.tensors, config, folder).keys() == set(NAMES)


class Doubled(Edited):
    """With an output of its own, in bfloat16."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def infos(self):
        yield from super().infos()
        yield TensorInfo(OUTPUT, self.output.shape, "bfloat16")

    def read(self, name):
        return self.output if name == OUTPUT else super().read(name)


def test_an_output_of_its_own_counts_whatever_the_configuration_says(folder):
    """As in transformers 5, which ties embedding and output only where they are equal."""
    output = PLAIN.tensors.read(EMBEDDING).copy()
    output[-1, -1] ^= 1
    save(folder, Doubled(output))
    source = find(str(folder)).fetch()
    architecture, config = read_config(source)
    assert not config.tied
    assert OUTPUT in architecture.infos(source.tensors, config, folder)
    assert (source.tensors.read(OUTPUT) == output).all()


def test_an_untied_model_without_an_embedding_is_refused(folder):
    config = config_of("llama", 64)
    arrays = random_weights(config)
    del arrays[EMBEDDING]
    save(folder, Arrays(arrays))
    (folder / "config.json").write_text(json.dumps(config))
    source = find(str(folder)).fetch()
    architecture, read = read_config(source)
    with pytest.raises(ModelFileError, match=r"'model\.embed_tokens\.weight' missing"):
        architecture.infos(source.tensors, read, folder)


@pytest.mark.parametrize(
    ("stored", "usual"),
    [
        ("layers.0.mlp.c_fc.weight", "model.layers.0.mlp.c_fc.weight"),
        ("model.layers.0.mlp.c_fc.weight", "model.layers.0.mlp.c_fc.weight"),
        ("lm_head.weight", "lm_head.weight"),
        ("module.lm_head.weight", "lm_head.weight"),
        ("visual.layers.0.weight", "visual.layers.0.weight"),
        ("module", ""),
        ("", ""),
    ],
)
def test_the_usual_name(stored, usual):
    assert usual_name(stored) == usual


# --- which files ------------------------------------------------------------------------------------------------------


def test_weights_in_one_file_go_before_an_index_that_stayed(folder):
    save(folder, PLAIN.tensors)
    stale = {name: f"model-0000{1 + len(name) % 5}-of-00005.safetensors" for name in NAMES}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": stale}))
    assert_is_the_demo(folder)
    (folder / "model-00001-of-00005.safetensors").write_bytes(b"what is left of an older checkpoint")
    assert_is_the_demo(folder)
    (folder / "model.safetensors.index.json").write_bytes(b"")
    assert_is_the_demo(folder)


@pytest.mark.parametrize(
    ("first", "second", "prefix"),
    [
        ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", ""),
        ("a.safetensors", "b.safetensors", "./"),
        ("a.safetensors", "b.safetensors", ".//./"),
        ("a.safetensors", "b.safetensors", "sub/../"),
        ("parts/a.safetensors", "parts/b.safetensors", ""),
        ("parts/a.safetensors", "parts/b.safetensors", "./"),
    ],
)
def test_an_index_may_name_its_files_in_any_way_that_leads_to_them(folder, first, second, prefix):
    shards(folder, first, second, prefix)
    assert_is_the_demo(folder)
    (folder / "consolidated.safetensors").write_bytes(b"the same once more, for another program")
    assert_is_the_demo(folder)


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json"]
)
def test_a_byte_order_mark_before_a_file_of_the_model_changes_nothing(folder, name):
    from codellm.tokenizer import HFTokenizer

    shards(folder)
    (folder / name).write_bytes(BOM + (folder / name).read_bytes())
    assert_is_the_demo(folder)
    source = find(str(folder)).fetch()
    assert (source.config, source.tokenizer_config) == (PLAIN.config, PLAIN.tokenizer_config)
    tokenizer = HFTokenizer(source.tokenizer, source.tokenizer_config)
    assert tokenizer.prompt_ids("def f():") == HFTokenizer(PLAIN.tokenizer, PLAIN.tokenizer_config).prompt_ids(
        "def f():"
    )
