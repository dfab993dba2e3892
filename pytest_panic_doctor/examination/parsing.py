"""Parses one value of an option or ini key each; an error is one sentence that says what to give instead.

Imports nothing heavy, because pytest loads it in every project.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from pytest_panic_doctor.database.spelling import normalized_id
from pytest_panic_doctor.errors import BadOption
from pytest_panic_doctor.examination.settings import Part, Severity, Shard
from pytest_panic_doctor.formatting import install_extra

RAY = "ray"
"""The name that selects the default engine on a Ray cluster."""

TEXT_MODELS = (
    *("Nomic", "JinaClip", "STSBMpnet", "STSBRoberta", "STSBDistilRoberta", "Qwen3Embed", "ColNomic"),
    *("DummyText", "DummyText2"),
)
"""The embedding models of the research tool, in both of its generations, that embed texts."""
IMAGE_MODELS = ("NomicVision", "JinaClipVision", "ColNomicVision", "DummyVision", "DummyVision2")
"""The embedding models of the research tool, in both of its generations, that embed images."""


REPORT_SUFFIXES = (".json", ".jsonl", ".html", ".md")
"""The suffixes of a report."""
TIME_UNITS = {"s": 1, "m": 60, "h": 3600}
"""Seconds of each unit."""
MOST_SHARDS = 999_999
"""The largest number of shards that is accepted."""


@dataclass(frozen=True, slots=True)
class Given:
    """One value as the user gave it; `str` of it is how a message quotes it.

    Attributes:
        name: The option, or the ini key of what is no option.
        text: The value.
        folder: The folder that a relative path is relative to.
    """

    name: str
    text: str
    folder: Path = Path()

    def __str__(self) -> str:
        """The option and its value."""
        return f"{self.name} {self.text}"


def parse_text(given: Given) -> str:
    """Return the text as it is."""
    return given.text


def parse_path(given: Given) -> Path:
    """Return the file that a text names; `~` and `$VAR` are expanded as pytest does it for `--junitxml`.

    A file whose name contains exactly these characters has priority.
    """
    named = given.folder / given.text
    if os.path.lexists(named):
        return named
    return given.folder / os.path.expanduser(os.path.expandvars(given.text))  # noqa: PTH111


def parse_absolute_path(given: Given) -> Path | None:
    """Return the absolute path of the file that a text names; None if the text is empty."""
    return absolute(parse_path(given)) if given.text else None


def absolute(path: Path) -> Path:
    """Return an absolute path without `..`; symbolic links are kept, so that a node id reads as the user wrote it."""
    parts: list[str] = []
    for name in path.absolute().parts:
        if name == "..":
            parts.pop()
        else:
            parts.append(name)
    return Path(*parts)


def parse_report(given: Given) -> Path:
    """Check the path of a report; its suffix is its format.

    Raises:
        BadOption: The suffix is unknown, the path is a folder, or its folder is missing.
    """
    path = parse_path(given)
    if path.suffix not in REPORT_SUFFIXES:
        raise BadOption(f"{given.name} {path} has no known suffix: end it in one of {', '.join(REPORT_SUFFIXES)}")
    if path.is_dir():
        raise BadOption(f"{given.name} {path} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise BadOption(f"{given.name} {path} has no folder to be written to: make {path.parent} first")
    return path


def parse_uuid(given: Given) -> str:
    """Parse a UUID.

    Returns:
        32 hex digits without dashes, as in the database.

    Raises:
        BadOption: The text is not a UUID.
    """
    digits = normalized_id(given.text)
    if not re.fullmatch(r"[0-9a-f]{32}", digits):
        raise BadOption(f"{given} is not a UUID: give 32 hex digits, with or without dashes")
    return digits


def parse_run(given: Given) -> str:
    """Return the text that means a run.

    Raises:
        BadOption: It is empty.
    """
    if not given.text.strip():
        raise BadOption(f"{given.name} is empty: give the id of a run, the beginning of it, or words of its prompt")
    return given.text.strip()


def parse_memory(given: Given) -> int:
    """Parse a size of memory, in bytes.

    Raises:
        BadOption: The text is not a size, or too small to compute any diagram.
    """
    from pytest_panic_doctor.compute.memory import LEAST_MEMORY
    from pytest_panic_doctor.formatting import format_size, parse_size

    try:
        size = parse_size(given.text)
    except ValueError as error:
        raise BadOption(f"{given}: {error}") from error
    if size < LEAST_MEMORY:
        raise BadOption(f"{given} is too little to compute any diagram: give at least {format_size(LEAST_MEMORY)}")
    return size


def parse_int(given: Given, least: int) -> int:
    """Parse an integer.

    Raises:
        BadOption: The text is not an integer of at least `least`.
    """
    if not re.fullmatch(r"\d+", given.text) or int(given.text) < least:
        raise BadOption(f"{given} is not a whole number of at least {least}: give one, e.g. {given.name} 2")
    return int(given.text)


def parse_dimension(given: Given) -> int:
    """Parse the highest homology dimension.

    Raises:
        BadOption: It is not 0, 1 or 2.
    """
    number = parse_int(given, least=0)
    if number > 2:
        raise BadOption(f"{given.name} {number} is more than the file format holds: give 0, 1 or 2")
    return number


def parse_limit(given: Given) -> str:
    """Parse a number of rows, or a percentage of the rows of a table.

    Returns:
        `5000` or `2.5%`.

    Raises:
        BadOption: The text is neither.
    """
    text = given.text.replace(" ", "").replace(",", "").replace("_", "")
    if not re.fullmatch(r"\d+|\d+(\.\d+)?%", text) or (text.endswith("%") and float(text[:-1]) > 100):
        name = given.name
        raise BadOption(
            f"{given} is neither a number of rows nor a percentage: give one, e.g. {name} 5000 or {name} 2%"
        )
    return text


def parse_duration(given: Given, *, unit: bool = False) -> float:
    """Parse a time such as `90s`, `20m` or `1h30m`.

    Args:
        given: The value.
        unit: Whether a unit is required; otherwise a number alone means seconds.

    Returns:
        Seconds.

    Raises:
        BadOption: The text is not a time.
    """
    text = given.text.strip().lower()
    if unit and re.fullmatch(r"[0-9.]*[1-9][0-9.]*", text):
        raise BadOption(f"{given} has no unit: give one such as {text}s or {text}m")
    pieces = re.findall(r"(\d+(?:\.\d+)?)([smh])", f"{text}s" if text[-1:].isdigit() else text)
    whole_text = "".join(number + unit for number, unit in pieces)
    total = sum(float(number) * TIME_UNITS[unit] for number, unit in pieces)
    if whole_text not in (text, f"{text}s") or total <= 0:
        raise BadOption(f"{given} is not a time: give one such as 90s, 20m or 1h30m")
    return total


def parse_running(given: Given) -> float:
    """Parse the time after the last row for which an incomplete experiment counts as running.

    Returns:
        Seconds; 0 means that no experiment counts as running.

    Raises:
        BadOption: The text is not a time.
    """
    return 0.0 if given.text.strip() == "0" else parse_duration(given)


def parse_sample(given: Given) -> Part:
    """Parse `--doctor-sample`.

    Raises:
        BadOption: The text is not `K/N` with 1 <= K <= N.
    """
    with suppress(ValueError):
        part = Part.parse(given.text)
        if part.number <= part.of:
            return part
    raise BadOption(f"{given} is not a part: give K/N with K from 1 to N, e.g. {given.name} 2/7")


def parse_shard(given: Given) -> Shard:
    """Parse `--doctor-shard`.

    Raises:
        BadOption: The text is not `K/N` with 1 <= K <= N.
    """
    try:
        shard = Shard.parse(given.text)
    except ValueError:
        shard = None
    if shard is None or max(shard.number, shard.of) > MOST_SHARDS:
        raise BadOption(f"{given} is not K/N: give the shard's number and how many there are, e.g. 2/3")
    if shard.number > shard.of:
        of = shard.of
        raise BadOption(f"{given} is beyond the last shard: there are {of:,}, so give 1/{of} to {of}/{of}")
    return shard


def parse_severity(given: Given) -> tuple[str, Severity]:
    """Parse a line of `doctor_severity`.

    Returns:
        The id of the rule, and its severity.

    Raises:
        BadOption: The line has another form.
    """
    rule, _, text = given.text.partition(":")
    try:
        return rule.strip(), Severity.parse(text)
    except ValueError as error:
        raise BadOption(
            f"{given.name} {given.text!r} is not a severity: give RULE: error, warn, off or warn <= COUNT, "
            "e.g. embedding-missing: warn <= 10"
        ) from error


def severity_by_rule(pairs: Iterable[tuple[str, Severity]]) -> dict[str, Severity]:
    """Gather the lines of `doctor_severity`.

    Raises:
        BadOption: A rule is named twice.
    """
    found: dict[str, Severity] = {}
    for rule, severity in pairs:
        if rule in found:
            raise BadOption(f"doctor_severity names {rule} twice: leave one of the two lines")
        found[rule] = severity
    return found


def parse_cosine(given: Given) -> float:
    """Parse the least cosine between the vectors of a hook and stored ones, from 0 (no comparison) to 1.

    Raises:
        BadOption: The text is not such a number.
    """
    try:
        number = float(given.text)
    except ValueError:
        number = -1
    if not 0 <= number <= 1:
        raise BadOption(f"{given} is not a cosine: give a number from 0 (no comparison) to 1")
    return number


def parse_engine(given: Given) -> str | None:
    """Return the name of an engine; None if it only means that a Ray cluster computes."""
    return None if given.text == RAY else given.text


def parse_cluster(address: str | None, *, by_engine: bool) -> str | None:
    """Return the address of the Ray cluster, from the option or else from RAY_ADDRESS.

    Args:
        address: The value of `--doctor-ray`, or None.
        by_engine: Whether `--doctor-engine ray` is given.

    Returns:
        The address, `local` for a local Ray; None if Ray is not used.

    Raises:
        BadOption: Ray is not installed.
    """
    if address is None and not by_engine:
        return None
    if find_spec("ray") is None:
        flag = f"--doctor-engine {RAY}" if address is None else f"--doctor-ray {address}"
        raise BadOption(f"{flag} needs Ray, which is not installed: {install_extra('ray')}")
    return address or os.environ.get("RAY_ADDRESS") or "local"


def parse_generation(key: str) -> str:
    """Parse the generation of the demo.

    Returns:
        The key of a generation; the first one for an empty text.

    Raises:
        BadOption: There is no such generation.
    """
    from pytest_panic_doctor.database.generations import generations

    known = [each.key for each in generations()]
    if key and key not in known:
        raise BadOption(f"--doctor-demo-generation {key} is not known: give {' or '.join(known)}")
    return key or known[0]


def model_types(text_models: Iterable[str], image_models: Iterable[str]) -> dict[str, Literal["TEXT", "IMAGE"]]:
    """Return what each known embedding model embeds, those of the ini file included.

    Raises:
        BadOption: A model is in both lists.
    """
    known: dict[str, Literal["TEXT", "IMAGE"]] = dict.fromkeys((*TEXT_MODELS, *text_models), "TEXT")
    for name in (*IMAGE_MODELS, *image_models):
        if known.get(name) == "TEXT" and name in tuple(text_models):
            raise BadOption(f"{name} is in both doctor_text_models and doctor_image_models: leave it in one")
        known[name] = "IMAGE"
    return known
