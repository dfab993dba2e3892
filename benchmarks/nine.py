"""The research tool's nine checks (`naive.py`) beside the doctor's rules for the same, on short runs and on long ones.

CPU seconds in one process, without pytest, warm; the least of `--times`, the ways in turn.

python benchmarks/nine.py                       # 1,000 runs of 40, 8 of 5,000; four embedding models
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import naive
from build import Shape, build
from production import by_doctor, by_query, timed
from shape import FOUR

SAME = sorted({name for names in naive.SAME.values() for name in names})
LIGHT = [name for name in SAME if name != "embedding-vector"]

SHAPES = {
    "1,000 runs of 40": Shape(1_000, 40, FOUR),
    "8 runs of 5,000": Shape(8, 5_000, FOUR, per_experiment=4),
}


def measured(path: Path, times: int) -> Sequence[float]:
    """CPU seconds: naive by SQLModel, naive in SQL, the rules, the rules without `embedding-vector`."""
    ways: Sequence[Callable[[], object]] = (
        lambda: by_query(path, naive.by_mapper),
        lambda: by_query(path, naive.by_columns),
        lambda: by_doctor(path, SAME),
        lambda: by_doctor(path, LIGHT),
    )
    rounds = [[timed(way).cpu for way in ways] for _ in range(times)]
    return [min(each) for each in zip(*rounds, strict=True)]


def main() -> None:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=None, help="where to build (default: a temporary folder)")
    args = parser.parse_args()
    print("| runs | SQLModel | SQL | the rules | without `embedding-vector` | SQLModel / rules | SQL / rules |")
    print("|---|---|---|---|---|---|---|")
    for name, shape in SHAPES.items():
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            path = build(Path(folder) / "x.sqlite", shape)
            mapped, in_sql, rules, light = measured(path, args.times)
        cells = [f"{seconds:.2f} s" for seconds in (mapped, in_sql, rules, light)]
        print(f"| {name} | {' | '.join(cells)} | {mapped / rules:.1f} x | {in_sql / rules:.1f} x |", flush=True)


if __name__ == "__main__":
    main()
