"""Time of our training loop relative to a hand-written torch loop doing the same arithmetic.

Split-MNIST, experience replay, MLP 784-400-400-10, 10 new and 10 old samples per step, SGD. Both
start from the same weights and keep everything in resident tensors; the hand-written loop has its
inputs normalised beforehand. The two are run in turn, `--rounds` times, in one process; the figure
is the median of the rounds' ratios.

    python benchmarks/overhead.py --rounds 7
    python benchmarks/overhead.py --set ema=0.999 --set clip_norm=1  # with options
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from cl_platform.config.run_config import apply_settings, parse_config
from cl_platform.engine.fold import Fold
from cl_platform.engine.plan import Plan
from cl_platform.engine.planner import make_plan
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers

MEMORY, BATCH, LR = 1000, 10, 0.1


def ours(plan: Plan) -> float:
    """Seconds of training of the whole stream by the platform."""
    fold = Fold(plan, StateStore(None), Trackers())
    start = time.perf_counter()
    for _ in plan.steps:
        fold.train()
    return time.perf_counter() - start


def by_hand(data: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Seconds of the same by the loop one writes for a single experiment."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU(),
        nn.Linear(400, 10),
    )  # fmt: skip
    model.train()
    memory_x, memory_y = torch.zeros(MEMORY, 1, 28, 28), torch.zeros(MEMORY, dtype=torch.int64)
    seen = 0
    start = time.perf_counter()
    for x_all, y_all in data:
        optimizer = torch.optim.SGD(model.parameters(), lr=LR)
        order = torch.randperm(len(y_all))
        for rows in order.split(BATCH):
            new_x, new_y = x_all[rows], y_all[rows]
            x, y = new_x, new_y
            if seen:
                drawn = torch.randint(min(seen, MEMORY), (len(rows),))
                x, y = torch.cat([x, memory_x[drawn]]), torch.cat([y, memory_y[drawn]])
            loss = cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            place = torch.arange(seen, seen + len(rows))
            if seen + len(rows) > MEMORY:
                chosen = (torch.rand(len(rows)) * (place + 1)).long()
                place = torch.where(place < MEMORY, place, chosen)
            kept = place < MEMORY
            memory_x[place[kept]], memory_y[place[kept]] = new_x[kept], new_y[kept]
            seen += len(rows)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings: dict[str, Any] = {
        "stream": "split-mnist",
        "strategy": {"name": "er", "memory_size": MEMORY},
        "batch_size": BATCH,
        "optimizer": {"lr": LR},
    }
    plan = make_plan(parse_config(apply_settings(settings, arguments.settings)))
    data = [(plan.stream.preprocess(e.train.x), e.train.y) for e in plan.stream.experiences]
    ratios = []
    for i in range(arguments.rounds + 1):
        pair = (ours(plan), by_hand(data)) if i % 2 else (by_hand(data), ours(plan))[::-1]
        if i:  # the first round warms up
            ratios.append(pair[0] / pair[1])
            print(
                f"round {i}: ours {pair[0]:.2f} s, by hand {pair[1]:.2f} s, ratio {ratios[-1]:.3f}"
            )
    print(
        f"training time, ours / by hand: median {statistics.median(ratios):.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f}, {len(ratios)} rounds, "
        f"{torch.get_num_threads()} threads)"
    )


if __name__ == "__main__":
    main()
