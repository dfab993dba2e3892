"""Complete the JUnit XML file that pytest writes.

pytest drops suite properties under xdist, and properties of a crashed item; and a `properties` element in a `testcase`
violates the schema of the family xunit2. So the file is completed after pytest has written it: names that group by
rule, suite properties, and for each item either `properties` (xunit1) or, in xunit2, lines `[[PROPERTY|name=value]]`
of `system-out`, which Testmo and others read and every schema allows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from pytest_panic_doctor.database.files import atomic_write
from pytest_panic_doctor.examination.manifest import item_name
from pytest_panic_doctor.examination.outcome import Result
from pytest_panic_doctor.formatting import printable
from pytest_panic_doctor.report.results import Results, json_head

if TYPE_CHECKING:
    from pytest_panic_doctor.examination.examination import Examination
    from pytest_panic_doctor.examination.manifest import Entry


def path_of(given: str | None) -> Path | None:
    """Return the file that pytest writes for `--junitxml GIVEN`; None if it writes none."""
    if not given:
        return None
    return Path(os.path.normpath(os.path.abspath(os.path.expanduser(os.path.expandvars(given)))))  # noqa: PTH100, PTH111


def enrich(path: Path, family: str, examination: Examination, results: Results) -> None:
    """Complete a JUnit file atomically.

    Args:
        path: The file.
        family: pytest's `junit_family`.
        examination: The session.
        results: Its results.
    """
    tree = ElementTree.parse(path)
    by_name = {item_name(item.nodeid): item for item in results.items}
    entries = {entry.name: entry for entry in examination.entries() if entry.name in by_name}
    database = examination.settings.database.name
    for suite in tree.iter("testsuite"):
        for case in suite.iter("testcase"):
            name = case.get("name", "")
            if name in by_name and case.get("classname", "").endswith(database):
                complete(case, by_name[name], entries.get(name), family)
        add_doubts(suite, results)
        prepend_properties(suite, suite_properties(examination, results))
    with atomic_write(path, like=examination.settings.database) as partial:
        tree.write(partial, encoding="utf-8", xml_declaration=True)


def add_doubts(suite: ElementTree.Element, results: Results) -> None:
    """Add a failed testcase for each reason why a session without a failed item is not green."""
    for place, doubt in enumerate(results.doubts, 1):
        name = {"classname": "doctor.session", "name": f"doubt {place}", "time": "0"}
        case = ElementTree.SubElement(suite, "testcase", name)
        ElementTree.SubElement(case, "failure", {"message": clean(doubt)}).text = clean(doubt)
        for key in ("tests", "failures"):
            suite.set(key, str(int(suite.get(key, "0")) + 1))


def complete(case: ElementTree.Element, item: Result, entry: Entry | None, family: str) -> None:
    """Group one testcase by its rule, and add its properties; its name has rule and subject already."""
    case.set("classname", f"doctor.{item.rule}")
    properties = {key: clean(value) for key, value in item_properties(item, entry)}
    if family == "xunit2":
        lines = "\n".join(f"[[PROPERTY|{key}={value}]]" for key, value in properties.items())
        ElementTree.SubElement(case, "system-out").text = lines + "\n"
    else:
        prepend_properties(case, properties)


def item_properties(item: Result, entry: Entry | None) -> Iterator[tuple[str, object]]:
    """Yield the properties of one item."""
    yield "rule", item.rule
    yield "outcome", item.status
    if entry is not None:
        for key in ("experiment", "run", "embedding_model"):
            if value := getattr(entry.subject, key):
                yield key, value
    yield "findings", len(item.findings)
    yield "count", sum(finding.count for finding in item.findings)
    if item.accepted:
        yield "accepted", sum(finding.count for finding in item.accepted)
        yield "accepted_by", item.accepted_by
    yield from item.measures.items()
    if item.note:
        yield "note", item.note


def suite_properties(examination: Examination, results: Results) -> Mapping[str, str]:
    """Return the properties of the suite."""
    plain = json_head(examination, results)
    flat = {"doctor.version": plain["version"], "doctor.database": plain["database"]}
    flat |= {"doctor.generation": examination.origin} if examination.origin else {}
    for group in ("rows", "totals", "rules"):
        counts = plain[group]
        if isinstance(counts, Mapping):
            flat |= {f"doctor.{group}.{name}": value for name, value in counts.items()}
    return {key: clean(value) for key, value in flat.items()}


def prepend_properties(element: ElementTree.Element, properties: Mapping[str, str]) -> None:
    """Insert properties at the start of an element, or into its own `properties`."""
    node = element.find("properties")
    if node is None:
        node = ElementTree.Element("properties")
        element.insert(0, node)
    for name, value in properties.items():
        ElementTree.SubElement(node, "property", {"name": name, "value": value})


def clean(value: object) -> str:
    """Format a value for XML, on one line."""
    return printable(str(value))
