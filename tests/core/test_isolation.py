"""Broken plugins of every kind: the command line and every other backend go on, and each is told with what to do."""

import json

import pytest

from support.plugin_folder import codellm, install_plugin, python

TOY = """
from codellm import Availability, Backend, Scheme, hookimpl

class Toy(Backend):
    name = "{name}"
    formats = frozenset({{"toy"}})
    def availability(self): return Availability(True)
    def schemes(self): return (Scheme(name="toy-int2", bits=2, applies="load"),)
    def load(self, spec, source): raise RuntimeError("toys do not load")
    {change}

@hookimpl
def codellm_backends():
    return [Toy()]
"""
HOOK = "from codellm import hookimpl\n@hookimpl\n"
SCHEME = (
    HOOK + "def codellm_schemes():\n    from codellm import Scheme\n"
    "    return [Scheme(name={name!r}, bits=4, applies='file', format='gguf', takes=frozenset({{'gguf'}}))]"
)


def toy(name, change=""):
    return TOY.format(name=name, change=change)


BROKEN = {
    "raises": ("raise OSError('no such device')", "OSError: no such device"),
    "exits": ("raise SystemExit(3)", "SystemExit: 3"),
    "cancels": ("import asyncio\nraise asyncio.CancelledError", "CancelledError"),
    "no-exception": ("class Halt(BaseException): pass\nraise Halt('now')", "Halt: now"),
    "unspeakable": ("class E(Exception):\n    def __str__(self): return 1 / 0\nraise E", "E"),
    "colours": ("raise ValueError('\\x1b[31mred\\x07')", "ValueError: ?[31mred?"),
    "long": ("raise ValueError('x' * 100_000)", "x" * 300),
    "syntax": ("def (", "SyntaxError: invalid syntax (syntax.py, line 1)"),
    "missing": ("import no_such_library", "No module named 'no_such_library'"),
    "recursion": ("def f(): return f()\nf()", "RecursionError: maximum recursion depth"),
    "closes": ("import sys\nsys.stdout.close()\nraise ValueError('closed')", "ValueError: closed"),
    "no-hook": (HOOK + "def codellm_nonsense(): pass", "unknown hook 'codellm_nonsense'"),
    "wrong-arguments": (HOOK + "def codellm_load(spec, nonsense): pass", "Argument(s) {'nonsense'}"),
    "wrong-type": (HOOK + "def codellm_backends(): return ['llama']", "'llama' (str), which must be a Backend"),
    "a-string": (HOOK + "def codellm_backends(): return 'llama'", "returned 'l' (str), which must be a Backend"),
    "a-number": (HOOK + "def codellm_backends(): return 3", "'int' object is not iterable"),
    "a-class": (toy("a").replace("[Toy()]", "[Toy]"), "which must be a Backend"),
    "raises-later": (HOOK + "def codellm_backends(): raise KeyError('x')", "KeyError: 'x'"),
    "exits-later": (HOOK + "def codellm_schemes(): raise SystemExit", "SystemExit"),
    "wraps": ("from codellm import hookimpl\n@hookimpl(wrapper=True)\ndef codellm_backends(): return (yield)",
              "codellm_backends cannot be wrapped"),
    "twice": (toy("a").replace("[Toy()]", "[Toy(), Toy()]"), "codellm_backends returned 'a' twice"),
    "name-space": (toy("a toy"), "backend Toy: name is 'a toy' (str), which must be a str like"),
    "name-none": (toy("a", "name = None"), "backend Toy: name is None (NoneType)"),
    "formats": (toy("a", "formats = 'gguf'"), "backend 'a': formats is 'gguf' (str), which must be a frozenset of str"),
    "preference": (toy("a", "preference = '9'"), "backend 'a': preference is '9' (str), which must be an int"),
    "device": (toy("a", "device = 0"), "backend 'a': device is 0 (int), which must be a str or None"),
    "options": (toy("a", "options = ['x']"), "backend 'a': options is ['x'] (list), which must be a mapping"),
    "option": (toy("a", "options = {'x': 8}"), "backend 'a': option 'x' is 8 (int), which must be an Option"),
    "option-name": (toy("a", "options = {'x=': None}"), "a name of options is 'x=' (str), which must be a str like"),
    "default": (toy("a", "default_scheme = 4"), "backend 'a': default_scheme is 4 (int), which must be a str or None"),
    "schemes-none": (toy("a", "def schemes(self): pass"), "backend 'a': schemes() is None (NoneType)"),
    "schemes-str": (toy("a", "def schemes(self): return ('q4_0',)"), "must be a Scheme"),
    "schemes-raise": (toy("a", "def schemes(self): raise OSError('no')"), "schemes() raised OSError: no"),
    "load-scheme": (SCHEME.format(name="x").replace("'file'", "'load'"), "applies is 'load' (str), which must be"),
    "calibration": (SCHEME.format(name="x").replace("bits=4", "bits=4, calibration='yes'"), "calibration is 'yes'"),
    "takes-none": (SCHEME.format(name="x").replace("frozenset({'gguf'})", "None"), "takes is None (NoneType)"),
}  # fmt: skip
"""Plugins that are blocked: their code, and what is said of them."""

