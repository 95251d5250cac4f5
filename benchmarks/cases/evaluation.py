"""Evaluation of 10 and of 50 experiences.

Split-CIFAR-100, its 10000 test images in so many experiences, an MLP. Since all experiences are
scored after each of them, what is compared is an evaluation: accuracies under three masks,
calibration, accuracy by class, checks of the logits and of the state, the record. Against the
accuracy of each experience by one batched forward pass over the same tensors, and by passes over
1000 images at a time. CPU time, one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks import ours
from benchmarks.measure import Effort, Goal, Row, compared, cpu, paired

STREAM = "split-cifar100"
ONE = "one forward pass"


def measure(effort: Effort) -> list[Row]:
    rows = []
    for experiences in effort.pick((5,), (10, 50), (10, 50)):
        for hidden in ([400, 400], [100, 100]):
            rows += measured(experiences, hidden, effort)
    return rows


def measured(experiences: int, hidden: list[int], effort: Effort) -> list[Row]:
    """Return the lines of a stream and a network."""
    plan = ours.plan(
        {
            "stream": {
                "name": STREAM,
                "experiences": experiences,
                "samples": 40,
                "test_samples": effort.pick(10, 2000 // experiences, None),
            },
            "strategy": "finetune",
            "model": {"name": "mlp", "hidden": hidden},
        }
    )
    fold = ours.fold(plan)
    fold.train()
    parts = ours.inputs(plan, "test")
    x, y = torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])
    given = partial(accuracies, fold.strategy.model, x, y, [len(y) for _, y in parts])
    calls = {
        ONE: partial(given, len(y)),
        "batches of 1000": partial(given, 1000),
        "ours": fold.evaluate,
    }
    times = effort.pick(1, 1, 3)
    found = paired(
        {k: partial(cpu, partial(repeat, c, times)) for k, c in calls.items()}, effort.rounds
    )
    seconds = {name: [s / times for s in values] for name, values in found.items()}
    setting = f"{experiences} experiences, MLP 2x{hidden[0]}"
    return compared(setting, seconds, ONE, {"ours": Goal("at most", 1.1)})


def repeat(call: Callable[[], object], times: int) -> None:
    for _ in range(times):
        call()


@torch.inference_mode()
def accuracies(model: nn.Module, x: Tensor, y: Tensor, sizes: list[int], batch: int) -> list[float]:
    """Return the accuracy on each experience, by hand."""
    logits = torch.cat([model(part) for part in x.split(batch)])
    right = (logits.argmax(1) == y).split(sizes)
    return torch.stack([part.float().mean() for part in right]).tolist()
