"""Builds the engine `native`. Everything else about the package is in pyproject.toml.

Where no C++20 compiler is, the package is installed without it. `DOCTOR_STRICT=1`, as in CI, takes every warning for an
error, and `DOCTOR_SANITIZE=1` builds it with the sanitizers for addresses and undefined behaviour.
"""

import os
from pathlib import Path

from setuptools import Extension, setup

SOURCES = Path("pytest_panic_doctor", "topology", "native", "src")
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g", "-O1"]

strict = STRICT if os.environ.get("DOCTOR_STRICT") else []
sanitize = SANITIZE if os.environ.get("DOCTOR_SANITIZE") else []

setup(
    ext_modules=[
        Extension(
            "pytest_panic_doctor.topology.native._rips",
            sources=sorted(map(str, SOURCES.glob("*.cpp"))),
            depends=sorted(map(str, [*SOURCES.glob("*.hpp"), *SOURCES.glob("*.inc")])),
            extra_compile_args=["-std=c++20", "-O3", "-g0", "-fvisibility=hidden", *strict, *sanitize],
            extra_link_args=sanitize,
            language="c++",
            py_limited_api=True,
            optional=not strict,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
