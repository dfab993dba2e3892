"""Data as text that an HTML page can hold: deflated (the page inflates it with `DecompressionStream`), in base64.

Base64 has no `<`, so that nothing that a database holds can end the element that holds it.
"""

from __future__ import annotations

import json
import zlib
from base64 import b64encode


def packed(data: bytes, level: int = 9) -> str:
    """`data` as raw DEFLATE (RFC 1951) in base64."""
    deflate = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    return b64encode(deflate.compress(data) + deflate.flush()).decode("ascii")


def packed_json(value: object) -> str:
    """A value as packed JSON, in ASCII: a torn text of the database, which is not valid Unicode, survives too."""
    return packed(json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode("ascii"))
