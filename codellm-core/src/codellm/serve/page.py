"""The page at `/`: one file that a browser shows, which asks the endpoints as any client does."""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.resources
import re

from starlette.responses import HTMLResponse


def page() -> HTMLResponse:
    """The page, whose one style and one script are all that a browser may run of it."""
    text, policy = _page()
    return HTMLResponse(
        text,
        headers={
            "content-security-policy": policy,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cache-control": "no-cache",
        },
    )


@functools.cache
def _page() -> tuple[str, str]:
    text = importlib.resources.files("codellm.serve").joinpath("page.html").read_text("utf-8")
    style, script = (_hash(text, tag) for tag in ("style", "script"))
    return text, (
        f"default-src 'none'; style-src {style}; script-src {script}; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )


def _hash(text: str, tag: str) -> str:
    """The source of what stands in an element, as a policy names it (CSP Level 3, 2.3.1)."""
    [inside] = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'"
