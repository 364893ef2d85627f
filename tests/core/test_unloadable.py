"""What is no model that can be loaded is named as what it is, with a way to one that can."""

import json
import shutil

import pytest

from codellm.errors import ModelFileError
from codellm.loading import find
from codellm.sources.bundled import bundled_directory
from codellm.sources.packed import packed_scheme
from codellm.sources.safetensors import SafetensorsFiles
from support.safetensors_bytes import packed

DEMO = bundled_directory("codellm-demo")
PARTS = [f"demo-q8_0-0000{part}-of-00003.gguf" for part in (1, 2, 3)]


def fault(folder):
    with pytest.raises(ModelFileError) as caught:
        find(str(folder)).fetch()
    text = str(caught.value)
    assert "\n" not in text
    assert str(folder) in text
    return text


def fill(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"GGUF")


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (["model.gguf"], ["model.gguf"]),
        ([*PARTS, "demo-q4_0.gguf"], ["demo-q4_0.gguf"]),
        (["mmproj-model-f16.gguf", "qwen-Q4_K_M.gguf"], ["qwen-Q4_K_M.gguf"]),
        (["model.imatrix.gguf", "model.gguf"], ["model.gguf"]),
        (["a-q4_0.gguf", "b-q8_0.gguf"], ["a-q4_0.gguf", "b-q8_0.gguf"]),
        (["repo/mmproj-F16.gguf", "repo/qwen-Q4_K_M.gguf"], ["repo/qwen-Q4_K_M.gguf"]),
        (["UPPER.gguf", "MMPROJ.gguf"], ["UPPER.gguf"]),
    ],
)
def test_a_folder_of_gguf_names_the_files_that_can_be_loaded(tmp_path, names, named):
    fill(tmp_path, *names)
    text = fault(tmp_path)
    assert text.endswith("name the file itself: " + " or ".join(str(tmp_path / name) for name in named))


def test_a_folder_of_many_files_names_some(tmp_path):
    fill(tmp_path, *(f"{number}.gguf" for number in range(9)))
    assert fault(tmp_path).endswith("2.gguf (or one of 6 more)")


@pytest.mark.parametrize("beside", [[], ["mmproj-F16.gguf"]])
def test_of_a_file_in_parts_it_says_how_to_merge_them(tmp_path, beside):
    fill(tmp_path, *PARTS, *beside)
    text = fault(tmp_path)
    assert "name the file itself" not in text
    assert f"merge them with `llama-gguf-split --merge {tmp_path / PARTS[0]} MODEL.gguf`, and name MODEL.gguf" in text


def test_what_goes_with_a_model_is_not_named_as_one(tmp_path):
    fill(tmp_path, "mmproj-F16.gguf")
    assert "'mmproj-F16.gguf' is no model but goes with one" in fault(tmp_path)


def test_a_configuration_beside_gguf_files_leads_to_the_file(tmp_path):
    shutil.copy(DEMO / "config.json", tmp_path)
    fill(tmp_path, "demo-q8_0.gguf", "mmproj-F16.gguf")
    assert fault(tmp_path).endswith(f"name the file itself: {tmp_path / 'demo-q8_0.gguf'}")


ADAPTER = {"peft_type": "LORA", "base_model_name_or_path": "bigcode/starcoder2-7b", "r": 8}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (json.dumps(ADAPTER), "is a LoRA adapter for 'bigcode/starcoder2-7b', not a whole model; merge it"),
        (json.dumps({"peft_type": "LORA"}), "is a LoRA adapter, not a whole model; merge it"),
        (json.dumps(ADAPTER | {"peft_type": "IA3"}), "is an adapter of peft ('IA3') for 'bigcode/starcoder2-7b'"),
        ("\ufeff" + json.dumps(ADAPTER), "is a LoRA adapter for 'bigcode/starcoder2-7b'"),
        ("{broken", "is a LoRA adapter, not a whole model"),
        (json.dumps({"base_model_name_or_path": 3}), "is a LoRA adapter, not a whole model"),
    ],
)
@pytest.mark.parametrize("whole", [False, True])
def test_an_adapter_is_named_as_one_with_its_base(tmp_path, config, words, whole):
    (tmp_path / "adapter_config.json").write_text(config)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    if whole:  # as trainers leave it, with the base model's configuration
        shutil.copy(DEMO / "config.json", tmp_path)
        shutil.copy(DEMO / "tokenizer.json", tmp_path)
    assert words in fault(tmp_path)


def test_an_adapter_beside_a_whole_model_is_no_part_of_its_weights(tmp_path):
    folder = shutil.copytree(DEMO, tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.safetensors")
    (folder / "adapter_model.safetensors").write_bytes(b"")
    source = find(str(folder)).fetch()
    assert [file.name for file in source.files if file.suffix == ".safetensors"] == ["pytorch_model.safetensors"]


REMEDY = "take the model's original weights, or a GGUF file of it"


@pytest.mark.parametrize(
    ("config", "method"),
    [
        *(({"quantization_config": {"quant_method": name}}, name) for name in ("aqlm", "fp8", "mxfp4", "hqq", "exl2")),
        ({"quantization_config": {"quant_method": "compressed-tensors", "format": "pack"}}, "compressed-tensors"),
        ({"compression_config": {"format": "pack-quantized"}}, "compressed-tensors"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "mlx"),
        ({"quantization": {"bits": 4}, "quantization_config": {"group_size": 64, "bits": 4}}, "mlx"),
    ],
)
def test_a_quantization_that_nobody_reads_is_named_with_a_remedy(config, method):
    with pytest.raises(ModelFileError) as caught:
        packed_scheme(config, "config.json")
    text = str(caught.value)
    assert text.startswith(f"config.json: weights quantized by '{method}' cannot be read; supported: gptq, ")
    assert text.endswith(REMEDY)


@pytest.mark.parametrize(
    ("name", "content", "method"),
    [
        ("hf_quant_config.json", {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}, "modelopt"),
    ],
)
def test_a_quantization_may_be_told_in_a_file_of_its_own(tmp_path, name, content, method):
    shutil.copy(DEMO / "config.json", tmp_path)
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(ModelFileError, match=f"weights quantized by '{method}' cannot be read"):
        find(str(tmp_path))


def test_awq_may_be_told_in_a_file_of_its_own(tmp_path):
    shutil.copy(DEMO / "config.json", tmp_path)
    content = {"zero_point": True, "q_group_size": 128, "w_bit": 4, "version": "GEMM"}
    (tmp_path / "quant_config.json").write_text(json.dumps(content))
    assert find(str(tmp_path)).scheme == "awq-int4"


def test_no_quantization_is_none():
    for config in ({}, {"quantization_config": None}, {"quantization_config": {}}, {"quantization": None}):
        assert packed_scheme(config, "config.json") is None


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "F6_E2M3"])
def test_weights_in_floats_of_few_bits_are_named(tmp_path, kind):
    header = json.dumps({"w": {"dtype": kind, "shape": [4], "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(packed(header, bytes(4)))
    with pytest.raises(ModelFileError, match=rf"tensor 'w': is stored as '{kind}': .*original weights"):
        SafetensorsFiles([path])
