"""What the page of a report holds."""

from __future__ import annotations

import base64
import json
import re
import zlib
from pathlib import Path
from typing import Any


def data_of(path: Path) -> dict[str, Any]:
    """The page's data, unpacked."""
    found = re.search(r'id="data">([A-Za-z0-9+/=]*)<', path.read_text(encoding="utf-8"))
    assert found
    plain: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(found[1]), -zlib.MAX_WBITS))
    return plain
