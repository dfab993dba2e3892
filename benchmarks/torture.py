"""Kills `--doctor-fix -n 2` at many seeded moments: nothing is lost, and the next run ends as an undisturbed one.

python benchmarks/torture.py               # 500 kills of controller, worker or child, about an hour
python benchmarks/torture.py --kills 50
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from killing import command, essence, sick, strike


def main() -> None:
    """Kill, check, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        template = sick(folder / "template.sqlite").path
        whole = sick(folder / "whole.sqlite").path
        begun = time.monotonic()
        subprocess.run(command(whole), cwd=folder, check=True, stdout=subprocess.DEVNULL)
        longest = time.monotonic() - begun
        expected = essence(whole)
        struck: Counter[tuple[str, bool]] = Counter()
        begun = time.monotonic()
        for seed in range(args.seed, args.seed + args.kills):
            verdict = strike(folder / "x.sqlite", template, expected, seed, longest)
            struck[verdict.target, verdict.running] += 1
            done = seed - args.seed + 1
            if not done % 50:
                print(f"{done:,} of {args.kills:,} kills, nothing lost", flush=True)
    print(f"{args.kills:,} kills in {time.monotonic() - begun:,.0f} s, moments up to {longest:.1f} s, seed {args.seed}")
    print(f"{'killed':<12}{'while running':>15}{'after the end':>15}")
    for target in ("controller", "worker", "child"):
        print(f"{target:<12}{struck[target, True]:>15,}{struck[target, False]:>15,}")
    print("lost rows 0, broken files 0, other end states 0")


if __name__ == "__main__":
    main()
