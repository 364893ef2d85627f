"""Each hook of codellm.hookspec, implemented by an installed plugin and called by the command line."""

import json

import pytest

from support.plugin_folder import codellm, install_plugin, python


@pytest.fixture
def plugin(tmp_path):
    """Install the plugin `guest` with this code."""

    def install(code):
        install_plugin(tmp_path, "guest", code)
        return tmp_path

    return install


def generated(path, *args):
    done = codellm("generate", "def f", "--max-tokens", "3", "--ignore-eos", "--format", "json", *args, path=path)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


BACKENDS = """
from codellm import Availability, Backend, Scheme, hookimpl

class Toy(Backend):
    name = "{name}"
    formats = frozenset({{"toy"}})
    def availability(self): return Availability(True)
    def schemes(self): return (Scheme(name="toy-int2", bits=2, applies="load"),)
    def load(self, spec, source): raise NotImplementedError

{rest}
"""


def test_hook_codellm_backends_brings_several_backends(plugin):
    rest = "class Other(Toy):\n    name = 'other'\n@hookimpl\ndef codellm_backends(): return iter([Toy(), Other()])"
    done = codellm("backends", "--format", "json", path=plugin(BACKENDS.format(name="toy", rest=rest)))
    assert {"toy", "other", "llama-cpp"} <= {row["backend"] for row in json.loads(done.stdout)}


SCHEMES = """
import shutil
from codellm import Artifact, Scheme, hookimpl

@hookimpl
def codellm_schemes():
    return [Scheme(name="copied", bits=32, applies="file", format="gguf", takes=frozenset({"gguf"}))]

@hookimpl
def codellm_quantize(request):
    if request.scheme.name == "copied":
        shutil.copy(request.source.path, request.destination)
        request.progress(1, 1)
        return Artifact(path=request.destination, scheme="copied", format="gguf")
"""


def test_hook_codellm_schemes_and_quantize_make_a_checked_file(plugin, tmp_path):
    done = codellm("quantize", "codellm-demo", "-q", "copied", path=plugin(SCHEMES))
    assert done.returncode == 0, done.stderr
    assert "copied" in done.stdout
    kept = json.loads(codellm("models", "--format", "json", path=tmp_path).stdout)
    assert "copied" in {row["scheme"] for row in kept}


PLAN = """
from codellm import CodellmError, hookimpl

@hookimpl
def codellm_quantize_plan(source, scheme, fitted):
    BODY
"""


def planned(plugin, tmp_path, body, *args):
    path = plugin(PLAN.replace("BODY", body))
    return codellm("quantize", "codellm-demo", *args, path=path, CODELLM_CACHE=str(tmp_path / "cache"))


def test_hook_codellm_quantize_plan_is_told_before_anything_is_written(plugin, tmp_path):
    done = planned(plugin, tmp_path, "return [f'{source.format} in {scheme.name}, fitted {fitted}']", "-q", "q4_0")
    assert done.returncode == 0, done.stderr
    told = done.stderr.splitlines()
    steps = ["codellm-demo: safetensors in q4_0, fitted False", "writing bf16", "writing q4_0"]
    assert [line for line in told if line in steps] == steps


@pytest.mark.parametrize(("body", "what"), [
    ("raise CodellmError('not for this model')", "codellm: not for this model"),
    ("raise ValueError('boom')", "codellm-demo: planning it in q4_0 failed: ValueError: boom (raised in"),
    ("return 3", "planning it in q4_0 failed: TypeError"),
])  # fmt: skip
def test_hook_codellm_quantize_plan_that_raises_stops_it_before_anything_is_written(plugin, tmp_path, body, what):
    done = planned(plugin, tmp_path, body, "-q", "q4_0")
    assert (done.returncode, done.stdout) == (1, "")
    assert what in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "cache" / "artifacts").glob("*-*"))


def test_hook_codellm_quantize_leaves_the_schemes_of_others_alone(plugin, tmp_path):
    done = codellm(
        "quantize", "codellm-demo", "-q", "q4_0", path=plugin(SCHEMES), CODELLM_CACHE=str(tmp_path / "cache")
    )
    assert done.returncode == 0, done.stderr


def test_hook_codellm_load_can_be_wrapped(plugin):
    code = """
from codellm import hookimpl

@hookimpl(wrapper=True)
def codellm_load(spec, source):
    model = yield
    print("loaded", spec.backend, spec.scheme, source.format)
    return model
"""
    done = codellm("generate", "def f", "--max-tokens", "1", path=plugin(code))
    assert done.stdout.startswith("loaded llama-cpp q8_0 gguf\n"), done.stderr


def test_hook_codellm_load_can_be_replaced(plugin):
    code = """
from codellm import hookimpl
from codellm.plugins.registry import registry

@hookimpl
def codellm_load(spec, source):
    model = registry().backend(spec.backend).load(spec, source)
    print("loaded by the guest")
    return model
"""
    done = codellm("generate", "def f", "--max-tokens", "1", path=plugin(code))
    assert done.stdout.startswith("loaded by the guest\n"), done.stderr


def test_hook_codellm_load_is_handed_the_backend_that_was_chosen(plugin):
    code = """
from codellm import Backend, hookimpl

@hookimpl
def codellm_load(spec, source, backend):
    assert isinstance(backend, Backend) and backend.name == spec.backend
    print("loaded by", backend.name)
    return backend.load(spec, source)
"""
    done = codellm("generate", "def f", "--max-tokens", "1", path=plugin(code))
    assert done.stdout.startswith("loaded by llama-cpp\n"), done.stderr


def test_hook_codellm_generate_can_be_replaced(plugin):
    code = """
from codellm import Token, hookimpl

@hookimpl
def codellm_generate(model, sequences):
    return steps(list(sequences))

def steps(running):
    while any(not sequence.finished for sequence in running):
        yield [Token(42, sequence) for sequence in running if not sequence.finished]
"""
    found = generated(plugin(code))
    assert (found["token_ids"], found["finish_reason"]) == ([42, 42, 42], "length")


def test_hook_codellm_generate_that_returns_none_leaves_it_to_the_model(plugin):
    code = "from codellm import hookimpl\n@hookimpl\ndef codellm_generate(model): print(model.info.architecture)"
    done = codellm("generate", "def f", "--max-tokens", "1", path=plugin(code))
    assert done.stdout.startswith("starcoder2\n"), done.stderr


def test_hook_codellm_generated_is_told_of_every_sequence(plugin):
    code = """
from codellm import hookimpl

@hookimpl
def codellm_generated(sequence, result):
    print(sequence.index, len(result.token_ids), result.finish_reason)
"""
    batch = """
import codellm
with codellm.load("codellm-demo") as model:
    model.generate_batch(["def f", "def f"], codellm.SamplingParams(max_tokens=2, ignore_eos=True))
"""
    done = python("-c", batch, path=plugin(code))
    assert sorted(done.stdout.splitlines()) == ["0 2 length", "1 2 length"], done.stderr
