"""`python -m pytest_panic_doctor.demo FOLDER` builds the demo; the plugin runs this, and never computes itself."""

from __future__ import annotations

import sys
from pathlib import Path

from pytest_panic_doctor.demo.build import build
from pytest_panic_doctor.errors import DoctorError

if __name__ == "__main__":
    try:
        build(Path(sys.argv[1]))
    except DoctorError as error:
        sys.exit(str(error))