PRINTS = """
import sys
print("hello from the plugin")
sys.stdout.buffer.write(b"and bytes")
""" + toy("prints").replace("return [Toy()]", "print('more'); return [Toy()]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every kind of broken plugin at once, and one that works."""
    path = tmp_path_factory.mktemp("plugins")
    for name, (code, _) in BROKEN.items():
        install_plugin(path, name, code)
    install_plugin(path, "toy", toy("toy"))
    install_plugin(path, "prints", PRINTS)
    install_plugin(path, "slow", "import time; time.sleep(1.1)\n" + toy("slow"))
    install_plugin(path, "off", "raise AssertionError('imported')")
    install_plugin(path, "old", "raise AssertionError('imported')", requires=("codellm-core<0.1",))
    for name in ("same-one", "same-two"):
        install_plugin(path, name, "raise AssertionError('imported')", entry=f"same = {name.replace('-', '_')}")
        install_plugin(path, f"claims-{name}", toy("claimed"))
        install_plugin(path, f"scheme-{name}", SCHEME.format(name="claimed4"))
    install_plugin(path, "malformed", "", entry="malformed = not a module!")
    install_plugin(path, "no-attribute", "", entry="no-attribute = no_attribute:missing")
    install_plugin(path, "is-none", "nothing = None", entry="is-none = is_none:nothing")
    install_plugin(path, "named-core", "", entry="codellm-core = named_core")
    install_plugin(path, "no-metadata", toy("bare"))
    (path / "no_metadata-1.0.dist-info" / "METADATA").unlink()
    install_plugin(path, "bytes-metadata", toy("binary"))
    (path / "bytes_metadata-1.0.dist-info" / "METADATA").write_bytes(b"Name: \xff\xfe\n")
    install_plugin(path, "unparsable", "", entry="no equals sign")
    install_plugin(path, "undecodable", "")
    (path / "undecodable-1.0.dist-info" / "entry_points.txt").write_bytes(b"[codellm]\n\xff = \xfe\n")
    for name, code in {
        "boom": "raise OSError('boom')",
        "quits": "raise SystemExit(0)",
        "no-click": "command = 3",
    }.items():
        install_plugin(path, name, code, group="codellm.commands", entry=f"{name} = {name.replace('-', '_')}:command")
    install_plugin(path, "takes-generate", "command = 3", group="codellm.commands", entry="generate = takes:command")
    return path


@pytest.fixture(scope="module")
def told(folder):
    """What `codellm plugins` says of them, by distribution."""
    done = codellm("plugins", "--format", "json", path=folder, CODELLM_DISABLE_PLUGINS="Off,nobody")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "CODELLM_DISABLE_PLUGINS names 'nobody', which is no installed plugin, command or distribution"
    ]
    return {row["distribution"].removesuffix(" 1.0").removesuffix(" ?"): row for row in json.loads(done.stdout)}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_told_with_what_to_do(told, name):
    row = told[name]
    assert (row["plugin"], row["distribution"], row["state"]) == (name, f"{name} 1.0", "broken")
    assert BROKEN[name][1] in row["what"]
    assert f"pip uninstall {name}" in row["to_do"]


