"""Every exception that a user can cause, and the end of a computation that is no longer needed.

All exceptions that a user can cause are a `DoctorError`. Its text is one sentence: what is wrong, with which value, and
what to do. At the start of a session it is shown as pytest's usage error (exit status 4). Inside an item it is the
reason why the item failed or was skipped. The tree, with the module of each exception:

    DoctorError                  errors
        BadBaseline              examination.acceptance
        BadOption                errors
        BadRule                  rules
            DuplicateRule        rules
        ClusterUnavailableError  compute.ray.client
        DemoRefused              session.demo.build
        Misbehaved               examination.foreign_code
        NotMergeable             report.merge
        RepairError              repair.journal.errors
            RepairFailed         repair.journal.errors
            RepairRefused        repair.journal.errors
                NothingToRestore repair.journal.restore
        TooLarge                 database.memory_room
        Unreadable               database.connection
"""

from __future__ import annotations


class DoctorError(Exception):
    """An error that the user can correct; the text is one sentence: what is wrong, with which value, and what to do."""


class Stopped(Exception):
    """Ends a computation that is no longer needed: the controller has ended, or the user has stopped the session."""


class BadOption(DoctorError):
    """An option or ini key has a value that is not allowed."""
