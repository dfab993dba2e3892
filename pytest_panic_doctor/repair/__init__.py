"""Repairs that lose nothing: the only part of the doctor that writes to a database.

A session in the controller: `DoctorLock(database)`, then `preflight`, `settle`, and after the last worker `finish`. In
each worker a `Writer`. Any time later `repairs` and `undo`. Everything a user can cause is a `RepairError`.
"""

from pytest_panic_doctor.repair.journal.errors import RepairError, RepairFailed, RepairRefused
from pytest_panic_doctor.repair.journal.journal import Repair
from pytest_panic_doctor.repair.journal.locks import DoctorLock
from pytest_panic_doctor.repair.journal.preflight import finish, preflight, settle
from pytest_panic_doctor.repair.journal.undo import repairs, undo
from pytest_panic_doctor.repair.journal.writer import Writer

__all__ = [
    "DoctorLock",
    "Repair",
    "RepairError",
    "RepairFailed",
    "RepairRefused",
    "Writer",
    "finish",
    "preflight",
    "repairs",
    "settle",
    "undo",
]
