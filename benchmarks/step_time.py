"""Time per step of every strategy relative to ER, beside what its passes explain.

On the same model and batches, in one process, in turn: each round times a few dozen steps of every
strategy in its third experience, and of a bare loop that makes just the forward and backward passes
the strategy makes, with one optimizer step. The table gives medians over the rounds: the
strategy's time over ER's; the same of the bare loops; and the first over the second (or over 1,
where a strategy makes fewer passes than ER). GSS and MIR take many gradients by definition, and
GDumb trains at the end of an experience only.

    python benchmarks/step_time.py --rounds 9 --write
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from document import write_table
from torch import nn
from torch.nn.functional import cross_entropy

from cl_platform.config.run_config import parse_config
from cl_platform.core.strategy import Batch
from cl_platform.engine.fold import Fold
from cl_platform.engine.optimization import build_optimizer
from cl_platform.engine.planner import make_plan
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers

BATCH, STEPS = 32, 20
LIMIT = 1.15


@dataclass(frozen=True)
class Case:
    """A strategy and its passes: samples, in batches, forward and back, and forward only."""

    name: str
    both: tuple[float, ...]
    forward: tuple[float, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    exempt: bool = False


CASES = (
    Case("er", (2,)),
    Case("finetune", (1,)),
    Case("er-ace", (2,)),
    Case("der", (2,)),
    Case("der++", (3,)),
    Case("a-gem", (1, 1)),
    Case("gem", (1, 2, 2), settings={"memory_size": 6 * BATCH}),
    Case("icarl", (2,), (2,), {"memory_batch_size": BATCH}),
    Case("scheduled-replay", (2,), settings={"memory_size": BATCH, "history": BATCH}),
    Case("ewc", (1,)),
    Case("si", (1,)),
    Case("mas", (1,)),
    Case("lwf", (1,), (1,)),
    Case("tag", (1,)),
    Case("refresh", (3, 3), settings={"noise": 0.0}),
    Case("refresh", (3, 1), settings={"noise": 0.0, "mode": "code"}),
    Case("refresh", (3, 3)),
    Case("mir", (1, 2), (50 / 32, 50 / 32), exempt=True),
    Case("gss", (2,), exempt=True),
)


class Ours:
    """A strategy in its third experience, with batches at hand."""

    def __init__(self, case: Case, model: str) -> None:
        strategy = {"name": case.name, **case.settings}
        data = {
            "stream": {"name": "split-mnist", "samples": BATCH * STEPS, "experiences": 3},
            "strategy": strategy,
            "model": model,
            "batch_size": BATCH,
            "optimizer": {"lr": 1e-4},
        }
        self.fold = Fold(make_plan(parse_config(data)), StateStore(None), Trackers())
        self.fold.train()
        self.fold.train()
        self.fold.rng.restart(3)
        step, self.strategy = self.fold.plan.steps[2], self.fold.strategy
        self.batches = list(self.strategy.batches(step.experience, BATCH))
        self.strategy.train()
        self.strategy.begin_experience(step.experience)
        optimizer = build_optimizer(self.strategy, self.fold.plan.config.optimizer)
        assert optimizer is not None
        self.strategy.optimizer = optimizer

    def seconds(self) -> float:
        """Of a step."""
        start = time.perf_counter()
        for batch in self.batches:
            self.strategy.training_step(batch)
            self.strategy.after_step(batch)
        return (time.perf_counter() - start) / len(self.batches)


class Bare:
    """The passes of a strategy and an optimizer step, and nothing else."""

    def __init__(self, case: Case, model: nn.Module, batches: list[Batch]) -> None:
        self.model, self.steps = model, len(batches)
        self.optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
        x, y = torch.cat([b.x for b in batches]), torch.cat([b.y for b in batches])
        self.both = [(x[: round(n * BATCH)], y[: round(n * BATCH)]) for n in case.both]
        self.forward = [x[: round(n * BATCH)] for n in case.forward]

    def seconds(self) -> float:
        """Of a step."""
        start = time.perf_counter()
        for _ in range(self.steps):
            self.optimizer.zero_grad()
            for x, y in self.both:
                cross_entropy(self.model(x), y).backward()
            with torch.no_grad():
                for x in self.forward:
                    self.model(x)
            self.optimizer.step()
        return (time.perf_counter() - start) / self.steps


def measure(model: str, rounds: int) -> list[str]:
    """The lines of the table for a model."""
    ours = [Ours(case, model) for case in CASES]
    network = ours[0].fold.plan.info(ours[0].fold.rng).build_model()
    bare = [Bare(case, network, ours[0].batches) for case in CASES]
    times: list[list[tuple[float, float]]] = [[] for _ in CASES]
    for i in range(rounds + 1):
        found = [(o.seconds(), b.seconds()) for o, b in zip(ours, bare, strict=True)]
        if i:  # the first round warms up
            for row, pair in zip(times, found, strict=True):
                row.append(pair)
    lines = []
    for case, row in zip(CASES, times, strict=True):
        relative = [mine / er for (mine, _), (er, _) in zip(row, times[0], strict=True)]
        passes = [mine / er for (_, mine), (_, er) in zip(row, times[0], strict=True)]
        beyond = [r / max(1.0, p) for r, p in zip(relative, passes, strict=True)]
        middle = statistics.median(beyond)
        settings = " ".join(f"{k}={v}" for k, v in case.settings.items())
        verdict = "exempt" if case.exempt else "yes" if middle <= LIMIT else "NO"
        lines.append(
            f"| {model} | {case.name} {settings}| {statistics.median(relative):.2f} "
            f"| {statistics.median(passes):.2f} "
            f"| {middle:.2f} ({min(beyond):.2f} to {max(beyond):.2f}) | {verdict} |"
        )
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", nargs="*", default=["mlp", "cnn"])
    parser.add_argument("--write", action="store_true", help="update docs/strategies.md")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    lines = [
        "| model | strategy | time / ER's | its passes / ER's | beyond its passes | within 15 % |",
        "|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    for model in arguments.models:
        lines += measure(model, arguments.rounds)
    if arguments.write:
        write_table("times", "strategies.md", lines)


if __name__ == "__main__":
    main()
