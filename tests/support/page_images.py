"""Real images, small ones, as the research tool stores and compares them."""

from __future__ import annotations

import io

from PIL import Image


def picture(shade: int, spot: int = 0) -> bytes:
    """A real WEBP image of one shade; a `spot` is one pixel, of which JPEG at quality 30 does not see a small one."""
    image = Image.new("RGB", (16, 16), (shade, 100, 140))
    image.putpixel((3, 3), (shade + spot, 100, 140))
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", lossless=True, quality=100)
    return buffer.getvalue()


def jpeg(image: str | bytes) -> bytes:
    """What the research tool compares of an image."""
    assert isinstance(image, bytes)
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(image)) as opened:
        opened.save(buffer, format="JPEG", quality=30)
    return buffer.getvalue()
