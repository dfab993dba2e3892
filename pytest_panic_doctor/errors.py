"""The one kind of error that a user can cause."""

from __future__ import annotations


class DoctorError(Exception):
    """Something that the user can put right; the text is one sentence: what is wrong, with which value, what to do."""
