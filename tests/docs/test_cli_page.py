import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_says_what_the_commands_say():
    done = subprocess.run([sys.executable, str(DOCS / "generate_cli.py")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert page == done.stdout, "the help has changed: python docs/generate_cli.py > docs/cli.md"
    assert max(map(len, page.splitlines())) <= 120
