"""Compress data to text for an HTML page: deflate (the page inflates by `DecompressionStream`), then base64.

Base64 has no `<`, so that no contents of a database can end the HTML element.
"""

from __future__ import annotations

import json
import zlib
from base64 import b64encode


def packed(data: bytes, level: int = 9) -> str:
    """Compress `data` to raw DEFLATE (RFC 1951) in base64."""
    deflate = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    return b64encode(deflate.compress(data) + deflate.flush()).decode("ascii")


def packed_json(value: object) -> str:
    """Compress a value as ASCII JSON, so that a text that is not valid Unicode is kept too."""
    return packed(json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode("ascii"))
