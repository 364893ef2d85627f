"""The page of `-o` options says what the backends declare, those of codellm-gpu too, which is not installed here."""

import subprocess
import sys
from pathlib import Path

from codellm.plugins.registry import registry
from codellm.system.packages import OWN

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "backends.md").read_text(encoding="utf-8")


def test_the_page_says_what_the_backends_declare():
    done = subprocess.run([sys.executable, str(DOCS / "generate_backends.py")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == PAGE, "the options have changed: python docs/generate_backends.py > docs/backends.md"


def test_every_backend_of_ours_is_on_the_page():
    packages = {name.replace("-", "_") for name in OWN}
    found = registry().backends.items()
    ours = {name for name, backend in found if type(backend).__module__.partition(".")[0] in packages}
    assert {"llama-cpp", "torch-cpu", "transformers-cpu"} <= ours
    for name in ours | {"transformers-cuda"}:
        assert f"\n## {name}\n" in PAGE, (
            f"{name} is missing: name its package in backends() of docs/generate_backends.py"
        )
