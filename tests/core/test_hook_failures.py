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


MUTE = "class Mute(BaseException):\n    def __str__(self): raise Mute\n    __repr__ = __str__\n"
WRAPS = MUTE + "from codellm import hookimpl\n@hookimpl(wrapper=True)\ndef {hook}():\n    "
RAISES = {
    "exit": "raise SystemExit(0)",
    "os-exit": "__import__('os')._exit(0)",
    "mute": "raise Mute",
    "pipe": "raise BrokenPipeError(32, 'Broken pipe')",
    "left": "raise GeneratorExit",
}


@pytest.mark.parametrize("kind", RAISES)
@pytest.mark.parametrize(("hook", "when"), [("codellm_load", "before"), ("codellm_generate", "after")])
def test_whatever_a_wrapper_raises_is_one_line(guest, kind, hook, when):
    body = f"{RAISES[kind]}\n    yield" if when == "before" else f"result = yield\n    {RAISES[kind]}"
    told = error("generate", "x", "--max-tokens", "1", path=guest(WRAPS.format(hook=hook) + body))
    (line,) = [line for line in told.splitlines() if line.startswith("codellm: ")]
    assert f"(raised in {GUEST})" in line


@pytest.mark.parametrize("kind", RAISES)
def test_whatever_a_listener_raises_loses_nothing(guest, kind):
    path = guest(f"{MUTE}{HOOK}def codellm_generated(result): {RAISES[kind]}")
    done = codellm("generate", "x", "--max-tokens", "1", path=path)
    assert done.returncode == 0
    assert done.stdout
    assert f"{GUEST}: codellm_generated failed (" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", RAISES)
def test_whatever_the_writer_of_a_scheme_raises_is_one_line(guest, tmp_path, kind):
    path = guest(MUTE + QUANTIZE.replace("BODY", RAISES[kind]))
    told = error("quantize", "-q", "new4", path=path, CODELLM_CACHE=str(tmp_path / "cache"))
    assert "codellm-demo: writing it in new4 failed: " in told
    assert f"(raised in {GUEST})" in told


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("facts={'a': {1, 2}}", "gave facts that are no JSON (Object of type set is not JSON serializable)"),
        ("facts={'a': float('nan')}", "gave facts that are no JSON (Out of range float"),
        ("facts=3", "gave facts that are no JSON ('int' object is not iterable)"),
        ("scheme='q4_0'", "gave 'q4_0' (str) in 'gguf' (str); report it to the plugin's author (codellm_quantize is"),
        ("format='safetensors'", "gave 'new4' (str) in 'safetensors' (str)"),
        ("format=None", "gave 'new4' (str) in None (NoneType)"),
    ],
)  # fmt: skip
def test_an_artifact_that_is_another_than_requested_is_refused(guest, tmp_path, body, what):
    fields = {"scheme": "scheme='new4'", "format": "format='gguf'"} | {body.partition("=")[0]: body}
    made = f"Artifact(path=request.destination, {', '.join(fields.values())})"
    write = f"request.destination.write_bytes(b'x'); return {made}"
    path = guest(QUANTIZE.replace("BODY", write))
    told = error("quantize", "-q", "new4", path=path, CODELLM_CACHE=str(tmp_path / "cache"))
    assert what in told
    assert GUEST in told


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("return Availability(False, None)", "'reason' must be"),
        ("return Availability(False, 'a', 5)", "'remedy' must be"),
        ("return Availability(False, elsewhere='cuda')", "'elsewhere' must be"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("__import__('os')._exit(0)", "SystemExit: os._exit(0)"),
        ("raise Mute", "availability() failed (Mute)"),
    ],
)
def test_an_availability_that_lies_or_leaves_is_a_reason(guest, body, what):
    code = f"""
from codellm import Availability, Backend, hookimpl
{MUTE}
class Toy(Backend):
    name, formats, preference = "toy", frozenset({{"safetensors"}}), 99
    def availability(self): {body}
    def load(self, spec, source): pass
@hookimpl
def codellm_backends(): return [Toy()]
"""
    told = error("generate", "x", "-b", "toy", path=guest(code))
    assert what in told
    assert "report it to the author of guest" in told


TAKES = """
from codellm import Backend, hookimpl
class Taken(Backend):
    name, formats, preference = "llama-cpp", frozenset({"gguf", "safetensors"}), 1
    def load(self, spec, source): return None
@hookimpl
def codellm_backends(): return [Taken()]
"""


CHOOSE = """
from codellm.errors import BackendChoiceError
from codellm.plugins.registry import registry
from codellm.spec import LoadSpec
for _ in range(2):
    try:
        registry().choose(LoadSpec(model="codellm-demo"), "safetensors")
    except BackendChoiceError as error:  # where no other backend is installed
        print(f"backend {error}")
"""


def test_a_name_that_is_taken_is_told_on_every_road(guest):
    path = guest(TAKES)
    claimed = "claimed by codellm-cpu, guest; uninstall all but one of them, or name all but one in"
    for arguments in (("generate", "x", "-b", "llama-cpp"), ("eval", "perplexity", "-b", "llama-cpp")):
        assert f"backend 'llama-cpp' is {claimed}" in error(*arguments, path=path)
    chosen = python("-c", CHOOSE, path=path)
    if chosen.stdout:
        assert chosen.stdout.count(f"llama-cpp: {claimed}") == 2
    else:  # a figure of another backend is another figure: never without a word, and that once
        assert chosen.stderr.count(f"backend 'llama-cpp' is not used: {claimed}") == 1
