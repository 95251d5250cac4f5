"""Reference results: our numbers beside published ones, over several seeds.

Prints a table and, with --write, puts it into docs/reference_results.md. Results are kept under
--out, so that an interrupted table goes on where it was.

    python benchmarks/reference.py --write
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).parent.parent / "docs" / "reference_results.md"
START, END = "<!-- table: start -->", "<!-- table: end -->"


@dataclass(frozen=True)
class Row:
    """One published number and the settings that should reproduce it.

    Args:
        at_least: whether any higher value is as good.
    """

    what: str
    published: float
    tolerance: float
    source: str
    settings: dict[str, Any]
    at_least: bool = False
    metric: str = "average_accuracy"
    seeds: int = 5
    extra: dict[str, Any] = field(default_factory=dict)

    def command(self) -> str:
        flags = [f"--{k.replace('_', '-')} {v}" for k, v in self.settings.items()]
        flags += [f"--set {k}={v}" for k, v in self.extra.items()]
        return "clp run " + " ".join(flags)

    def run(self, seed: int, out: Path) -> float:
        from cl_platform.config import apply_settings, parse_config, with_flags
        from cl_platform.execution import execute
        from cl_platform.plan import make_plan

        data = with_flags({}, {**self.settings, "seed": seed})
        data = apply_settings(data, [f"{k}={v}" for k, v in self.extra.items()])
        result = execute(make_plan(parse_config(data)), out, keep="none")
        return result.metrics[self.metric]

    def holds(self, mean: float) -> bool:
        low = mean >= self.published - self.tolerance
        return low and (self.at_least or mean <= self.published + self.tolerance)


ONE_PASS = {"epochs": 1, "batch_size": 10, "lr": 0.1}
ROWS = [
    Row(
        "Split-MNIST class-IL, online ER, memory 1000",
        0.92,
        0.02,
        "continual-learning-baselines",
        {"stream": "split-mnist", "strategy": "er", **ONE_PASS},
        extra={"strategy.memory_size": 1000},
    ),
    Row(
        "Split-MNIST class-IL, fine-tuning",
        0.20,
        0.01,
        "van de Ven & Tolias 2019 (0.1994)",
        {"stream": "split-mnist", "strategy": "finetune", **ONE_PASS},
    ),
    Row(
        "Split-MNIST class-IL, joint",
        0.975,
        0.0,
        "van de Ven & Tolias 2019 (0.976 to 0.98)",
        {"stream": "split-mnist", "strategy": "joint", "epochs": 5, "batch_size": 128, "lr": 0.1},
        at_least=True,
    ),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("clp-results"))
    parser.add_argument("--write", action="store_true", help="update docs/reference_results.md")
    arguments = parser.parse_args()
    lines = [
        "| setting | published | measured (mean, sd) | seeds | each seed | holds |",
        "|---|---|---|---|---|---|",
    ]
    commands = []
    for row in ROWS:
        values = [row.run(seed, arguments.out) for seed in range(row.seeds)]
        mean = statistics.fmean(values)
        limit = (
            "at least " * row.at_least
            + f"{row.published:g}"
            + f" ± {row.tolerance:g}" * (not row.at_least)
        )
        each = ", ".join(f"{v:.4f}" for v in values)
        lines.append(
            f"| {row.what} | {limit} ({row.source}) | {mean:.4f}, {statistics.stdev(values):.4f} "
            f"| 0 to {row.seeds - 1} | {each} | {'yes' if row.holds(mean) else 'NO'} |"
        )
        commands.append(f"    {row.command()} --seed N")
        print(lines[-1], flush=True)
    if arguments.write:
        text = DOCUMENT.read_text(encoding="utf-8")
        before, rest = text.split(START)
        _, after = rest.split(END)
        table = "\n".join(
            [START, "", *lines, "", "Commands, in the same order:", "", *commands, "", END]
        )
        DOCUMENT.write_text(before + table + after, encoding="utf-8")


if __name__ == "__main__":
    main()
