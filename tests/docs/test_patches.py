"""Tests give what must be replaced as an argument: hardly a name of this project's modules is patched."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
LEFT = {
    "tests/eval/test_bench_figures.py: figures.FIGURES",  # the list itself, with an entry more: that is what it tests
    "tests/gpu/test_gptq.py: save_gptq.windows",  # what gptqmodel says against a model whose calibration is empty
    "tests/support/hub_client.py: codellm.sources.download.PAUSE",  # a second before each try to go on
}


def patches(file: str, source: str) -> Iterator[str]:
    """Each `setattr` of pytest's on something that comes from our packages, by its file and name."""
    tree = ast.parse(source)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom | ast.Import)]
    ours = {
        (name.asname or name.name).partition(".")[0]
        for node in imports
        for name in node.names
        if (node.module or "" if isinstance(node, ast.ImportFrom) else name.name).startswith("codellm")
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr != "setattr":
            continue
        first, *others = node.args
        if isinstance(first, ast.Constant) and str(first.value).startswith("codellm"):
            yield f"{file}: {first.value}"
        elif ast.unparse(first).partition(".")[0] in ours and isinstance(others[0], ast.Constant):
            yield f"{file}: {ast.unparse(first)}.{others[0].value}"


def test_no_more_of_our_names_are_patched_than_are_listed_with_their_reason():
    found: set[str] = set()
    for path in TESTS.rglob("*.py"):
        if "hostile" in path.parts:  # programs that are judged, some of which are none
            continue
        found |= set(patches(path.relative_to(TESTS.parent).as_posix(), path.read_text()))
    assert found == LEFT, "give what must be replaced a seam: an argument, or a method to override"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("from codellm.system import machine\nm.setattr(machine, 'available_memory', f)", "machine.available_memory"),
        ("import codellm\nm.setattr(codellm.loading, 'load', f)", "codellm.loading.load"),
        ("m.setattr('codellm_cpu.files.shutil.disk_usage', f)", "codellm_cpu.files.shutil.disk_usage"),
        ("from codellm_eval.judge import sandbox\nm.setattr(sandbox.sys, 'platform', 'x')", "sandbox.sys.platform"),
        ("import shutil\nm.setattr(shutil, 'disk_usage', f)", None),
    ],
)
def test_a_patch_is_found(source, name):
    assert list(patches("x", source)) == ([] if name is None else [f"x: {name}"])
