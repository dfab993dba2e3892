"""Find the first output of a run that repeats an earlier one, as the research tool compares them.

The tool ends a run whose seed is not -1 at the first repeated output. Texts are compared as they are, images by their
JPEG at quality 30, byte by byte: images with different bytes can be equal in this sense.
"""

from __future__ import annotations

import hashlib
import io
import sqlite3
import warnings
from collections.abc import Iterator

INSTALL = "install the extra images (Pillow), as in pip install '.[images]'"

QUALITY = 30
"""Quality of the JPEG that the research tool compares."""

LARGEST_IMAGE = 64 * 2**20
"""Maximum number of pixels of an image that is decoded; images of the research tool have 65,536."""


class CannotTell(Exception):
    """It is unknown whether an output repeats another; the message is a clause with the reason and what to do."""


def first_text(db: sqlite3.Connection, run: str) -> int | None:
    """Return the sequence number of the first text of a run that repeats an earlier one; None if there is no repeat."""
    row = db.execute(
        "SELECT min(number) FROM (SELECT sequence_number AS number, row_number() OVER (PARTITION BY output_text "
        "ORDER BY sequence_number) AS place FROM invocation WHERE run_id = ? AND type = 'TEXT' "
        "AND typeof(output_text) = 'text') WHERE place > 1",
        (run,),
    ).fetchone()
    return None if row[0] is None else int(row[0])


def first_image(db: sqlite3.Connection, run: str) -> int | None:
    """Return the sequence number of the first image of a run that repeats an earlier one; None if there is no repeat.

    Raises:
        CannotTell: An image cannot be decoded, or Pillow is not installed.
    """
    seen: set[bytes] = set()
    for number, image in images(db, run):
        digest = comparison_digest(image, number)
        if digest in seen:
            return number
        seen.add(digest)
    return None


def images(db: sqlite3.Connection, run: str) -> Iterator[tuple[int, bytes]]:
    """Yield sequence number and bytes of a run's images in order, one at a time, so that nothing sorts them."""
    rows = db.execute(
        "SELECT sequence_number, rowid FROM invocation WHERE run_id = ? AND type = 'IMAGE' "
        "AND typeof(output_image_data) = 'blob'",
        (run,),
    ).fetchall()
    for number, rowid in sorted(rows):
        (image,) = db.execute("SELECT output_image_data FROM invocation WHERE rowid = ?", (rowid,)).fetchone()
        yield number, image


def comparison_digest(image: bytes, number: int) -> bytes:
    """Return the SHA-256 of what the research tool compares of an image."""
    try:
        from PIL import Image
    except ImportError:
        raise CannotTell(f"its images cannot be compared without Pillow: {INSTALL}") from None
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(image), formats=["WEBP"]) as opened:
                if opened.width * opened.height > LARGEST_IMAGE:
                    raise CannotTell(f"image {number:,} has {opened.width:,} x {opened.height:,} pixels")
                opened.save(buffer, format="JPEG", quality=QUALITY)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise CannotTell(f"image {number:,} cannot be decoded ({str(error)[:60]})") from error
    return hashlib.sha256(buffer.getvalue()).digest()


def early_stop(db: sqlite3.Connection, run: str, count: int, max_length: int) -> str:
    """Describe what is wrong with the end of a run whose seed is not -1.

    Args:
        db: Any connection.
        run: A run with invocations 0 to `count` - 1, each once.
        count: How many there are.
        max_length: How many there may be. Images are read only if there are fewer.

    Returns:
        A clause; empty if the research tool would end the run there.
    """
    last = count - 1
    text = first_text(db, run)
    first = text
    if count < max_length and (text is None or text == last):
        try:
            image = first_image(db, run)
        except CannotTell as reason:
            return (
                f"whether the run stops after {count:,} of {max_length:,} invocations at a repeat is unknown: {reason}"
            )
        first = min((each for each in (text, image) if each is not None), default=None)
    if first is None:
        if count == max_length:
            return ""
        return f"the run stops after {count:,} of {max_length:,} invocations, though no output repeats"
    if first < last:
        return f"the run goes on to {count:,} invocations, though output {first:,} repeats an earlier one"
    return ""
