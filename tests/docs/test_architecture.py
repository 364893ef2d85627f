"""docs/architecture.md is true of the tree: what it names is there, and what is there it names."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.documentation import place

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
SOURCES = {"codellm": "core", "codellm_cpu": "cpu", "codellm_eval": "eval", "codellm_gpu": "gpu"}
CONTRACT = {"codellm/backend.py", "codellm/model.py", "codellm/hookspec.py"}
"""They are told in types of rooms above them, as the page says."""
NAMED = re.findall(r"`(codellm\w*/[\w./]*)`", PAGE)


def section(package: str) -> str:
    """What the page says of one package's rooms."""
    return PAGE.partition(f"\n## codellm-{SOURCES[package]}\n")[2].partition("\n## ")[0]


def rooms(package: str) -> list[str]:
    folder = place(package)
    found = [file.parent.relative_to(folder.parent) for file in folder.rglob("__init__.py")]
    return [f"{room}/" for room in found if str(room) != package]


def test_ways_are_told():
    assert {name.partition("/")[0] for name in NAMED} == set(SOURCES)
    assert sum(name.endswith(".py") for name in NAMED) > 50


@pytest.mark.parametrize("name", sorted(set(NAMED)))
def test_what_the_page_names_is_there(name):
    found = place(name).is_dir() if name.endswith("/") else place(name).is_file()
    assert found, f"docs/architecture.md names {name}, which is not there"


@pytest.mark.parametrize("package", SOURCES)
def test_every_room_is_on_the_page(package):
    missing = [room for room in rooms(package) if f"`{room}`" not in section(package)]
    assert not missing, f"docs/architecture.md does not say what is in {', '.join(missing)}"


@pytest.mark.parametrize("package", SOURCES)
def test_every_flat_module_is_on_the_page(package):
    flat = [file.stem for file in place(package).glob("*.py") if not file.stem.startswith("_")]
    missing = [name for name in flat if f"`{name}`" not in section(package)]
    assert not missing, f"docs/architecture.md does not say what {', '.join(missing)} of {package} is for"


def storeys(package: str) -> dict[str, int]:
    """The files and rooms in the table of a package, each with its line."""
    lines = [line for line in section(package).splitlines() if line.startswith("| ")][1:]
    return {
        name if name.endswith("/") else f"{package}/{name}.py": number
        for number, line in enumerate(lines)
        for name in re.findall(r"`([\w/]+)`", line)
    }


def imported(path: Path, package: str) -> Iterator[str]:
    """The files of the same package that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == package:
            module = node.module.replace(".", "/")
            for name in node.names:
                inner = f"{module}/{name.name}.py"
                outer = f"{module}.py" if place(f"{module}.py").is_file() else f"{module}/__init__.py"
                yield inner if place(inner).is_file() else outer


@pytest.mark.parametrize("package", ["codellm", "codellm_cpu", "codellm_eval"])
def test_each_line_of_a_table_imports_those_above_it(package):
    table = storeys(package)

    def storey(name: str) -> int | None:
        above = [key for key in table if name == key or (key.endswith("/") and name.startswith(key))]
        return table[max(above, key=len)] if above else None

    wrong = []
    for path in place(package).rglob("*.py"):
        name = path.relative_to(place(package).parent).as_posix()
        here = storey(name)
        if here is None or name in CONTRACT:
            continue  # what is missing is told above
        wrong += [f"{name} imports {other}" for other in imported(path, package) if (storey(other) or 0) > here]
    assert not wrong, f"docs/architecture.md has it the other way round: {'; '.join(wrong)}"
