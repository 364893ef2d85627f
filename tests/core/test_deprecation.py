"""How a hook, or an argument of one, is taken out of use."""

import json
import re
import types
import warnings

import pluggy
import pytest
from packaging.version import Version

import codellm as package
from codellm import hookspec
from codellm.hookspec import HookDeprecationWarning
from codellm.plugins.manager import PluginManager
from support.plugin_folder import codellm, install_plugin, python

SPEC = """
from codellm.hookspec import HookDeprecationWarning, hookspec

def old(what, instead): return HookDeprecationWarning(what, since="0.2", gone="0.4", instead=instead)

@hookspec(warn_on_impl=old("codellm_old", "implement codellm_new"))
def codellm_old(): "An old hook."

@hookspec(warn_on_impl_args={"colour": old("the argument colour of codellm_new", "take hue")})
def codellm_new(hue, colour): "A new hook."
"""
PLUGIN = "from codellm import hookimpl\n@hookimpl\ndef {}: pass"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "newer_spec.py").write_text(SPEC)
    # what the specs of a later core would say, to the core that is here
    (tmp_path / "sitecustomize.py").write_text(
        "import newer_spec, codellm.hookspec as spec\n"
        "spec.codellm_old, spec.codellm_new = newer_spec.codellm_old, newer_spec.codellm_new\n"
    )
    install_plugin(tmp_path, "behind", PLUGIN.format("codellm_old()"))
    install_plugin(tmp_path, "colourful", PLUGIN.format("codellm_new(colour)"))
    install_plugin(tmp_path, "abreast", PLUGIN.format("codellm_new(hue)"))
    return tmp_path


def test_plugins_that_implement_what_will_go_are_told_and_still_work(folder):
    done = codellm("plugins", "--format", "json", path=folder)
    assert (done.returncode, done.stderr) == (0, "")
    rows = {row["plugin"]: row for row in json.loads(done.stdout)}
    assert rows["behind"]["state"] == rows["colourful"]["state"] == "works, but"
    assert rows["behind"]["what"] == (
        "implements codellm_old, deprecated since 0.2 and gone in 0.4: implement codellm_new"
    )
    assert "the argument colour of codellm_new, deprecated since 0.2 and gone in 0.4" in rows["colourful"]["what"]
    assert rows["colourful"]["to_do"] == "`pip install --upgrade colourful`, or ask its author to take hue"
    assert (rows["abreast"]["state"], rows["abreast"]["what"]) == ("works", "")


def test_the_warning_is_python_s_own_for_whoever_asks_for_it(folder):
    found = python("-W", "always", "-c", "from codellm.plugins.manager import manager; manager()", path=folder).stderr
    assert ": HookDeprecationWarning: codellm_old, deprecated since 0.2 and gone in 0.4" in found
    assert ": HookDeprecationWarning: the argument colour" in found
    assert "abreast" not in found


def test_the_warning_carries_its_fields():
    spec, impl = pluggy.HookspecMarker("codellm"), pluggy.HookimplMarker("codellm")
    module, plugin = types.ModuleType("spec"), types.ModuleType("plugin")
    module.codellm_old = spec(warn_on_impl=HookDeprecationWarning("x", since="0.2", gone="0.4", instead="y"))(
        lambda: None
    )
    plugin.codellm_old = impl(lambda: None)
    manager = pluggy.PluginManager("codellm")
    manager.add_hookspecs(module)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        manager.register(plugin)
    (warning,) = (each.message for each in caught)
    assert isinstance(warning, DeprecationWarning)
    assert (warning.what, warning.since, warning.gone, warning.instead) == ("x", "0.2", "0.4", "y")


def deprecations(spec):
    """Every deprecation in a spec module."""
    manager = PluginManager(spec)
    for caller in vars(manager.hook).values():
        if caller.has_spec():
            yield from filter(None, (caller.spec.warn_on_impl, *(caller.spec.warn_on_impl_args or {}).values()))


def kept_too_long_or_too_short(spec, version):
    """The deprecations that break the policy of docs/hooks.md for the core `version`."""
    for one in deprecations(spec):
        since, gone = Version(one.since), Version(one.gone)
        if Version(version) >= gone or (since.major == gone.major and gone.minor < since.minor + 2):
            yield one.what


def test_the_policy_is_kept():
    from codellm import __version__

    assert list(kept_too_long_or_too_short(hookspec, __version__)) == []


def test_the_policy_s_test_would_notice():
    module = types.ModuleType("spec")
    exec(SPEC, vars(module))
    assert list(kept_too_long_or_too_short(module, "0.3.9")) == []
    assert len(list(kept_too_long_or_too_short(module, "0.4"))) == 2
    hasty = types.ModuleType("spec")
    exec(SPEC.replace('gone="0.4"', 'gone="0.3"'), vars(hasty))
    assert len(list(kept_too_long_or_too_short(hasty, "0.2"))) == 2


def test_the_old_name_of_slots_is_the_new_one_and_tells_whoever_takes_it():
    with pytest.warns(DeprecationWarning, match=r"codellm\.Places, .* take codellm\.Slots") as caught:
        from codellm import Places
    assert Places is package.Slots
    assert {each.filename for each in caught} == {__file__}
    gone = re.search(r"gone in ([\d.]+)", str(caught[0].message))
    assert Version(package.__version__) < Version(gone[1])
    assert "Places" not in package.__all__
