"""Reference results: our numbers beside published ones, over several seeds.

Prints a table and, with --write, puts the rows measured into docs/reference_results.md. Results
are kept under --out, so that an interrupted table goes on where it was.

    python benchmarks/reference.py --write --jobs 2
"""

from __future__ import annotations

import argparse
import os
import statistics
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from document import table, write_table

HEAD = (
    "| setting | published | measured (mean, sd) | seeds | each seed | holds |",
    "|---|---|---|---|---|---|",
)


@dataclass(frozen=True)
class Row:
    """One published number and the settings that should reproduce it.

    Args:
        at_least: whether any higher value is as good.
        extra: dotted settings; a value N is the seed.
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
        return "clp run " + " ".join(flags) + " --seed N"

    def run(self, seed: int, out: Path) -> float:
        """The metric of one seed; kept in `out`."""
        from cl_platform.config.run_config import apply_settings, parse_config, with_flags
        from cl_platform.engine.execution import execute
        from cl_platform.engine.planner import make_plan

        data = with_flags({}, {**self.settings, "seed": seed})
        data = apply_settings(
            data, [f"{k}={v}".replace("=N", f"={seed}") for k, v in self.extra.items()]
        )
        result = execute(make_plan(parse_config(data)), out, keep="last")
        return result.metrics[self.metric]

    def holds(self, mean: float) -> bool:
        low = mean >= self.published - self.tolerance
        return low and (self.at_least or mean <= self.published + self.tolerance)


BASELINES = "continual-learning-baselines"
VAN_DE_VEN = "van de Ven et al. 2022"

ONE_PASS = {"epochs": 1, "batch_size": 10, "lr": 0.1}
# 21 epochs are about 2000 steps per experience; Adam is kept from one experience to the next.
SPLIT = {"stream": "split-mnist", "epochs": 21, "batch_size": 128, "lr": 0.001}
ADAM = {"optimizer.name": "adam", "optimizer.reset": "false"}
# Their classes are paired at random for every seed (N), their inputs lie in [0, 1], and the classes
# seen so far compete in the loss.
AMONG_SEEN = {**SPLIT, "loss_classes": "seen"}
SHUFFLED = {**ADAM, "stream.class_seed": "N", "stream.normalise": "false"}
PERMUTED = {"stream": "permuted-mnist", "epochs": 10, "batch_size": 256, "lr": 0.001}
# 20 tasks, inputs in [0, 1], one epoch, and the best arguments of Mammoth for each method.
MAMMOTH = "Mammoth"
TWENTY = {"stream": "permuted-mnist", "epochs": 1, "batch_size": 128, "lr": 0.2}
UNIT = {
    "stream.experiences": 20,
    "stream.normalise": "false",
    "model.hidden": "[100,100]",
}

ROWS = [
    Row(
        "Split-MNIST class-IL, online ER, memory 1000",
        0.92,
        0.02,
        BASELINES,
        {"stream": "split-mnist", "strategy": "er", **ONE_PASS},
        extra={"strategy.memory_size": 1000},
    ),
    Row(
        "Split-MNIST class-IL, MIR, memory 500, 1000 samples per experience, MLP 400",
        0.87,
        0.03,
        BASELINES,
        {"stream": "split-mnist", "strategy": "mir", "epochs": 1, "batch_size": 10, "lr": 0.05},
        extra={
            "strategy.memory_size": 500,
            "stream.samples": 1000,
            "model.hidden": "[400]",
        },
    ),
    Row(
        "Split-MNIST class-IL, LwF, MLP 200 (tanh), SGD",
        0.23,
        0.03,
        BASELINES,
        {**SPLIT, "strategy": "lwf"},
        extra={
            "strategy.alpha": "[0,0.5,1.33333,2.25,3.2]",
            "strategy.balance": "true",
            "model.hidden": "[200]",
            "model.activation": "tanh",
            "stream.class_seed": "N",
        },
    ),
    Row(
        "Split-MNIST task-IL, SI, MLP 256-256, Adam",
        0.97,
        0.03,
        BASELINES,
        {**SPLIT, "strategy": "si", "scenario": "task", "epochs": 10, "batch_size": 64},
        extra={
            **ADAM,
            "strategy.damping": 0.001,
            "strategy.ceiling": 0.001,
            "model.hidden": "[256,256]",
        },
        seeds=3,
    ),
    Row(
        "Split-MNIST class-IL, fine-tuning",
        0.1994,
        0.01,
        VAN_DE_VEN,
        {**AMONG_SEEN, "strategy": "finetune"},
        extra=SHUFFLED,
        seeds=3,
    ),
    Row(
        "Split-MNIST task-IL, fine-tuning",
        0.84,
        0.03,
        VAN_DE_VEN,
        {**SPLIT, "strategy": "finetune", "scenario": "task"},
        extra=SHUFFLED,
        seeds=5,
    ),
    Row(
        "Split-MNIST domain-IL, fine-tuning",
        0.60,
        0.03,
        VAN_DE_VEN,
        {**SPLIT, "strategy": "finetune", "scenario": "domain"},
        extra=SHUFFLED,
        seeds=5,
    ),
    Row(
        "Split-MNIST class-IL, EWC",
        0.1993,
        0.01,
        VAN_DE_VEN,
        {**AMONG_SEEN, "strategy": "ewc"},
        extra={**SHUFFLED, "strategy.strength": 100},
        seeds=3,
    ),
    Row(
        "Split-MNIST class-IL, SI",
        0.1995,
        0.01,
        VAN_DE_VEN,
        {**AMONG_SEEN, "strategy": "si"},
        extra=SHUFFLED,
        seeds=3,
    ),
    Row(
        "Split-MNIST class-IL, LwF, Adam",
        0.24,
        0.03,
        VAN_DE_VEN,
        {**AMONG_SEEN, "strategy": "lwf"},
        extra={
            **SHUFFLED,
            "strategy.alpha": "[0,2,2.66667,3,3.2]",
            "strategy.balance": "true",
            "strategy.rivals": "seen",
            "optimizer.reset": "true",
        },
        seeds=3,
    ),
    Row(
        "Split-MNIST class-IL, ER, 100 per class",
        0.895,
        0.03,
        f"{VAN_DE_VEN} (0.89 to 0.90)",
        {**AMONG_SEEN, "strategy": "er"},
        extra={**SHUFFLED, "strategy.memory_size": 1000, "strategy.memory": "ring"},
        seeds=3,
    ),
    Row(
        "Split-MNIST class-IL, iCaRL, 100 per class at the end",
        0.925,
        0.03,
        f"{VAN_DE_VEN} (0.92 to 0.93)",
        {**AMONG_SEEN, "strategy": "icarl"},
        extra={**SHUFFLED, "strategy.memory_size": 1000},
        seeds=3,
    ),
    Row(
        "Split-MNIST class-IL, joint",
        0.975,
        0.0,
        f"{VAN_DE_VEN} (0.976 to 0.98)",
        {"stream": "split-mnist", "strategy": "joint", "epochs": 5, "batch_size": 128, "lr": 0.1},
        at_least=True,
    ),
    Row(
        "Permuted-MNIST 10, EWC, MLP 512, SGD",
        0.83,
        0.03,
        BASELINES,
        {**PERMUTED, "strategy": "ewc"},
        extra={
            "strategy.strength": 2,
            "strategy.fisher": "batch",
            "strategy.fisher_samples": "null",
            "model.hidden": "[512]",
        },
        seeds=3,
    ),
    Row(
        "Permuted-MNIST 10, SI, MLP 1000, Adam",
        0.83,
        0.03,
        BASELINES,
        {**PERMUTED, "strategy": "si"},
        extra={
            **ADAM,
            "strategy.strength": 10,
            "strategy.damping": 0.1,
            "strategy.ceiling": 0.001,
            "model.hidden": "[1000]",
        },
        seeds=3,
    ),
    Row(
        "Permuted-MNIST 20, fine-tuning",
        0.407,
        0.03,
        MAMMOTH,
        {**TWENTY, "strategy": "finetune"},
        extra=UNIT,
        seeds=3,
    ),
    Row(
        "Permuted-MNIST 20, ER, memory 200",
        0.724,
        0.03,
        MAMMOTH,
        {**TWENTY, "strategy": "er"},
        extra={**UNIT, "strategy.memory_size": 200},
        seeds=3,
    ),
    Row(
        "Permuted-MNIST 20, ER, memory 500",
        0.806,
        0.03,
        MAMMOTH,
        {**TWENTY, "strategy": "er"},
        extra={**UNIT, "strategy.memory_size": 500},
        seeds=3,
    ),
    Row(
        "Permuted-MNIST 20, DER++, memory 200",
        0.836,
        0.03,
        MAMMOTH,
        {**TWENTY, "strategy": "der++", "lr": 0.1},
        extra={**UNIT, "strategy.memory_size": 200, "strategy.alpha": 1, "strategy.beta": 1},
        seeds=3,
    ),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("clp-results"))
    parser.add_argument("--write", action="store_true", help="update docs/reference_results.md")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    rows = [row for row in ROWS if arguments.only in row.what]
    lines = list(HEAD)
    print("\n".join(lines))
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn")) as pool:
        pending = [
            [pool.submit(row.run, seed, arguments.out) for seed in range(row.seeds)] for row in rows
        ]
        for row, runs in zip(rows, pending, strict=True):
            lines.append(_line(row, runs))
            print(lines[-1], flush=True)
    if arguments.write:
        write(dict(zip([row.what for row in rows], lines[2:], strict=True)))


def write(measured: dict[str, str]) -> None:
    """Put the lines measured into the document; those of other rows stay."""
    present = table("table", "reference_results.md")
    known = {line.split("|")[1].strip(): line for line in present if "|" in line} | measured
    lines = [known.get(row.what, f"| {row.what} | | not measured | | | |") for row in ROWS]
    commands = [f"    {row.command()}" for row in ROWS]
    lines = [*HEAD, *lines, "", "Commands, in the same order:", "", *commands]
    write_table("table", "reference_results.md", lines)


def _line(row: Row, runs: list[Future[float]]) -> str:
    values = [run.result() for run in runs]
    mean = statistics.fmean(values)
    tolerance = f" ± {row.tolerance:g}" * (not row.at_least)
    limit = f"{'at least ' * row.at_least}{row.published:g}{tolerance}"
    each = ", ".join(f"{v:.4f}" for v in values)
    return (
        f"| {row.what} | {limit} ({row.source}) | {mean:.4f}, {statistics.stdev(values):.4f} "
        f"| 0 to {row.seeds - 1} | {each} | {'yes' if row.holds(mean) else 'NO'} |"
    )


if __name__ == "__main__":
    main()