@pytest.mark.parametrize(
    ("distribution", "state", "what", "to_do"),
    [
        ("toy", "works", "", ""),
        ("prints", "works, but", "prints at import: hello from the plugin", "tell the author of prints"),
        ("slow", "works, but", "s to load", "CODELLM_DISABLE_PLUGINS=slow"),
        ("off", "off", "turned off by CODELLM_DISABLE_PLUGINS=Off,nobody", "take it out"),
        ("old", "broken", "wants codellm-core <0.1, and 0.1.0 is installed", "pip install --upgrade codellm-core old"),
        ("same-one", "broken", "'same' is claimed by same-one, same-two", "CODELLM_DISABLE_PLUGINS=same-one"),
        ("same-two", "broken", "'same' is claimed by same-one, same-two", "CODELLM_DISABLE_PLUGINS=same-two"),
        ("claims-same-one", "works, but", "its backend 'claimed' is blocked, claimed by", "uninstall all but one"),
        ("claims-same-two", "works, but", "its backend 'claimed' is blocked, claimed by", "uninstall all but one"),
        ("scheme-same-one", "works, but", "its scheme 'claimed4' is blocked, claimed by", "uninstall all but one"),
        ("scheme-same-two", "works, but", "its scheme 'claimed4' is blocked, claimed by", "uninstall all but one"),
        ("malformed", "broken", "'not a module!' of its entry point", "pip uninstall malformed"),
        ("no-attribute", "broken", "has no attribute 'missing'", "pip uninstall no-attribute"),
        ("is-none", "broken", "is_none:nothing is None", "pip uninstall is-none"),
        ("named-core", "broken", "the name 'codellm-core' is core's own", "pip uninstall named-core"),
        ("no_metadata-1.0.dist-info", "works", "", ""),
        ("bytes_metadata-1.0.dist-info", "works", "", ""),
        ("unparsable", "broken", "entry_points.txt cannot be read", "pip uninstall"),
        ("undecodable", "broken", "entry_points.txt cannot be read (UnicodeDecodeError)", "pip uninstall"),
        ("boom", "broken", "OSError: boom", "pip uninstall boom"),
        ("quits", "broken", "SystemExit: 0", "pip uninstall quits"),
        ("no-click", "broken", "is int, which must be a click command", "pip uninstall no-click"),
        ("takes-generate", "broken", "the command 'generate' is core's own", "pip uninstall takes-generate"),
        ("codellm-cpu", "works", "", ""),
    ],
)  # fmt: skip
def test_what_is_told_of_a_distribution(told, distribution, state, what, to_do):
    row = next(row for name, row in told.items() if name.startswith(distribution))
    assert row["state"] == state
    assert what in row["what"]
    assert to_do in row["to_do"]
    assert bool(row["what"]) == bool(what)


def test_the_table_fits_a_terminal_of_80_columns(folder, told):
    done = codellm("plugins", path=folder, COLUMNS="80", CODELLM_DISABLE_PLUGINS="off")
    assert max(map(len, done.stdout.splitlines())) <= 80
    text = " ".join(done.stdout.split())
    for row in told.values():
        assert row["plugin"] in text
    assert "plugin 'raises' of raises 1.0: OSError: no such device. To do: report it" in text


def test_every_other_backend_goes_on(folder):
    done = codellm("backends", "--format", "json", path=folder)
    rows = {row["backend"]: row for row in json.loads(done.stdout)}
    assert {"llama-cpp", "toy", "prints", "slow", "bare", "binary", "claimed"} <= set(rows)
    assert rows["toy"]["available"] == "yes"
    assert rows["claimed"]["available"].startswith("no: claimed by claims-same-one, claims-same-two")


def test_generating_prints_exactly_what_it_prints_without_them(folder):
    alone = codellm("generate", "def f", "--max-tokens", "4")
    done = codellm("generate", "def f", "--max-tokens", "4", path=folder)
    assert (done.returncode, done.stdout) == (0, alone.stdout), done.stderr
    assert alone.stdout


def test_who_makes_a_command_wait_is_told_once(folder):
    told = codellm("backends", path=folder).stderr
    assert told.count("plugin 'slow' of slow 1.0 takes 1.") == 1
    assert "CODELLM_DISABLE_PLUGINS=slow turns it off" in told
    assert "'slow'" not in codellm("backends", path=folder, CODELLM_DISABLE_PLUGINS="slow").stderr
    # whoever uses the library sees nothing
    assert python("-c", "from codellm.plugins.registry import registry; registry()", path=folder).stderr == ""


def test_help_lists_what_can_be_invoked(folder):
    done = codellm("--help", path=folder, CODELLM_DISABLE_PLUGINS="boom")
    assert done.returncode == 0
    assert "quits" in done.stdout
    assert "boom" not in done.stdout
    assert "takes-generate" not in done.stdout


def test_a_shell_completes_commands_whatever_is_broken(folder):
    shell = {"_CODELLM_COMPLETE": "bash_complete", "COMP_WORDS": "codellm b", "COMP_CWORD": "1"}
    assert {"plain,backends", "plain,boom"} <= set(codellm(path=folder, **shell).stdout.splitlines())


