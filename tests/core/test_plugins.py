import json

import pytest

from support.plugin_folder import codellm, install_plugin

WORKS = """
from codellm import Availability, Backend, Scheme, hookimpl

class Toy(Backend):
    name = "{name}"
    formats = frozenset({{"toy"}})
    def availability(self): return Availability({ok}, "no toy is plugged in", "pip install toy")
    def schemes(self): return (Scheme(name="toy-int2", bits=2, applies="load"),)
    def load(self, spec, source): raise RuntimeError("toys do not load")

@hookimpl
def codellm_backends():
    return [Toy()]
"""


@pytest.fixture
def plugins(tmp_path):
    def install(name, code, **more):
        install_plugin(tmp_path, name, code, **more)
        return tmp_path

    return install


def listing(path, command="plugins"):
    done = codellm(command, "--format", "json", path=path)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    return {row["plugin" if command == "plugins" else "backend"]: row for row in rows}


def test_a_plugin_is_listed_with_its_distribution_and_what_it_brings(plugins):
    path = plugins("toy", WORKS.format(name="toy", ok=True))
    found = listing(path)["toy"]
    assert isinstance(found.pop("seconds"), float)
    assert found == {
        "plugin": "toy", "kind": "hooks", "distribution": "toy 1.0", "state": "works", "what": "", "to_do": "",
    }  # fmt: skip
    assert listing(path, "backends")["toy"]["schemes"] == "toy-int2"


def test_a_broken_plugin_is_an_error_when_its_name_is_asked_for(plugins):
    done = codellm("generate", "x", "-b", "raises", path=plugins("raises", "raise OSError('no such device')"))
    assert done.returncode == 1
    assert "plugin 'raises' of raises 1.0 is broken (OSError: no such device)" in done.stderr
    assert "pip uninstall raises" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_plugins_with_one_name_block_each_other(plugins):
    plugins("one", WORKS.format(name="toy", ok=True))
    path = plugins("two", WORKS.format(name="toy", ok=True))
    assert "one, two" in listing(path, "backends")["toy"]["available"]
    done = codellm("generate", "x", "-b", "toy", path=path)
    assert (done.returncode, "claimed by one, two" in done.stderr) == (1, True)
    # nobody who names another backend is bothered
    assert "claimed" not in codellm("generate", "x", "-b", "tay", path=path).stderr


def test_an_unavailable_backend_says_what_mends_it(plugins):
    path = plugins("toy", WORKS.format(name="toy", ok=False))
    done = codellm("generate", "x", "-b", "toy", path=path)
    assert done.returncode == 1
    assert "no toy is plugged in; pip install toy" in done.stderr


def test_unknown_names_suggest_the_nearest(plugins):
    path = plugins("toy", WORKS.format(name="toy", ok=True))
    assert "did you mean 'toy'?" in codellm("generate", "x", "-b", "toi", path=path).stderr
    assert "did you mean 'toy-int2'?" in codellm("generate", "x", "-q", "toy-int3", path=path).stderr
    assert "did you mean 'codellm-demo'?" in codellm("generate", "x", "-m", "codellm-dmo").stderr
    assert "did you mean 'generate'?" in codellm("generat", "x").stderr


def test_a_load_that_raises_is_one_line(plugins):
    path = plugins("toy", WORKS.format(name="toy", ok=True).replace('"toy"})', '"safetensors"})'))
    done = codellm("generate", "x", "-b", "toy", path=path)
    assert done.returncode == 1
    assert "backend 'toy' failed to load codellm-demo: RuntimeError: toys do not load" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in codellm("--debug", "generate", "x", "-b", "toy", path=path).stderr


def test_a_load_that_exits_ends_nothing_else(plugins):
    code = WORKS.format(name="toy", ok=True).replace('"toy"})', '"safetensors"})')
    done = codellm("generate", "x", "-b", "toy", path=plugins("toy", code.replace("RuntimeError", "SystemExit")))
    assert done.returncode == 1
    assert "backend 'toy' failed to load codellm-demo: SystemExit: toys do not load" in done.stderr


def test_an_availability_that_exits_is_a_reason(plugins):
    code = WORKS.format(name="toy", ok=True).replace("return Availability", "raise SystemExit")
    path = plugins("toy", code)
    assert "availability() failed (SystemExit" in listing(path, "backends")["toy"]["available"]


def test_commands_are_listed_unimported_and_loaded_when_invoked(plugins):
    group = "codellm.commands"
    plugins("boom", "raise OSError('boom')", group=group, entry="boom = boom:command")
    path = plugins(
        "hello",
        "import click\n@click.command()\ndef command(): click.echo('hello there')",
        group=group,
        entry="hello = hello:command",
    )
    shown = codellm("--help", path=path)
    assert shown.returncode == 0
    assert "Of the package hello." in shown.stdout
    assert codellm("hello", path=path).stdout == "hello there\n"
    failed = codellm("boom", path=path)
    assert failed.returncode == 1
    assert "command 'boom' of boom 1.0 is broken (OSError: boom)" in failed.stderr
