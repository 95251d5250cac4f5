"""The cumulative tables of docs/fscil_results.md: which tricks help in few-shot sessions?

Runs examples/fscil_omniglot.yaml and examples/fscil_clinc150.yaml one run after another, and puts
the tables into the document with --write. What is under --out already is not run again.

    python -m benchmarks.fscil --write
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Mapping
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
SWITCHES = {  # and what they are when they are off
    "contrastive": False,
    "etf": False,
    "pseudo_classes": 1,
    "subnet": 0.0,
    "self_supervised": 0,
    "rotation": False,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("clp-results/fscil"))
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    ray.init(address="local", include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    for name in SPECS:
        spec = read_spec(EXAMPLES / f"{name}.yaml")
        done = sweep(spec, out=arguments.out / name)
        lines = table(spec["axes"]["strategy"], read_results(done.path, done.results()["run_id"]))
        print(*lines, "", sep="\n")
        if arguments.write:
            write_table(name, "fscil_results.md", lines)


def table(strategies: Iterable[Mapping[str, Any]], results: Iterable[Result]) -> list[str]:
    """Return a row for each strategy of a sweep: means and standard deviations in percent."""
    found = defaultdict(list)
    for result in results:
        values = [100 * column(result.matrix) for column in COLUMNS.values()]
        found[switches(result.config["strategy"])].append(values)
    lines = ["| switches | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for on in map(switches, strategies):
        cells = [f"{fmean(c):.1f} ± {stdev(c):.1f}" for c in zip(*found[on], strict=True)]
        lines.append(f"| {on or 'none'} | " + " | ".join(cells) + " |")
    return lines


def switches(given: Mapping[str, Any]) -> str:
    """Return which switches are on, in the order of the table."""
    values = {name: given.get(name, off) for name, off in SWITCHES.items()}
    on = {name: value for name, value in values.items() if value != SWITCHES[name]}
    return ", ".join(name if value is True else f"{name}={value:g}" for name, value in on.items())


if __name__ == "__main__":
    main()