def test_asking_by_name_says_why(folder):
    def error(*args, **env):
        done = codellm(*args, path=folder, **env)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        return done.stderr

    assert "'claimed4' is claimed by scheme-same-one, scheme-same-two" in error("generate", "x", "-q", "claimed4")
    assert "'claimed' is claimed by claims-same-one, claims-same-two" in error("generate", "x", "-b", "claimed")
    assert "plugin 'old' of old 1.0 is broken (wants codellm-core <0.1" in error("generate", "x", "-b", "old")
    assert "command 'quits' of quits 1.0 is broken (SystemExit: 0)" in error("quits")
    off = {"CODELLM_DISABLE_PLUGINS": "Toy, BOOM"}
    assert "plugin 'toy' of toy 1.0 is turned off by CODELLM_DISABLE_PLUGINS=Toy, BOOM" in error(
        "generate", "x", "-b", "toy", **off
    )
    assert "command 'boom' of boom 1.0 is turned off by CODELLM_DISABLE_PLUGINS" in error("boom", **off)
    gone = error("generate", "x", "-b", "llama-cpp", CODELLM_DISABLE_PLUGINS="codellm_cpu")
    assert "unknown backend 'llama-cpp'" in gone
    assert "plugins turned off: codellm-cpu" in gone


def test_a_claimed_default_scheme_is_nobody_s(tmp_path):
    install_plugin(tmp_path, "rival", SCHEME.format(name="q8_0"))
    done = codellm("generate", "x", "--max-tokens", "1", path=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "scheme 'q8_0' is claimed by codellm-cpu, rival" in done.stderr
    assert codellm("generate", "x", "--max-tokens", "1", "-q", "q4_0", path=tmp_path).returncode == 0
    off = {"CODELLM_DISABLE_PLUGINS": "rival"}
    assert codellm("generate", "x", "--max-tokens", "1", path=tmp_path, **off).returncode == 0


def test_a_claimed_scheme_on_the_way_to_another_is_nobody_s(tmp_path):
    install_plugin(tmp_path, "rival", SCHEME.format(name="bf16"))
    done = codellm("generate", "x", path=tmp_path, CODELLM_CACHE=str(tmp_path / "cache"))
    assert "scheme 'bf16' is claimed by codellm-cpu, rival" in done.stderr


def test_an_interrupt_while_a_plugin_is_imported_passes(tmp_path):
    install_plugin(tmp_path, "interrupted", "raise KeyboardInterrupt")
    done = codellm("backends", path=tmp_path)
    assert (done.returncode, done.stderr.strip()) == (130, "interrupted")


def test_turning_one_of_two_off_gives_the_other_the_name(tmp_path):
    for name in ("one", "two"):
        install_plugin(tmp_path, name, toy(name), entry=f"same = {name}")
        command = f"import click\n@click.command()\ndef command(): click.echo({name!r})"
        install_plugin(tmp_path, f"c-{name}", command, group="codellm.commands", entry=f"say = c_{name}:command")
    found = codellm("backends", "--format", "json", path=tmp_path, CODELLM_DISABLE_PLUGINS="two")
    assert {"one", "two"} & {row["backend"] for row in json.loads(found.stdout)} == {"one"}
    assert codellm("say", path=tmp_path, CODELLM_DISABLE_PLUGINS="C_one").stdout == "two\n"
    assert "'say' is claimed by c-one, c-two" in codellm("say", path=tmp_path).stderr


@pytest.mark.parametrize(
    ("requires", "fits"),
    [
        ((), True),
        (("codellm-core",), True),
        (("codellm-core>=0.1,<0.3",), True),
        (("Codellm_Core ~= 0.1.0",), True),
        (("codellm-core>=0.1 ; python_version >= '3'",), True),
        (("codellm-core<0.1 ; python_version < '3'",), True),
        (("codellm-core<0.1 ; extra == 'old'",), True),
        (("codellm-core nonsense <<",), True),
        (("codellm-core-extras<0.1", "numpy"), True),
        (("numpy", "codellm-core>=0.2"), False),
        (("codellm.core (<0.1)",), False),
        (("codellm-core<0.1 ; python_version >= '3'",), False),
    ],
)
def test_a_plugin_is_imported_only_by_a_core_that_it_wants(tmp_path, requires, fits):
    install_plugin(tmp_path, "toy", toy("toy"), requires=requires)
    found = codellm("backends", "--format", "json", path=tmp_path)
    assert ("toy" in {row["backend"] for row in json.loads(found.stdout)}) is fits
