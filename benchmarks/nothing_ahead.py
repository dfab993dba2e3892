"""A pytest plugin that keeps the doctor from reading ahead, to compare: `-p nothing_ahead`, this folder on the path."""

from pytest_panic_doctor.database import readahead

readahead.LEAST_FILE = 1 << 62
