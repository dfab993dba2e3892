"""Parses the text of one option or ini key each; an error is one sentence that says what to give instead.

Imports nothing heavy, because pytest loads it in every project.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

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


def split_list(value: object) -> list[str]:
    """Return the values of an option that may be repeated; commas separate values too."""
    entries = value if isinstance(value, list) else [value] if value else []
    return [part.strip() for entry in entries for part in str(entry).split(",") if part.strip()]


def parse_generation(value: object) -> str:
    """Parse the generation of the demo.

    Returns:
        The key of a generation; the first one for None.

    Raises:
        BadOption: There is no such generation.
    """
    from pytest_panic_doctor.database.generations import generations

    known = [each.key for each in generations()]
    if value in (None, ""):
        return known[0]
    if value not in known:
        raise BadOption(f"--doctor-demo-generation {value} is not known: give {' or '.join(known)}")
    return str(value)


def resolve_path(folder: Path, text: str) -> Path:
    """Return the file that a text names; `~` and `$VAR` are expanded as pytest does it for `--junitxml`.

    A file whose name contains exactly these characters has priority.
    """
    named = folder / text
    return named if os.path.lexists(named) else folder / os.path.expanduser(os.path.expandvars(text))  # noqa: PTH111


def parse_uuid(text: str) -> str:
    """Parse a UUID.

    Returns:
        32 hex digits without dashes, as in the database.

    Raises:
        BadOption: The text is not a UUID.
    """
    digits = text.replace("-", "").lower()
    if not re.fullmatch(r"[0-9a-f]{32}", digits):
        raise BadOption(f"--doctor-experiment {text} is not a UUID: give 32 hex digits, with or without dashes")
    return digits


def parse_runs(value: object) -> tuple[str, ...]:
    """Return the values of `--doctor-run`. A comma is part of a prompt, so it separates nothing.

    Raises:
        BadOption: A value is empty.
    """
    texts = [str(each).strip() for each in value] if isinstance(value, list) else []
    if not all(texts):
        raise BadOption("--doctor-run is empty: give the id of a run, the beginning of it, or words of its prompt")
    return tuple(dict.fromkeys(texts))


def parse_memory(value: object) -> int | None:
    """Parse a size of memory.

    Returns:
        The size in bytes; None if there is no value.

    Raises:
        BadOption: The text is not a size, or too small to compute any diagram.
    """
    if value is None:
        return None
    from pytest_panic_doctor.compute.memory import LEAST_MEMORY
    from pytest_panic_doctor.formatting import format_size, parse_size

    try:
        given = parse_size(str(value))
    except ValueError as error:
        raise BadOption(f"--doctor-memory {value}: {error}") from error
    if given < LEAST_MEMORY:
        least = format_size(LEAST_MEMORY)
        raise BadOption(f"--doctor-memory {value} is too little to compute any diagram: give at least {least}")
    return given


def parse_int(flag: str, value: object, least: int) -> int | None:
    """Parse an integer.

    Args:
        flag: The option, for the message.
        value: The text, or None.
        least: The smallest value that is allowed.

    Returns:
        The number; None if there is no value.

    Raises:
        BadOption: The text is not an integer of at least `least`.
    """
    if value is None:
        return None
    if not re.fullmatch(r"\d+", str(value)) or int(str(value)) < least:
        raise BadOption(f"{flag} {value} is not a whole number of at least {least}: give one, e.g. {flag} 2")
    return int(str(value))


HOUR = 3600.0
"""Seconds of an hour, the default of `doctor_running`."""
TIME_UNITS = {"s": 1, "m": 60, "h": 3600}
"""Seconds of each unit."""
MOST_SHARDS = 999_999
"""The largest number of shards that is accepted."""


def parse_limit(flag: str, value: object) -> str | None:
    """Parse a number of rows, or a percentage of the rows of a table.

    Returns:
        `5000` or `2.5%`; None if there is no value.

    Raises:
        BadOption: The text is neither.
    """
    if value is None:
        return None
    text = str(value).replace(" ", "").replace(",", "").replace("_", "")
    if not re.fullmatch(r"\d+|\d+(\.\d+)?%", text) or (text.endswith("%") and float(text[:-1]) > 100):
        raise BadOption(
            f"{flag} {value} is neither a number of rows nor a percentage: give one, e.g. {flag} 5000 or {flag} 2%"
        )
    return text


def parse_duration(flag: str, value: object, *, unit: bool = False) -> float | None:
    """Parse a time such as `90s`, `20m` or `1h30m`.

    Args:
        flag: The option, for the message.
        value: The text, or None.
        unit: Whether a unit is required; otherwise a number alone means seconds.

    Returns:
        Seconds; None if there is no value.

    Raises:
        BadOption: The text is not a time.
    """
    if value is None:
        return None
    text = str(value).strip().lower()
    if unit and re.fullmatch(r"[0-9.]*[1-9][0-9.]*", text):
        raise BadOption(f"{flag} {value} has no unit: give one such as {text}s or {text}m")
    pieces = re.findall(r"(\d+(?:\.\d+)?)([smh])", f"{text}s" if text[-1:].isdigit() else text)
    whole_text = "".join(number + unit for number, unit in pieces)
    total = sum(float(number) * TIME_UNITS[unit] for number, unit in pieces)
    if whole_text not in (text, f"{text}s") or total <= 0:
        raise BadOption(f"{flag} {value} is not a time: give one such as 90s, 20m or 1h30m")
    return total


def parse_sample(value: object) -> Part | None:
    """Parse `--doctor-sample`.

    Returns:
        The part; None if there is no value.

    Raises:
        BadOption: The text is not `K/N` with 1 <= K <= N.
    """
    if value is None:
        return None
    with suppress(ValueError):
        part = Part.parse(str(value))
        if part.number <= part.of:
            return part
    flag = "--doctor-sample"
    raise BadOption(f"{flag} {value} is not a part: give K/N with K from 1 to N, e.g. {flag} 2/7")


def parse_severities(lines: Iterable[str]) -> dict[str, Severity]:
    """Parse the lines of `doctor_severity`.

    Returns:
        The severities by the id of the rule.

    Raises:
        BadOption: A line has another form, or a rule is named twice.
    """
    found: dict[str, Severity] = {}
    for line in lines:
        name, _, text = line.partition(":")
        try:
            severity = Severity.parse(text)
        except ValueError as error:
            raise BadOption(
                f"doctor_severity {line!r} is not a severity: give RULE: error, warn, off or warn <= COUNT, "
                "e.g. embedding-missing: warn <= 10"
            ) from error
        if name.strip() in found:
            raise BadOption(f"doctor_severity names {name.strip()} twice: leave one of the two lines")
        found[name.strip()] = severity
    return found


def parse_dimension(value: object) -> int:
    """Parse the highest homology dimension; 2 if there is no value.

    Raises:
        BadOption: It is not 0, 1 or 2.
    """
    number = parse_int("--doctor-max-dim", value, least=0)
    if number is not None and number > 2:
        raise BadOption(f"--doctor-max-dim {number} is more than the file format holds: give 0, 1 or 2")
    return 2 if number is None else number


def parse_cosine(value: object) -> float | None:
    """Parse the least cosine between the vectors of a hook and stored ones.

    Returns:
        A number from 0 (no comparison) to 1; None if there is no value.

    Raises:
        BadOption: The text is not such a number.
    """
    if value in (None, "", []):
        return None
    try:
        number = float(str(value))
    except ValueError:
        number = -1
    if not 0 <= number <= 1:
        raise BadOption(f"doctor_embed_cosine {value} is not a cosine: give a number from 0 (no comparison) to 1")
    return number


def parse_running(value: object) -> float:
    """Parse the time after the last row for which an incomplete experiment counts as running.

    Returns:
        Seconds; 0 means that no experiment counts as running.

    Raises:
        BadOption: The text is not a time.
    """
    if value in (None, "", []):
        return HOUR
    return 0.0 if str(value).strip() == "0" else parse_duration("doctor_running", value) or HOUR


def parse_shard(value: object) -> Shard | None:
    """Parse `--doctor-shard`.

    Returns:
        The shard; None if there is no value.

    Raises:
        BadOption: The text is not `K/N` with 1 <= K <= N.
    """
    if value is None:
        return None
    try:
        shard = Shard.parse(str(value))
    except ValueError:
        shard = None
    if shard is None or max(shard.number, shard.of) > MOST_SHARDS:
        raise BadOption(f"--doctor-shard {value} is not K/N: give the shard's number and how many there are, e.g. 2/3")
    if shard.number > shard.of:
        of = shard.of
        raise BadOption(
            f"--doctor-shard {value} is beyond the last shard: there are {of:,}, so give 1/{of} to {of}/{of}"
        )
    return shard


def parse_cluster(given: object, engine: object) -> str | None:
    """Return the address of the Ray cluster, from the option or else from RAY_ADDRESS.

    Args:
        given: The value of `--doctor-ray`, or None.
        engine: The value of `--doctor-engine`, or None.

    Returns:
        The address, `local` for a local Ray; None if Ray is not used.

    Raises:
        BadOption: Ray is not installed.
    """
    if given is None and engine != RAY:
        return None
    if find_spec("ray") is None:
        flag = f"--doctor-engine {RAY}" if given is None else f"--doctor-ray {given}"
        raise BadOption(f"{flag} needs Ray, which is not installed: {install_extra('ray')}")
    return str(given or os.environ.get("RAY_ADDRESS") or "local")


def parse_report(path: Path) -> Path:
    """Check the path of a report; its suffix is its format.

    Raises:
        BadOption: The suffix is unknown, the path is a folder, or its folder is missing.
    """
    if path.suffix not in REPORT_SUFFIXES:
        allowed = ", ".join(REPORT_SUFFIXES)
        raise BadOption(f"--doctor-report {path} has no known suffix: end it in one of {allowed}")
    if path.is_dir():
        raise BadOption(f"--doctor-report {path} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise BadOption(f"--doctor-report {path} has no folder to be written to: make {path.parent} first")
    return path


REPORT_SUFFIXES = (".json", ".jsonl", ".html", ".md")
"""The suffixes of a report."""


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
