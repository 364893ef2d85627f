"""Files of safetensors, byte by byte: what a header says may be true or not."""

from __future__ import annotations

import json
import struct


def packed(header: object, data: bytes = b"") -> bytes:
    """A safetensors file of a header (bytes as they are) and data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data
