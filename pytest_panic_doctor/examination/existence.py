"""Whether the subject of an item is in the database, as its queries look for it."""

from __future__ import annotations

from pytest_panic_doctor.rules.base import NotExaminable, RuleContext


def require_subject(context: RuleContext) -> None:
    """Check that the subject's experiment and run can be found by their ids.

    An id that is not UTF-8 changes when it is read. No row would be found by it, and every rule would pass.

    Raises:
        NotExaminable: One of them cannot be found.
    """
    for noun, table, row_id in (
        ("experiment", "experimentconfig", context.subject.experiment),
        ("run", "run", context.subject.run),
    ):
        if row_id is None or (table, row_id) in context.memo:
            continue
        if context.db.execute(f"SELECT 1 FROM {table} WHERE id = ?", (row_id,)).fetchone():
            context.memo[table, row_id] = True
            continue
        if "\\x" in row_id:
            why = f"the id of the {noun} is not UTF-8, so that its rows cannot be queried (see id-format)"
            raise NotExaminable(why)
        raise NotExaminable(f"the {noun} was deleted after the examination began: run again")
