"""Repairs that lose nothing: the only part of the doctor that writes to a database.

A session in the controller: `RepairLock(database)`, then `preflight`, `settle`, and after the last worker `finish`. In
each worker a `Writer`. Any time later `repairs` and `undo`. Everything a user can cause is a `RepairError`.
"""

from pytest_panic_doctor.repair.journal.errors import RepairError, RepairFailed, RepairRefused
from pytest_panic_doctor.repair.journal.journal import Repair
from pytest_panic_doctor.repair.journal.locks import RepairLock
from pytest_panic_doctor.repair.journal.preflight import finish, preflight, recover
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
