"""The cumulative tables of docs/fscil_results.md: which tricks help in few-shot sessions?

Runs examples/fscil_omniglot.yaml and examples/fscil_clinc150.yaml one run after another, and puts
the tables into the document with --write. What is under --out already is not run again.

    python -m benchmarks.fscil --write
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import ray

from benchmarks.document import write_table
from cl_platform.metrics import few_shot
from cl_platform.results.load import read_results
from cl_platform.results.result import Result
from sweeps.api import sweep
from sweeps.spec import read_spec

EXAMPLES = Path(__file__).parent.parent / "examples"
SPECS = ("fscil_omniglot", "fscil_clinc150")
COLUMNS = {
    "base session": lambda r: few_shot.session_accuracies(r)[0],
    "last session": few_shot.few_shot_last_accuracy,
    "PD": few_shot.few_shot_performance_drop,
    "base": few_shot.few_shot_base_accuracy,
    "new": few_shot.few_shot_new_accuracy,
    "HM": few_shot.few_shot_harmonic_mean,
}
DEFAULTS = {"pseudo_classes": 1, "subnet": 0.0, "self_supervised": 0}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("clp-results/fscil"))
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    ray.init(address="local", include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    for name in SPECS:
        sweep(read_spec(EXAMPLES / f"{name}.yaml"), out=arguments.out / name)
        lines = table(read_results(arguments.out / name))
        print(*lines, "", sep="\n")
        if arguments.write:
            write_table(name, "fscil_results.md", lines)


def table(results: Iterable[Result]) -> list[str]:
    """Return a row for each combination of switches: means and standard deviations in percent."""
    found = defaultdict(list)
    for result in results:
        found[switches(result)].append([100 * column(result.matrix) for column in COLUMNS.values()])
    lines = ["| switches | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for on, rows in sorted(found.items(), key=place):
        cells = [f"{fmean(c):.1f} ± {stdev(c):.1f}" for c in zip(*rows, strict=True)]
        lines.append(f"| {', '.join(on) or 'none'} | " + " | ".join(cells) + " |")
    return lines


def switches(result: Result) -> tuple[str, ...]:
    """Return which switches a run has on, in the order of the table."""
    given: dict[str, Any] = result.config["strategy"]
    on = []
    for name in ORDER:
        value = given.get(name, DEFAULTS.get(name, False))
        if value != DEFAULTS.get(name, False):
            on.append(name if value is True else f"{name}={value:g}")
    return tuple(on)


ORDER = ("contrastive", "etf", "pseudo_classes", "subnet", "self_supervised", "rotation")


def place(item: tuple[tuple[str, ...], Any]) -> tuple[bool, int]:
    """Sort cumulative rows before those of a single switch, both in the order of the table."""
    on = [name.partition("=")[0] for name in item[0]]
    alone = len(on) == 1 and on[0] != ORDER[0]
    return alone, ORDER.index(on[0]) if alone else len(on)


if __name__ == "__main__":
    main()
