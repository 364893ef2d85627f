"""The documentation: the scripts that write its pages, as modules, and the first commands of its contributors."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

DOCS = Path(__file__).parents[2] / "docs"


def generator(name: str) -> ModuleType:
    """The script docs/NAME.py, which imports what lies beside it as it does when it is run."""
    if str(DOCS) not in sys.path:
        sys.path.append(str(DOCS))
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def door() -> str:
    """The first commands of CONTRIBUTING.md: from a clone to a test that passes."""
    page = (DOCS.parent / "CONTRIBUTING.md").read_text()
    found = re.search(r"^```console\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def place(name: str) -> Path:
    """Where a page's `codellm/…`, `codellm_cpu/…`, `docs/…` or `tests/…` lies in the repository."""
    root, package = DOCS.parent, name.partition("/")[0]
    if not package.startswith("codellm"):
        return root / name
    return root / f"codellm-{package.partition('_')[2] or 'core'}" / "src" / name
