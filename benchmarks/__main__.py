"""Measure what runs cost beside loops by hand and Avalanche's strategies.

    python -m benchmarks --quick                        # everything, small, in two minutes
    python -m benchmarks --only split-mnist --rounds 7  # one case
    python -m benchmarks --write                        # everything; takes about an hour
    python -m benchmarks --write --rounds 0             # only the document, of the file

Figures go into a JSON file, case by case, and --write makes docs/performance.md of it. Cases that
are not measured again keep what they have there. Figures of --quick are for a look: they are
printed, and written only where --json says so.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from benchmarks.cases import CASES

DOCS = Path(__file__).parent.parent / "docs"


def main() -> None:
    given = _arguments()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
    import torch

    from benchmarks.measure import Effort
    from benchmarks.performance import Report

    torch.set_num_threads(1)
    effort = Effort(given.rounds, "quick" if given.quick else "full")
    report = Report(given.json or (None if given.quick else DOCS / "performance.json"))
    for name in (given.only or CASES) if given.rounds else ():
        print(f"measuring {name}", file=sys.stderr, flush=True)
        report.measure(name, effort)
        print("\n".join(report.section(name)), flush=True)
    if given.write:
        (DOCS / "performance.md").write_text(report.document(), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", action="append", choices=CASES, metavar="NAME", help=f"of {', '.join(CASES)}"
    )
    parser.add_argument("--quick", action="store_true", help="small problems and few rounds")
    parser.add_argument(
        "--rounds", type=int, help="that count (2 with --quick, else 5); 0 measures nothing"
    )
    parser.add_argument("--json", type=Path, help="file of figures (docs/performance.json)")
    parser.add_argument("--write", action="store_true", help="make docs/performance.md of the file")
    given = parser.parse_args()
    if given.rounds is None:
        given.rounds = 2 if given.quick else 5
    if given.rounds < 0:
        parser.error(f"--rounds {given.rounds}: give 1 or more, or 0 to measure nothing")
    if given.quick and given.write:
        parser.error("figures of --quick are for a look and in no document: leave out one of both")
    return given


if __name__ == "__main__":
    main()
