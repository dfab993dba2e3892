"""Builds the demo: `python -m pytest_panic_doctor.session.demo FOLDER`; the plugin runs this in its own process."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from pytest_panic_doctor.database.generations import generations
from pytest_panic_doctor.database.python_generation import PYTHON
from pytest_panic_doctor.errors import DoctorError
from pytest_panic_doctor.formatting import typed
from pytest_panic_doctor.session.demo.build import DEFECTS, build, former


def natural(text: str) -> int:
    """Parse an integer of at least 0.

    Raises:
        argparse.ArgumentTypeError: The text is not such a number.
    """
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 0: give one, e.g. 1")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the demo and print its path; end with one sentence and status 1 if it must not be built."""
    parser = argparse.ArgumentParser(
        prog="python -m pytest_panic_doctor.session.demo", description="Build the demo database."
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where to; made if it is not there")
    parser.add_argument("--seed", type=natural, default=0, metavar="N", help="of the captions (default: 0)")
    parser.add_argument(
        "--generation",
        choices=[each.key for each in generations()],
        default=PYTHON.key,
        help="of the research tool (default: %(default)s)",
    )
    given = parser.parse_args(arguments)
    try:
        replaced = former(given.folder)
        path = build(given.folder, given.seed, given.generation)
    except DoctorError as error:
        sys.exit(str(error))
    if replaced:
        print(replaced)
    defects = json.loads((given.folder / DEFECTS).read_text(encoding="utf-8"))
    print(f"{path}: {len(defects)} defects, listed in {DEFECTS}")
    print(f"next: pytest --doctor-db {typed(str(path))}")


if __name__ == "__main__":
    main()
