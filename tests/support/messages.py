"""Every message of the product, once: to be read line by line, and asked whether a word is in it.

    python tests/support/messages.py

What the rules say of damage is what they really say; everything else is printed as the code has it, with `{…}` for what
is put in. Docstrings are left out; `documented` gives those.
"""

from __future__ import annotations

import ast
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest_panic_doctor
from pytest_panic_doctor.rules import registry

PACKAGE = Path(pytest_panic_doctor.__file__).parent
SQL = re.compile(
    r"^\W*(SELECT|WITH|PRAGMA|CREATE|INSERT|UPDATE|DELETE|DROP|ALTER|ATTACH|BEGIN|EXISTS|CASE|coalesce|NOT EXISTS)\b"
    r"|\b(FROM|WHERE|JOIN|IS NOT|IS NULL|typeof|instr|ORDER BY|GROUP BY|UNION)\b"
)
"""Text for SQLite: nobody reads it."""

BANNED = re.compile(
    r"\b(one that is none|that (is|are) none|for want of|meanwhile|whatever|said|told|heard|(come|comes|came) to)\b"
    r"|\b(is|are) no (blob|text|rule|time|number|UUID|array|list)\b|\bleave \S+ away\b",
    re.IGNORECASE,
)
"""What no message says: words that are not plain standard English where they stood."""

KINDS = {
    "usage errors": {"BadOption", "BadBaseline", "BadRule", "DuplicateRule", "NotMergeable", "NoCluster", "Unreadable"},
    "repairs refused": {"RepairNotPossible", "RepairRefused", "RepairFailed", "RepairError", "NotPossible", "Stale"},
    "items skipped": {"NotApplicable", "CannotTell", "NotExaminable"},
}
"""Sections of what is raised, by the name of the exception."""


@dataclass(frozen=True)
class Message:
    """A text of the code: where it is, and the exception that is raised with it, empty where none is."""

    path: str
    line: int
    text: str
    raised: str = ""


def literal(node: ast.AST) -> str | None:
    """A text of the code, `{…}` for what is put into it; None where the node is no text."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(literal(part) or "{" + ast.unparse(part.value) + "}" for part in node.values)  # type: ignore[attr-defined]
    return None


def documentation(tree: ast.AST) -> set[int]:
    """The ids of the nodes that are docstrings: a text that is a statement."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and literal(node.value) is not None}


def sources() -> Iterator[tuple[str, ast.AST]]:
    """The package's modules."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text())


def messages() -> Iterator[Message]:
    """Every text of the code that is a message: of two words at least, and not for SQLite."""
    for path, tree in sources():
        passed = documentation(tree)
        raised: dict[int, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise) and node.exc is not None:
                call = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
                raised |= {id(inner): ast.unparse(call).split(".")[-1] for inner in ast.walk(node)}
        for node in ast.walk(tree):
            if id(node) in passed or (text := literal(node)) is None:
                continue
            passed |= {id(inner) for inner in ast.walk(node)}
            if len(re.findall(r"[A-Za-z]{2,}", text)) > 1 and " " in text.strip() and not SQL.search(text):
                yield Message(path, node.lineno, " ".join(text.split()), raised.get(id(node), ""))  # type: ignore[attr-defined]


def documented() -> Iterator[Message]:
    """Every docstring of the package."""
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and (text := literal(node.value)) is not None:
                yield Message(path, node.lineno, text)


def page() -> Iterator[Message]:
    """What the HTML page says by itself: the lines of its template, and the texts of its scripts."""
    folder = PACKAGE / "report" / "html"
    for path in (folder / "page.html", *sorted((folder / "script").glob("*.js"))):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            code = re.sub(r"^\s*(//|\*|/\*).*", "", line)
            for text in re.findall(
                r"[\"'`]([^\"'`]*\w \w[^\"'`]*)[\"'`]" if path.suffix == ".js" else r">([^<>]+)", code
            ):
                if len(re.findall(r"[A-Za-z]{2,}", text)) > 1:
                    yield Message(path.relative_to(PACKAGE).as_posix(), number, text.strip())


def rules() -> Iterator[str]:
    """What each rule says of itself."""
    for rule in registry().values():
        yield f"{rule.id}: {rule.description}; remedy: {rule.manual_fix}"


def found(names: Collection[str] | None = None) -> Iterator[str]:
    """What the rules find in each kind of damage that the tests plant, or in those that are named."""
    from databases import build
    from defects import DAMAGES
    from examine_item import examine

    for name, damage in DAMAGES.items():
        if names is not None and name not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            built = build(Path(folder, "x.sqlite"), older=damage.older)
            with built.open() as db:
                damage.plant(db, built)
            for rule, outcomes in examine(built, damage.rule).items():
                for finding in (finding for outcome in outcomes for finding in outcome.findings):
                    yield f"{rule}, {name}: {finding.message}"


def banned(every: Iterable[Message]) -> Iterator[Message]:
    """Those that say what no message says, what is put into them left out."""
    for each in every:
        if BANNED.search(re.sub(r"\{[^{}]*\}", "{}", each.text)):
            yield each


def sections(damages: Collection[str] | None = None) -> Iterator[tuple[str, list[str]]]:
    """All of them, each text once, by what they are; of the findings those of all kinds of damage, or of these."""
    every = [*messages(), *page()]
    yield "rules", list(rules())
    yield "findings", list(dict.fromkeys(found(damages)))
    for title, names in KINDS.items():
        yield title, shown([each for each in every if each.raised in names])
    named = set().union(*KINDS.values())
    yield "other errors", shown([each for each in every if each.raised and each.raised not in named])
    yield "everything else", shown([each for each in every if not each.raised])


def shown(found: list[Message]) -> list[str]:
    """Each text once, with its first place."""
    first: dict[str, Message] = {}
    for each in found:
        first.setdefault(each.text, each)
    return [f"{each.path}:{each.line}: {each.text}" for each in first.values()]


def main() -> None:
    """Print them."""
    for title, lines in sections():
        print(f"\n## {title} ({len(lines):,})\n")
        print("\n".join(lines))


if __name__ == "__main__":
    main()
