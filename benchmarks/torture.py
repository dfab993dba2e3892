"""What repairs promise, for as long as one likes: kills, other programs that write, and very many rows.

    python benchmarks/torture.py                             # all: 500 kills take an hour or two
    python benchmarks/torture.py --part kills --kills 50
    python benchmarks/torture.py --part kills --generation elixir
    python benchmarks/torture.py --part writers --part rows  # a few minutes

`kills`: `--doctor-fix -n 2` on a database with 40 defects, SIGKILL to its controller, a worker or a child at seeded
moments; every original row is in the database or in the journal, byte for byte, the file is whole, and the next run
ends as an undisturbed one. `between`: repairs killed
between COMMIT and mark, before COMMIT or at any statement, another program that reuses the ids and rowids of what was
removed, and in two of five a bit of the journal flipped: all comes back, or an undo names what does not. `writers`: how
long two other programs are kept waiting while two workers quarantine.
`rows`: 100,000 embeddings quarantined and undone. A promise that is broken ends it with an AssertionError.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from concurrent_writers import DOCTOR, HAMMER, REPAIRS, fill, start
from intruders import Blow, intrude
from kill_harness import command, essence, sick, sick_elixir, strike
from small_database import SmallDatabase, build


def kills(folder: Path, args: argparse.Namespace) -> None:
    """Kill, check, count."""
    template, whole = folder / "template.sqlite", folder / "whole.sqlite"
    sick_elixir(template) if args.generation == "elixir" else sick(template)
    shutil.copy(template, whole)
    begun = time.monotonic()
    subprocess.run(command(whole), cwd=folder, check=True, stdout=subprocess.DEVNULL)
    longest = time.monotonic() - begun
    expected = essence(whole)
    struck: Counter[tuple[str, bool]] = Counter()
    begun = time.monotonic()
    for seed in range(args.seed, args.seed + args.kills):
        verdict = strike(folder / "x.sqlite", template, expected, seed, longest)
        struck[verdict.target, verdict.running] += 1
        if not struck.total() % 25:
            print(f"  {struck.total():,} of {args.kills:,} kills, nothing lost", flush=True)
    print(f"{args.kills:,} kills in {time.monotonic() - begun:,.0f} s, moments up to {longest:.1f} s, seed {args.seed}")
    print(f"{'killed':<12}{'while running':>15}{'after the end':>15}")
    for target in ("controller", "worker", "child"):
        print(f"{target:<12}{struck[target, True]:>15,}{struck[target, False]:>15,}")
    print("lost rows 0, broken files 0, other end states 0")


def between(folder: Path, args: argparse.Namespace) -> None:
    """Kill between commits, reuse ids, flip bits, count."""
    template = folder / "template.sqlite"
    build(template)
    begun, done = time.monotonic(), Counter[Blow]()
    for seed in range(args.seed, args.seed + args.kills):
        done[intrude(folder / "x.sqlite", template, seed)] += 1
    print(f"{args.kills:,} kills between commits in {time.monotonic() - begun:,.0f} s, seed {args.seed}")
    print(f"{'killed':<11}{'kills':>7}{'ids reused':>12}{'bits flipped':>14}{'of these refused by name':>26}")
    for point in ("mark", "commit", "statement"):
        blows = [blow for blow in done.elements() if blow.point == point]
        reused, flipped = sum(blow.reused != "nothing" for blow in blows), sum(blow.flipped for blow in blows)
        refused = sum(blow.refused for blow in blows)
        print(f"{point:<11}{len(blows):>7,}{reused:>12,}{flipped:>14,}{refused:>26,}")
    print("rows lost without a word 0, wrong rows 0, broken files 0")


def writers(folder: Path, args: argparse.Namespace) -> None:
    """Two programs insert runs, without a pause to speak of, while two workers quarantine `--rows` embeddings."""
    print(f"{'journal mode':<14}{'rows written':>14}{'worst wait':>12}{'quarantined':>13}{'in':>8}")
    for mode in ("delete", "wal"):
        path = folder / f"writers-{mode}.sqlite"
        build(path, journal_mode=mode)
        small_database = SmallDatabase(path)
        fill(small_database, args.rows)
        hammers = [start(HAMMER, path, who, args.rows / 2_000) for who in "ab"]
        for hammer in hammers:
            assert hammer.stdout is not None
            hammer.stdout.readline()
            assert hammer.stdin is not None
            hammer.stdin.write("\n")
            hammer.stdin.flush()
        begun = time.monotonic()
        doctors = [start(DOCTOR, path, half) for half in (0, 1)]
        taken = sum(int(examination.communicate()[0]) for examination in doctors)
        seconds = time.monotonic() - begun
        told = [hammer.communicate()[0].split() for hammer in hammers]
        written, worst = sum(int(each[0]) for each in told), max(float(each[1]) for each in told)
        assert taken == args.rows
        assert small_database.values("SELECT count(*) FROM run WHERE network = '[]'") == [written]
        print(f"{mode:<14}{written:>14,}{worst:>10.2f} s{taken:>13,}{seconds:>6.1f} s", flush=True)


def rows(folder: Path, args: argparse.Namespace) -> None:
    """`--rows` embeddings of 3,072 bytes, quarantined, undone, and the undo undone."""
    path = folder / "rows.sqlite"
    build(path)
    fill(SmallDatabase(path), args.rows)
    done = json.loads(start(REPAIRS, path).communicate()[0])
    assert done["rows"] == [args.rows] * 3
    print(
        f"{args.rows:,} rows quarantined in {done['seconds']:.1f} s in {done['batches']:,} batches, "
        f"undone in {done['seconds of undo']:.1f} s, peak {done['peak'] / 1e6:.0f} MB"
    )


PARTS: Mapping[str, Callable[[Path, argparse.Namespace], None]] = {
    "rows": rows,
    "writers": writers,
    "kills": kills,
    "between": between,
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append", help="this part alone; may be repeated")
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--generation", choices=("python", "elixir"), default="python", help="of the kills' database")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for part in args.part or PARTS:
        with tempfile.TemporaryDirectory() as name:
            PARTS[part](Path(name), args)


if __name__ == "__main__":
    main()
