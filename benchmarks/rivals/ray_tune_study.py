"""A study of orders as one writes it with Avalanche and Ray Tune, without this platform.

A trial learns the digits of MNIST in one order by Avalanche's Replay and reports the accuracy of
each experience. Actors are reused, so that Avalanche is imported once in each.

    python -m benchmarks.rivals.ray_tune_study FOLDER --trials 8

FOLDER is where torchvision keeps MNIST, with ``MNIST/raw`` in it.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path
from typing import Any

from ray import tune
from torch import nn

BATCH, MEMORY, LR = 64, 200, 0.1


class Order(tune.Trainable):
    """A trial: one order of the five pairs of digits."""

    def setup(self, config: dict[str, Any]) -> None:
        import torch
        from avalanche.benchmarks.classic import SplitMNIST

        from benchmarks.rivals import avalanche_loop

        torch.set_num_threads(1)
        self.make, self.learn = SplitMNIST, avalanche_loop.replay

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        return True

    def step(self) -> dict[str, Any]:
        began = time.time()
        digits = [d for pair in self.config["order"] for d in (2 * pair, 2 * pair + 1)]
        folder = self.config["folder"]
        benchmark = self.make(5, fixed_class_order=digits, shuffle=False, dataset_root=folder)
        width = self.config["width"]
        network = nn.Sequential(
            *(nn.Flatten(), nn.Linear(784, width), nn.ReLU()),
            *(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)),
        )
        found = self.learn(benchmark, network, BATCH, MEMORY, LR)
        accuracy = [float(value) for value in found[-1].values()]
        return {"accuracy": accuracy, "began": began, "ended": time.time(), "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing is resumed."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing is resumed."""


def study(folder: Path, trials: int, width: int, results: Path) -> float:
    """Carry out so many of the 120 orders; return the seconds from the first trial's beginning to
    the last one's end, without the start of Ray, its actors and their imports."""
    orders = list(itertools.permutations(range(5)))
    chosen = orders[:: max(1, len(orders) // trials)][:trials]
    tuner = tune.Tuner(
        tune.with_resources(Order, {"cpu": 1}),
        param_space={
            "order": tune.grid_search(chosen),
            "folder": str(folder),
            "width": width,
        },
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(
            storage_path=str(results),
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    found = [result.metrics or {} for result in tuner.fit()]
    return max(m["ended"] for m in found) - min(m["began"] for m in found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=120)
    parser.add_argument("--width", type=int, default=100, help="units of the two layers")
    parser.add_argument("--out", type=Path, default=Path("ray-tune-study"))
    given = parser.parse_args()
    seconds = study(given.folder.absolute(), given.trials, given.width, given.out.absolute())
    print(f"{given.trials} orders: {seconds:.1f} s")


if __name__ == "__main__":
    main()
