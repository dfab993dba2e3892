"""A pytest plugin that keeps the doctor from reading ahead, to compare: `-p nothing_ahead`, this folder on the path."""

from pytest_panic_doctor.database import readahead

readahead.SMALLEST = 1 << 62
