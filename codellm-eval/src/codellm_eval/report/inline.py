"""An SVG picture as part of an HTML page."""

from __future__ import annotations

import re

_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
_ID = re.compile(r'(?<=\bid=")|(?<=url\(#)|(?<=href="#)')


def inline(svg: str, prefix: str) -> str:
    """The `<svg>` element alone, its ids behind `prefix`, since those of a whole page must differ.

    Comments go, which hold the names that the picture shows as matplotlib was given them.
    """
    element = _METADATA.sub("", _COMMENT.sub("", svg[svg.index("<svg") :]))
    return _ID.sub(f"{prefix}-", element)
