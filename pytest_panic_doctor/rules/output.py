"""The rule about the form of outputs."""

from __future__ import annotations

import sqlite3
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pytest_panic_doctor.database.generation import Generation
from pytest_panic_doctor.formatting import plural
from pytest_panic_doctor.rules.base import IDS_KEPT, Finding, RuleContext, Scope, format_id, rule

HEADER = 16
"""Bytes that are read of an image. `blobopen` reads only the row's own page; `substr` would read all pages."""

CHUNKS = (b"VP8 ", b"VP8L", b"VP8X")
"""First chunk of a WebP file after its header (https://developers.google.com/speed/webp/docs/riff_container)."""


AVIF = b"ftypavif"
"""Start of an AVIF file after the length of its first box (https://aomediacodec.github.io/av1-avif/)."""

BOXES = 64
"""Maximum number of top-level boxes of an AVIF file; the research tool writes three."""


@rule(
    "output-plausible",
    scope=Scope.EXPERIMENT,
    description="every text is UTF-8 and not blank, every image a whole WEBP file by its header and length (Elixir: "
    "or an AVIF file by its boxes)",
    manual_fix="regenerate the run with the research tool",
)
def output_plausible(context: RuleContext) -> Iterator[Finding]:
    """Check the form of outputs: texts as a whole, one at a time; of images the first 16 bytes and the length.

    Example: an image that was cut off, or a text that is not UTF-8. Its embedding has no meaning. Nothing repairs this.
    """
    ids: list[str] = []
    kinds: Counter[str] = Counter()
    looked_at = 0
    runs = context.db.execute("SELECT id FROM run WHERE experiment_id = :experiment ORDER BY rowid", context.params)
    for (run,) in runs.fetchall():
        images, texts = images_of(context.db, run), context.db.execute(TEXTS, (run,))
        wrong = list(wrong_images(context.db, images, context.generation))
        looked_at += len(images)
        for rowid, text in texts:
            looked_at += 1
            if fault := wrong_text(text):
                wrong.append((rowid, fault))
        kinds.update(fault for _, fault in wrong)
        ids += [
            format_id(row_id) for row_id in ids_of(context.db, [rowid for rowid, _ in wrong[: IDS_KEPT - len(ids)]])
        ]
    context.examined(looked_at, "invocation")
    if kinds:
        counts = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
        message = f"{kinds.total():,} of {plural(looked_at, 'output')} cannot be valid: {counts}"
        yield context.finding(message, table="invocation", ids=ids, count=kinds.total())


TEXTS = (
    "SELECT rowid, CAST(output_text AS BLOB) FROM invocation WHERE run_id = ? AND type = 'TEXT' "
    "AND typeof(output_text) = 'text'"
)
"""Rowid and bytes of the texts of a run."""


def images_of(db: sqlite3.Connection, run: str) -> list[tuple[int, int]]:
    """List rowid and length of the images of a run. Empty images belong to `invocation-output`."""
    return db.execute(
        "SELECT rowid, length(output_image_data) FROM invocation WHERE run_id = ? AND type = 'IMAGE' "
        "AND typeof(output_image_data) = 'blob' AND length(output_image_data) > 0",
        (run,),
    ).fetchall()


def ids_of(db: sqlite3.Connection, rowids: list[int]) -> Iterator[object]:
    """Yield the ids of some invocations."""
    for rowid in rowids:
        yield db.execute("SELECT id FROM invocation WHERE rowid = ?", (rowid,)).fetchone()[0]


def wrong_text(text: bytes) -> str:
    """Explain why a text cannot be a caption; empty if it can."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return "not UTF-8"
    if b"\0" in text:
        return "with a NUL character"
    return "" if text and not text.isspace() else "blank"


def wrong_images(
    db: sqlite3.Connection, images: list[tuple[int, int]], generation: Generation
) -> Iterator[tuple[int, str]]:
    """Yield rowid and defect of the images that are not complete files of a format that the research tool writes."""
    formats = generation.image_formats
    table = generation.table("invocation")
    column = table and table.column_of("output_image_data")
    for rowid, length in images:
        with bytes_of(db, rowid, generation.real_name("invocation"), column or "") as read:
            header = read(0)
            if "AVIF" in formats and header[4:12] == AVIF:
                whole = is_whole_avif(read, length)
            elif length < HEADER or header[:4] != b"RIFF" or header[8:12] != b"WEBP" or header[12:] not in CHUNKS:
                yield rowid, f"not a {' or '.join(formats)} file"
                continue
            else:
                whole = struct.unpack("<I", header[4:8])[0] + 8 == length
        if not whole:
            yield rowid, "of another length than its header says"


def is_whole_avif(read: Callable[[int], bytes], length: int) -> bool:
    """Whether the boxes of a file end exactly at its end, and include the description and the data.

    A box begins with its length in 4 bytes and its name in 4. The length 1 means a length in 8 bytes after the name,
    and 0 means everything that is left (ISO/IEC 14496-12, 4.2).

    Args:
        read: Reads 16 bytes from an offset.
        length: The length of the file in bytes.
    """
    at, names = 0, list[bytes]()
    while at < length and len(names) < BOXES:
        head = read(at)
        size = int.from_bytes(head[:4])
        size = int.from_bytes(head[8:16]) if size == 1 else size or length - at
        if size < 8:
            return False
        names.append(head[4:8])
        at += size
    return at == length and {b"meta", b"mdat"} <= set(names)


@contextmanager
def bytes_of(db: sqlite3.Connection, rowid: int, table: str, column: str) -> Iterator[Callable[[int], bytes]]:
    """Open an image for reading.

    Args:
        db: Any connection.
        rowid: The row.
        table: The table, by its name in the file.
        column: The column, by its name in the file.

    Yields:
        A function that reads 16 bytes from an offset.
    """
    try:
        blob = db.blobopen(table, column, rowid, readonly=True)
    except sqlite3.OperationalError:
        # Of a table with generated columns SQLite opens no blob.
        sql = f"SELECT substr(output_image_data, ? + 1, {HEADER}) FROM invocation WHERE rowid = ?"
        yield lambda offset: bytes(db.execute(sql, (offset, rowid)).fetchone()[0])
        return

    def read(offset: int) -> bytes:
        blob.seek(offset)
        return blob.read(HEADER)

    with blob:
        yield read
