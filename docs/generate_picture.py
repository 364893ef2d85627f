"""Write docs/page.png: the page of `codellm serve -m codellm-demo` after an infill, as Chromium shows it.

To write the picture: `python docs/generate_picture.py`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "tests"))

from support.chromium import Chromium  # noqa: E402  # lies beside the tests, which are no package
from support.serving import serving  # noqa: E402


def picture() -> bytes:
    """The page as PNG."""
    with serving("-m", "codellm-demo") as server, Chromium() as browser:
        browser.open(f"{server.url}/", width=1000, height=720)
        while not browser.value("at('model').value"):
            time.sleep(0.05)
        browser.value("document.querySelector('[value=infill]').click()")
        browser.value("at('run').click()")
        while browser.value("running !== null"):
            time.sleep(0.05)
        return browser.screenshot()


if __name__ == "__main__":
    (DOCS / "page.png").write_bytes(picture())
