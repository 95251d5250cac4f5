"""CPU time of `clp --help` beyond that of `python -c pass`, medians of interleaved runs.

python benchmarks/startup.py --rounds 9
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

HELP = ["-c", "from cl_platform.cli.app import main; main(['--help'])"]


def cpu_seconds(arguments: list[str]) -> float:
    before = os.times()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return (after.children_user - before.children_user) + (
        after.children_system - before.children_system
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    extra = []
    for _ in range(rounds):
        nothing, shown = cpu_seconds(["-c", "pass"]), cpu_seconds(HELP)
        extra.append(shown - nothing)
    print(
        f"clp --help, CPU seconds beyond python: median {statistics.median(extra):.3f} "
        f"({min(extra):.3f} to {max(extra):.3f}, {rounds} rounds)"
    )


if __name__ == "__main__":
    main()
