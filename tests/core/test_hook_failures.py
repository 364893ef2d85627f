"""Hooks that fail while a request passes: the plugin is named, and nobody else pays."""

import json

import pytest

from support.plugin_folder import codellm, install_plugin, python

HOOK = "from codellm import hookimpl\n@hookimpl\n"
GUEST = "plugin 'guest' of guest 1.0"


@pytest.fixture
def guest(tmp_path):
    """Install the plugin `guest` with this code."""

    def install(code):
        install_plugin(tmp_path, "guest", code)
        return tmp_path

    return install


def error(*args, path, **env):
    done = codellm(*args, path=path, **env)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


WRAPPER = "from codellm import hookimpl\n@hookimpl(wrapper=True)\ndef codellm_load(spec, source):\n    "


@pytest.mark.parametrize(
    ("code", "what"),
    [
        (WRAPPER + "model = yield\n    raise ValueError('boom')", "ValueError: boom (raised in {})"),
        (WRAPPER + "raise ValueError('early')\n    yield", "ValueError: early (raised in {})"),
        (HOOK + "def codellm_load(spec): spec.nothing", "no attribute 'nothing' (raised in {})"),
        (HOOK + "def codellm_load(): return 'model'",
         "loaded a str, not a Model; report it to its author (codellm_load is implemented by {})"),
        (WRAPPER + "yield", "loaded a NoneType, not a Model; report it to its author (codellm_load is"),
    ],
)  # fmt: skip
def test_a_plugin_that_breaks_a_load_is_named(guest, code, what):
    assert what.format(GUEST) in error("generate", "x", path=guest(code))


def test_a_backend_is_not_blamed_for_a_plugin_s_wrapper_that_passes_its_error_on(tmp_path):
    install_plugin(tmp_path, "guest", WRAPPER + "return (yield)")
    toy = """
from codellm import Availability, Backend, hookimpl
class Toy(Backend):
    name, formats = "toy", frozenset({"safetensors"})
    def availability(self): return Availability(True)
    def schemes(self): return ()
    def load(self, spec, source): raise RuntimeError("toys do not load")
@hookimpl
def codellm_backends(): return [Toy()]
"""
    install_plugin(tmp_path, "toy", toy)
    told = error("generate", "x", "-b", "toy", path=tmp_path)
    assert "RuntimeError: toys do not load (raised in plugin 'toy' of toy 1.0)" in told


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("return 5", "its run gave int, and must be"),
        ("return [[]]", "its run gave list, and must be"),
        ("return iter([5])", "its run yielded int, and must be"),
        ("return iter([(1, 2)])", "its run yielded tuple, and must be"),
        ("return iter([None])", "its run yielded NoneType, and must be"),
        ("return iter([[7]])", "its run yielded a list of int, and must be"),
        ("return iter([])", "ended its run before this sequence did"),
        ("raise ValueError('boom')", "ValueError: boom (raised in {})"),
        ("return (1 / 0 for _ in [0])", "ZeroDivisionError: division by zero (raised in {})"),
    ],
)
def test_a_plugin_that_breaks_a_run_is_named(guest, body, what):
    told = error("generate", "x", path=guest(f"{HOOK}def codellm_generate(model, sequences):\n    {body}\n"))
    assert what.format(GUEST) in told
    assert GUEST in told or "ended" in what


def test_sequences_that_a_run_never_takes_fail_alone(guest):
    code = """
from codellm import Token, hookimpl
@hookimpl
def codellm_generate(model, sequences): return first(iter(sequences))
def first(sequences):
    sequence = next(sequences)
    while not sequence.finished:
        yield [Token(42, sequence)]
"""
    assert python("-c", BATCH, path=guest(code)).stdout.splitlines() == ["length", "error"]


QUANTIZE = """
from codellm import Artifact, Scheme, hookimpl

@hookimpl
def codellm_schemes():
    return [Scheme(name="new4", bits=4, applies="file", format="gguf", takes=frozenset({"safetensors"}))]

@hookimpl(tryfirst=True)
def codellm_quantize(request):
    BODY
"""


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("raise ValueError('boom')", "codellm-demo: writing it in new4 failed: ValueError: boom (raised in {})"),
        ("open('/no/such/file')", "FileNotFoundError: [Errno 2] No such file or directory: '/no/such/file' (raised"),
        ("return None", "unknown scheme 'new4'. No installed plugin writes it."),
        ("return request.destination", "writing it in new4 gave PosixPath, not an Artifact"),
        ("return Artifact(path=request.destination, scheme='new4', format='gguf')", "left no file where it was asked"),
        ("return Artifact(path=request.source.path, scheme='new4', format='gguf')", "left no file where it was asked"),
        ("return Artifact(path='x', scheme='new4', format='gguf')", "left no file where it was asked"),
    ],
)  # fmt: skip
def test_a_plugin_that_breaks_a_quantization_is_named(guest, tmp_path, body, what):
    path = guest(QUANTIZE.replace("BODY", body))
    done = codellm("quantize", "codellm-demo", "-q", "new4", path=path, CODELLM_CACHE=str(tmp_path / "cache"))
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert what.format(GUEST) in done.stderr
    assert GUEST in done.stderr or body == "return None"
    assert not list((tmp_path / "cache" / "artifacts").glob("codellm-demo-new4-*"))


BATCH = """
import codellm
with codellm.load("codellm-demo") as model:
    for result in model.generate_batch(["def f", "def g"], codellm.SamplingParams(max_tokens=2, ignore_eos=True)):
        print(result.finish_reason)
"""


def test_a_listener_that_raises_is_told_once_and_loses_nothing(tmp_path):
    install_plugin(tmp_path, "guest", HOOK + "def codellm_generated(sequence): raise ValueError('boom')")
    install_plugin(tmp_path, "other", HOOK + "def codellm_generated(result): print('told')")
    done = python("-c", BATCH, path=tmp_path)
    assert sorted(done.stdout.splitlines()) == ["length", "length", "told", "told"]
    assert done.stderr.count(f"{GUEST}: codellm_generated failed (ValueError: boom); report it to the author") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("raise OSError('no such bus')", "OSError: no such bus"),
        ("return True", "it returned bool, not Availability"),
        ("pass", "it returned NoneType, not Availability"),
    ],
)
def test_availability_that_fails_costs_only_its_own_backend(guest, body, what):
    code = f"""
from codellm import Availability, Backend, hookimpl
class Toy(Backend):
    name, formats, preference = "toy", frozenset({{"safetensors"}}), 99
    def availability(self): {body}
    def schemes(self): return ()
    def load(self, spec, source): pass
@hookimpl
def codellm_backends(): return [Toy()]
"""
    path = guest(code)
    rows = {row["backend"]: row for row in json.loads(codellm("backends", "--format", "json", path=path).stdout)}
    assert what in rows["toy"]["available"]
    assert "report it to the author of guest" in rows["toy"]["available"]
    assert codellm("generate", "x", "--max-tokens", "1", path=path).returncode == 0
    told = error("generate", "x", "-b", "toy", path=path)
    assert "backend 'toy' cannot run here: availability() failed (" in told
    assert what in told
