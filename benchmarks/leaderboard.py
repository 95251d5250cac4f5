"""A small leaderboard of which every row was trained twice: docs/leaderboard.md.

Each row is a run whose record lies in docs/leaderboard/runs. The script makes the records, trains
each of them again with what `clp verify` does, and writes the table only if all come out equal.

    python benchmarks/leaderboard.py --write    # about a minute of one core
    python benchmarks/leaderboard.py            # verifies the records that are there
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from document import DOCS, write_table

RECORDS = DOCS / "leaderboard"
SCENARIOS = ("class", "task")
STRATEGIES = ("finetune", "ewc", "lwf", "er", "er-ace", "der++", "joint")
SETTINGS: dict[str, Any] = {
    "epochs": 3,
    "optimizer": {"lr": 0.03},
    "threads": 1,  # the bits are promised for the same number
}


def make(out: Path) -> list[Any]:
    """Train all rows and write their records."""
    import cl_platform as clp

    results = []
    for scenario in SCENARIOS:
        for strategy in STRATEGIES:
            stream = {"name": "split-digits", "scenario": scenario}
            results.append(clp.run(stream, strategy, out=out, keep="none", **SETTINGS))
    shutil.rmtree(RECORDS, ignore_errors=True)
    for result in results:
        result.save(RECORDS / "runs" / result.run_id)
    return results


def lines(results: list[Any]) -> list[str]:
    """The table: class-incremental first, the best of each scenario first."""
    head = ["scenario", "strategy", "average accuracy", "forgetting", "verify with"]
    rows = ["| " + " | ".join(head) + " |", "|---|---|---|---|---|"]

    def place(result: Any) -> tuple[int, float]:
        return SCENARIOS.index(result.scenario), -result.metrics["average_accuracy"]

    for result in sorted(results, key=place):
        forgetting = result.metrics["forgetting"]
        cells = [
            result.scenario,
            f"`{result.config['strategy']['name']}`",
            f"{100 * result.metrics['average_accuracy']:.2f} %",
            f"{100 * forgetting:.2f} %",
            f"`clp verify docs/leaderboard/runs/{result.run_id}`",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="make records and table anew")
    given = parser.parse_args()

    from cl_platform.deploy.verification import verify
    from cl_platform.results.load import read_results

    with tempfile.TemporaryDirectory() as folder:
        results = make(Path(folder)) if given.write else read_results(RECORDS)
    failed = False
    for result in results:
        found = verify(RECORDS / "runs" / result.run_id)
        print(f"{result.run_id} {result.config['strategy']['name']}: {found.lines()[-1]}")
        failed |= not found.equal
    if failed:
        sys.exit("a row did not come out equal: no table is written")
    if given.write:
        write_table("leaderboard", "leaderboard.md", lines(results))


if __name__ == "__main__":
    main()
