"""The one kind of error that a user can cause."""

from __future__ import annotations


class DoctorError(Exception):
    """Something that the user can put right; the text is one sentence: what is wrong, with which value, what to do."""


class Stopped(Exception):
    """A computation that is no longer wanted: the controller is gone, or the user has stopped it."""


class BadOption(DoctorError):
    """An option has a value that cannot be; the text is one sentence that names it and says what to do."""
