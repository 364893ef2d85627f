"""Imports run one way inside the packages: those at the top, under TYPE_CHECKING and in functions, all counted.

A room is a sub-package. The modules right in a package are the flat room: some lie below all others and some above.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "codellm": "codellm-core",
    "codellm_cpu": "codellm-cpu",
    "codellm_eval": "codellm-eval",
    "codellm_gpu": "codellm-gpu",
}
LARGEST = 6
"""Modules of a circle that one can still read as one thing."""
CIRCLES = {
    frozenset({"codellm.generation", "codellm.model", "codellm.prompt", "codellm.run"}): (
        "a Model generates, by functions that take a Model"
    ),
}
"""The circles that are left, each with its reason."""

Imports = dict[str, dict[str, str]]
"""By module or room, those that it imports, each with the first import that does."""


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_one_way(package):
    listed = {circle: why for circle, why in CIRCLES.items() if any(name.split(".")[0] == package for name in circle)}
    assert faults(ROOT / PACKAGES[package] / "src" / package, listed) == []


def faults(package: Path, listed: Mapping[frozenset[str], str]) -> list[str]:
    """What is wrong with the imports inside `package`, of whose circles those `listed` may be."""
    modules = modules_of(package)
    imports = {name: imported(name, modules) for name in modules}
    found = [*circles(imports)]
    gone = [", ".join(sorted(circle)) for circle in listed if circle not in found]
    wrong = [f"a circle of CIRCLES is gone; take it out: {circle}" for circle in gone]
    for circle in found:
        told = steps(circle, imports)
        if len(circle) > LARGEST:
            wrong.append(f"a circle has {len(circle)} modules, which is more than {LARGEST}; cut it: {told}")
        if len({room(name, modules) for name in circle}) > 1:
            wrong.append(f"a circle crosses a room; cut it: {told}")
        if circle not in listed:
            wrong.append(f"a circle is not in CIRCLES; cut it, or list it with its reason: {told}")
    between = imports_of_rooms(imports, modules)
    for ring in circles(between):
        rooms = " and ".join(sorted(ring))
        wrong.append(f"{rooms} import each other; give the lower one what it needs: {steps(ring, between)}")
    return wrong


def modules_of(package: Path) -> dict[str, Path]:
    """The files of a package by the names of their modules; a package is its `__init__`."""
    parts = {file: file.relative_to(package.parent).with_suffix("").parts for file in sorted(package.rglob("*.py"))}
    return {".".join(each[:-1] if each[-1] == "__init__" else each): file for file, each in parts.items()}


def imported(name: str, modules: Mapping[str, Path]) -> dict[str, str]:
    """What the module `name` imports of `modules`, wherever in its file."""
    found: dict[str, str] = {}
    tree = ast.parse(modules[name].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, (around(name, modules, node.level), node.module)))
            targets = [inner if (inner := f"{base}.{alias.name}") in modules else base for alias in node.names]
        for target in targets:
            if target in modules and target != name:
                found.setdefault(target, f"{name} imports {target} (line {node.lineno})")
    return found


def around(name: str, modules: Mapping[str, Path], level: int) -> str:
    """The package that a relative import of so many dots begins in; nothing for an absolute one."""
    if not level:
        return ""
    parts = room(name, modules).split(".")
    return ".".join(parts[: len(parts) - level + 1])


def room(name: str, modules: Mapping[str, Path]) -> str:
    """The package that a module lies in."""
    return name if modules[name].name == "__init__.py" else name.rpartition(".")[0]


def imports_of_rooms(imports: Imports, modules: Mapping[str, Path]) -> Imports:
    """Which room imports which, the flat one left out; a room with rooms of its own imports what they do elsewhere."""
    between: Imports = {}
    for name, others in imports.items():
        for other, told in others.items():
            mine, theirs = room(name, modules), room(other, modules)
            for a in rooms_of(mine, without=theirs):
                for b in rooms_of(theirs, without=mine):
                    if a != b:
                        between.setdefault(a, {}).setdefault(b, told)
    return between


def rooms_of(inner: str, without: str) -> Iterator[str]:
    """A room and those around it which do not hold the room `without`."""
    outer = inner
    while "." in outer and (outer == inner or not f"{without}.".startswith(f"{outer}.")):
        yield outer
        outer = outer.rpartition(".")[0]


def circles(imports: Imports) -> Iterator[frozenset[str]]:
    """What imports each other, on whatever ways: the strongly connected components of more than one member."""
    reached = {name: reachable(name, imports) for name in imports}
    seen: set[str] = set()
    for name in imports:
        circle = frozenset(other for other in reached[name] if name in reached.get(other, ()))
        if len(circle) > 1 and name not in seen:
            seen |= circle
            yield circle


def reachable(name: str, imports: Imports) -> set[str]:
    """Everything that `name` imports, at once or on the way; itself where that leads back."""
    found: set[str] = set()
    left = [*imports.get(name, ())]
    while left:
        if (other := left.pop()) not in found:
            found.add(other)
            left += imports.get(other, ())
    return found


def steps(circle: frozenset[str], imports: Imports) -> str:
    """The imports within a circle, in words."""
    return "; ".join(imports[a][b] for a in sorted(circle) for b in sorted(imports[a]) if b in circle)


FORMS = {
    "import": "import house.{0}",
    "from-package": "from house import {0}",
    "name": "from house.{0} import thing",
    "relative": "from . import {0}",
    "relative-name": "from .{0} import thing",
    "type-checking": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.{0} import thing",
    "function": "def later():\n    from house.{0} import thing",
    "method": "class Some:\n    def later(self):\n        if True:\n            import house.{0}",
}
BESIDE = "house.high and house.low"
INNER = "house.high and house.high.inner"
SOUND = {
    "__init__.py": "from house.top import thing",
    "errors.py": "",
    "low/a.py": "from house.errors import thing\nimport json",
    "low/b.py": "from house.low.a import thing",
    "high/inner/c.py": "from house.low import b",
    "high/d.py": "from house.high.inner.c import thing",
    "top.py": "import house.high.d",
}


def house(place: Path, files: Mapping[str, str]) -> Path:
    """A package of `files`, by their paths in it."""
    for path, text in files.items():
        file = place / "house" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        (file.parent / "__init__.py").touch()
    return place / "house"


def test_a_sound_house_has_no_fault(tmp_path):
    assert faults(house(tmp_path, SOUND), {}) == []


@pytest.mark.parametrize("form", FORMS)
def test_a_circle_by_any_import_is_found(tmp_path, form):
    files = {"a.py": FORMS["import"].format("b"), "b.py": FORMS[form].format("c"), "c.py": "import house.a"}
    package = house(tmp_path, {**SOUND, **files})
    [fault] = faults(package, {})
    assert "not in CIRCLES" in fault
    assert "house.b imports house.c (line" in fault
    assert "house.errors" not in fault
    assert faults(package, {frozenset({"house.a", "house.b", "house.c"}): "one thing in three files"}) == []


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [2, 3, LARGEST, LARGEST + 1, 12])
def test_a_circle_may_be_as_large_as_one_can_read(tmp_path, form, size):
    files = {f"m{each}.py": FORMS[form].format(f"m{(each + 1) % size}") for each in range(size)}
    found = faults(house(tmp_path, files), {frozenset(f"house.m{each}" for each in range(size)): "listed"})
    assert [f"a circle has {size} modules" in each for each in found] == [True] * (size > LARGEST)


def test_a_circle_that_crosses_a_room_is_one_that_no_list_allows(tmp_path):
    files = {"low/a.py": "from house.high import d", "high/d.py": FORMS["type-checking"].format("low.a")}
    found = faults(house(tmp_path, files), {frozenset({"house.low.a", "house.high.d"}): "listed"})
    assert [each.split(";")[0] for each in found] == [
        "a circle crosses a room",
        "house.high and house.low import each other",
    ]


def test_a_circle_through_the_flat_room_crosses_too(tmp_path):
    [fault] = faults(
        house(tmp_path, {**SOUND, "errors.py": FORMS["function"].format("low.a")}),
        {frozenset({"house.errors", "house.low.a"}): "listed"},
    )
    assert fault.startswith("a circle crosses a room")


def test_a_circle_that_is_gone_leaves_the_list(tmp_path):
    [fault] = faults(house(tmp_path, SOUND), {frozenset({"house.low.a", "house.low.b"}): "was one"})
    assert fault == "a circle of CIRCLES is gone; take it out: house.low.a, house.low.b"


@pytest.mark.parametrize(
    ("files", "rooms"),
    [
        ({"low/a.py": FORMS["function"].format("high.e"), "high/d.py": "import house.low.b"}, BESIDE),
        ({"high/d.py": "import house.high.inner.c", "high/inner/e.py": FORMS["type-checking"].format("high.f")}, INNER),
        ({"low/lead.py": "from house.high import d", "high/d.py": "import house.low.show.s"}, BESIDE),
    ],
    ids=["beside", "within", "around"],
)
def test_two_rooms_import_one_way_though_no_module_is_in_a_circle(tmp_path, files, rooms):
    empty = dict.fromkeys(("low/b.py", "low/show/s.py", "high/e.py", "high/f.py", "high/inner/c.py"), "")
    [fault] = faults(house(tmp_path, {**empty, **files}), {})
    assert fault.startswith(f"{rooms} import each other; give the lower one what it needs: house.")
    assert fault.count(" imports ") == 2
