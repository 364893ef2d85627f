"""GGUF files that others have published: which one a name means."""

import pytest

from codellm.errors import ModelNotFoundError, UnknownNameError
from codellm.loading import find
from codellm.plugins.registry import registry
from codellm.sources.published import Published
from support.hub_server import COMMIT, DEMO

pytestmark = pytest.mark.usefixtures("client")


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("model-Q4_K_M.gguf", "q4_k_m"),
        ("starcoder2-7b.q4_k_m.gguf", "q4_k_m"),
        ("Q8_0.GGUF", "q8_0"),
        ("qwen2.5-coder-7b-instruct-fp16.gguf", "f16"),
        ("model_bf16.gguf", "bf16"),
        ("model-Q4_0_4_4.gguf", "q4_0_4_4"),
        ("model-IQ4_XS.gguf", "iq4_xs"),
        ("model-Q4_K_M-imat.gguf", "q4_k_m"),
        ("ggml-model.gguf", ""),
    ],
)
def test_the_scheme_stands_in_the_name(name, scheme):
    assert Published.of([name, "config.json", "mmproj-F16.gguf", "imatrix.gguf"]) == Published({scheme: name}, {})


def test_of_a_scheme_in_one_file_and_in_parts_the_one_file_is_taken():
    parts = [f"m-{scheme}-0000{n}-of-00002.gguf" for scheme in ("q4_k_m", "f16") for n in (1, 2)]
    found = Published.of(["m-q4_k_m.gguf", *parts])
    assert found.whole == {"q4_k_m": "m-q4_k_m.gguf"}
    assert found.others == {"f16": "in parts, which are not supported"}


def ggufs(hub, *names, model=()):
    hub.repos["ours/demo"].files = {name: b"GGUF" + name.encode() for name in names} | {
        name: DEMO[name] for name in model
    }


def test_a_published_file_is_preferred_to_making_one(hub):
    ggufs(hub, "demo-Q8_0.gguf", "demo-Q4_0.gguf", model=DEMO)
    plain, named = find("ours/demo"), find("ours/demo:q8_0")
    assert (plain.format, plain.scheme) == ("safetensors", None)
    assert (named.format, named.scheme) == ("gguf", "q8_0")
    for found in (named, plain.in_scheme(registry().scheme("q8_0"))):
        source = found.fetch()
        assert (source.format, source.scheme, source.path.name) == ("gguf", "q8_0", "demo-Q8_0.gguf")
        assert (source.revision, source.licence) == (COMMIT, "apache-2.0")
    assert sorted(hub.served) == ["README.md", "config.json", "demo-Q8_0.gguf"]  # how the weights are packed is asked
    other = find("ours/demo:q6_k")
    assert (other.format, other.scheme) == ("safetensors", "q6_k")
    assert plain.in_scheme(registry().scheme("q6_k")) is plain


@pytest.mark.parametrize(
    ("file", "scheme"), [("demo-Q8_0.gguf", "q8_0"), ("demo.gguf", None), ("demo-Q4_0_4_4.gguf", None)]
)
def test_the_only_file_is_taken(hub, file, scheme):
    ggufs(hub, file)
    source = find("ours/demo").fetch()
    assert (source.path.name, source.scheme, source.licence) == (file, scheme, None)


@pytest.mark.parametrize(
    ("model", "names", "words"),
    [
        ("", ("a-q8_0.gguf", "a-q4_k_m.gguf"), "name one: ours/demo:q4_k_m, ours/demo:q8_0"),
        (":q6_k", ("a-q8_0.gguf",), "name one: ours/demo:q8_0"),
        (":q8_0", ("a-q8_0.gguf", "b-q8_0.gguf"), "q8_0 in several files: a-q8_0.gguf, b-q8_0.gguf"),
        (":f16", ("a-f16-00001-of-00002.gguf", "a-f16-00002-of-00002.gguf"), "f16 in parts, which are not supported"),
        ("", ("a-q4_0_4_4.gguf", "b.gguf"), "`hf download ours/demo a-q4_0_4_4.gguf` and give the file"),
    ],
)
def test_where_the_choice_is_open_it_says_what_there_is(hub, model, names, words):
    ggufs(hub, *names)
    with pytest.raises(ModelNotFoundError) as caught:
        find(f"ours/demo{model}").fetch()
    assert str(caught.value).startswith("ours/demo: holds only GGUF files; ")
    assert words in str(caught.value)


def test_a_scheme_that_nobody_has_is_not_asked_of_the_hub(hub):
    with pytest.raises(UnknownNameError, match="q4_k"):
        find("ours/demo:q4_k")
    assert not hub.lines()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("config.json", "pytorch_model.bin"), "pickled .pytorch_model.bin., which is never loaded"),
        (("config.json", "model.safetensors"), "has no tokenizer.json"),
        (("adapter_model.safetensors", "README.md"), "no model that can be read"),
        (("model.safetensors", "tokenizer.json"), "no model that can be read"),
    ],
)
def test_what_is_no_model_is_told_before_anything_is_fetched(hub, names, words):
    hub.repos["ours/demo"].files = dict.fromkeys(names, b"{}")
    with pytest.raises(ModelNotFoundError, match=words):
        find("ours/demo")
    assert not hub.served
