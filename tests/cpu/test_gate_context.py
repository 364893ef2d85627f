"""The gate reads as much of its text as a model's own context takes: a short one is no reason to refuse a file."""

import json
import shutil

import pytest

import codellm
from codellm.artifacts.ensure import ensure
from codellm.loading import find
from codellm.plugins.registry import registry
from codellm.sources.bundled import bundled_directory


@pytest.mark.parametrize(
    ("changes", "context"),
    [
        ({"sliding_window": 64}, 64),
        ({"sliding_window": 511}, 511),
        ({"max_position_embeddings": 256}, 256),
        ({"max_position_embeddings": 40, "sliding_window": None}, 40),
        ({"max_position_embeddings": 300, "sliding_window": 64}, 64),
    ],
)
def test_a_context_shorter_than_the_text_of_the_gate(tmp_path, changes, context):
    folder = shutil.copytree(bundled_directory("codellm-demo"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    made = ensure(find(str(folder)).fetch(), registry().scheme("q8_0"))
    figures = json.loads((made.path.parent / "manifest.json").read_text())["quality"]
    assert 0 < figures["bits_per_byte"] < figures["reference"] + 0.01
    with codellm.load(str(folder), backend="llama-cpp") as model:
        assert model.info.context_length == context
        assert model.generate("def add(a, b):\n    return", codellm.SamplingParams(max_tokens=3)).text == " a * b"
