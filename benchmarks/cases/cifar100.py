"""Split-CIFAR-100 with SlimResNet-18 and augmentation, training.

Class-incremental, 5 experiences of 20 classes, some images of each, batches of 32 new and 32 stored
images, a memory of 500, SGD, random crops and mirror images. The loop by hand keeps stored images
in tensors, augments and normalises a batch of new and old ones at once, and fills its memory at the
end of an experience; the network is the same. Ours replays within the first experience as well,
which is a tenth more passes, unless samples are offered at the end. No evaluation on either side.
CPU time, one thread.
"""

from __future__ import annotations

from functools import partial

import torch

from benchmarks import ours
from benchmarks.measure import Effort, Goal, Row, compared, cpu, paired
from benchmarks.rivals.images import Images, loop
from cl_platform.engine.plan import Plan
from cl_platform.models.cnn import SlimResNet18

LR, MEMORY = 0.03, 500


def measure(effort: Effort) -> list[Row]:
    batch, samples = effort.pick((4, 8), (16, 32), (32, 256))
    plans = {
        f"ours, {memory}{', offered at the end' if at_end else ''}": ours.plan(
            {
                "stream": {
                    "name": "split-cifar100",
                    "experiences": 5,
                    "samples": samples,
                    "test_samples": 20,
                },
                "strategy": {
                    "name": "er",
                    "memory_size": MEMORY,
                    "memory": memory,
                    **({"offer": "experience-end"} if at_end else {}),
                },
                "model": "slim-resnet18",
                "augmentation": ["crop", "flip"],
                "batch_size": batch,
                "optimizer": {"lr": LR},
            }
        )
        for memory in ("reservoir", "balanced")
        for at_end in (False, True)
    }
    images = images_of(next(iter(plans.values())), batch)
    found = paired(
        {
            "by hand": lambda: cpu(partial(loop, images, SlimResNet18((3, 32, 32), 100))),
            **{name: partial(trained, plan) for name, plan in plans.items()},
        },
        effort.rounds,
    )
    goals = dict.fromkeys(plans, Goal("at most", 1.05))
    return compared(f"{batch}+{batch}, {samples} images each", found, "by hand", goals)


def trained(plan: Plan) -> float:
    """Return the seconds of learning all experiences of a plan."""
    fold = ours.fold(plan)
    return cpu(lambda: ours.train(fold))


def images_of(plan: Plan, batch: int) -> Images:
    """Return what the loop by hand is given."""
    preprocess = plan.stream.preprocess
    mean, std = (torch.tensor(v or ()).view(1, -1, 1, 1) for v in (preprocess.mean, preprocess.std))
    train = [(e.train.x, e.train.y) for e in plan.stream.experiences]
    return Images(train, mean, std, batch, MEMORY, LR)
