"""Repairs a database without losing anything; the only part of the package that writes to one.

A session uses, in the controller, `RepairLock(database)`, then `preflight` and `recover`, and after the last worker
`finish`; in each worker a `Writer`. `repairs` and `undo` work at any later time. Every error that a user can cause is a
`RepairError`.
"""

from pytest_panic_doctor.repair.journal.errors import RepairError, RepairFailed, RepairRefused
from pytest_panic_doctor.repair.journal.locks import RepairLock
from pytest_panic_doctor.repair.journal.preflight import finish, preflight, recover
from pytest_panic_doctor.repair.journal.repair_record import Repair
from pytest_panic_doctor.repair.journal.undo import repairs, undo
from pytest_panic_doctor.repair.journal.writer import Writer

__all__ = [
    "Repair",
    "RepairError",
    "RepairFailed",
    "RepairLock",
    "RepairRefused",
    "Writer",
    "finish",
    "preflight",
    "recover",
    "repairs",
    "undo",
]
