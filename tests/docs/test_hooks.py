"""Every hook has a test, and a heading in docs/hooks.md with an example that works."""

import ast
import inspect
import json
import re
from pathlib import Path

import pytest

from codellm import hookspec
from support.plugin_folder import codellm, install_plugin

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "hooks.md"

HOOKS = [name for name, value in vars(hookspec).items() if inspect.isfunction(value) and hasattr(value, "codellm_spec")]


def functions() -> list[str]:
    found = []
    for path in TESTS.rglob("test_*.py"):
        if "hostile" not in path.parts:  # programs that are broken on purpose
            found += [node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    return found


def test_there_are_hooks():
    assert {"codellm_backends", "codellm_load", "codellm_generated"} <= set(HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_has_a_test(hook):
    assert any(re.match(rf"test_hook_{hook}(_|$)", name) for name in functions())


def section(hook: str) -> str:
    found = re.search(rf"^## `{hook}`$(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None, f"docs/hooks.md has no heading for {hook}"
    return found[1]


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_s_section_says_how_it_is_called_and_what_kind_it_is(hook):
    arguments = ", ".join(inspect.signature(getattr(hookspec, hook)).parameters)
    first = getattr(hookspec, hook).codellm_spec["firstresult"]
    kinds = r"first result" if first else r"collect|notification"
    assert re.search(rf"`{hook}\({arguments}\)`: \*\*({kinds})\*\*", section(hook))


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_s_example_is_a_plugin_that_works(hook, tmp_path):
    (example,) = re.findall(r"^```py\n(.*?)^```$", section(hook), re.MULTILINE | re.DOTALL)
    assert f"def {hook}(" in example
    install_plugin(tmp_path, "codellm-acme", example)
    rows = json.loads(codellm("plugins", "--format", "json", path=tmp_path).stdout)
    (row,) = (row for row in rows if row["plugin"] == "codellm-acme")
    assert (row["state"], row["what"]) == ("works", "")


def test_the_example_of_a_deprecation_runs():
    exec(PAGE.read_text().rpartition("```py\n")[2].partition("```")[0], {})
