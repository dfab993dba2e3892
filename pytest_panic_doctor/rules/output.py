"""The rule about what outputs look like from outside."""

from __future__ import annotations

import sqlite3
import struct
from collections import Counter
from collections.abc import Iterator

from pytest_panic_doctor.rules.model import IDS_KEPT, Finding, Scope, View, plural, rule

HEADER = 16
"""Bytes that are read of an image. `blobopen` takes them from the row's own page, where `substr` reads all pages."""

CHUNKS = (b"VP8 ", b"VP8L", b"VP8X")
"""With what a WEBP file begins after its frame (https://developers.google.com/speed/webp/docs/riff_container)."""


@rule(
    "output-plausible",
    scope=Scope.EXPERIMENT,
    sentence="every text is UTF-8 and not blank, every image a whole WEBP file by its header and length",
    remedy="regenerate the run with the research tool",
)
def output_plausible(view: View) -> Iterator[Finding]:
    """Texts are read, of images the first 16 bytes: none is decoded."""
    ids: list[str] = []
    kinds: Counter[str] = Counter()
    looked_at = 0
    runs = view.db.execute("SELECT id FROM run WHERE experiment_id = :experiment ORDER BY rowid", view.params)
    for (run,) in runs.fetchall():
        images, texts = images_of(view.db, run), texts_of(view.db, run)
        looked_at += len(images) + len(texts)
        wrong = [*wrong_texts(texts), *wrong_images(view.db, images)]
        kinds.update(kind for _, kind in wrong)
        ids += [str(row_id) for row_id in ids_of(view.db, [rowid for rowid, _ in wrong[: IDS_KEPT - len(ids)]])]
    view.examined(looked_at, "invocation")
    if kinds:
        told = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
        message = f"{kinds.total():,} of {plural(looked_at, 'output')} cannot be one: {told}"
        yield view.finding(message, table="invocation", ids=ids, count=kinds.total())


def texts_of(db: sqlite3.Connection, run: str) -> list[tuple[int, bytes]]:
    """Rowid and bytes of the texts of a run."""
    return db.execute(
        "SELECT rowid, CAST(output_text AS BLOB) FROM invocation WHERE run_id = ? AND type = 'TEXT' "
        "AND typeof(output_text) = 'text'",
        (run,),
    ).fetchall()


def images_of(db: sqlite3.Connection, run: str) -> list[tuple[int, int]]:
    """Rowid and length of the images of a run; those that are empty are `invocation-output`'s."""
    return db.execute(
        "SELECT rowid, length(output_image_data) FROM invocation WHERE run_id = ? AND type = 'IMAGE' "
        "AND typeof(output_image_data) = 'blob' AND length(output_image_data) > 0",
        (run,),
    ).fetchall()


def ids_of(db: sqlite3.Connection, rowids: list[int]) -> Iterator[object]:
    """The ids of some invocations."""
    for rowid in rowids:
        yield db.execute("SELECT id FROM invocation WHERE rowid = ?", (rowid,)).fetchone()[0]


def wrong_texts(texts: list[tuple[int, bytes]]) -> Iterator[tuple[int, str]]:
    """Rowid and fault of the texts that cannot be captions."""
    try:
        # One look at all of them settles the healthy case.
        b"\n".join(text for _, text in texts).decode()
        torn = False
    except UnicodeDecodeError:
        torn = True
    for rowid, text in texts:
        if not text.strip():
            yield rowid, "blank"
        elif b"\0" in text:
            yield rowid, "with a NUL character"
        elif torn and not is_utf8(text):
            yield rowid, "no UTF-8"


def is_utf8(text: bytes) -> bool:
    """Whether a text can be decoded."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def wrong_images(db: sqlite3.Connection, images: list[tuple[int, int]]) -> Iterator[tuple[int, str]]:
    """Rowid and fault of the images that are no whole WEBP file."""
    for rowid, length in images:
        header = header_of(db, rowid)
        if length < HEADER or header[:4] != b"RIFF" or header[8:12] != b"WEBP" or header[12:] not in CHUNKS:
            yield rowid, "no WEBP file"
        elif struct.unpack("<I", header[4:8])[0] + 8 != length:
            yield rowid, "of another length than its header says"


def header_of(db: sqlite3.Connection, rowid: int) -> bytes:
    """The first bytes of an image."""
    try:
        with db.blobopen("invocation", "output_image_data", rowid, readonly=True) as blob:
            return blob.read(HEADER)
    except sqlite3.OperationalError:
        # Of a table with generated columns SQLite opens no blob.
        sql = f"SELECT substr(output_image_data, 1, {HEADER}) FROM invocation WHERE rowid = ?"
        return bytes(db.execute(sql, (rowid,)).fetchone()[0])
