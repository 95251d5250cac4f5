"""State save and load, as a share of an experience.

Split-MNIST, class-incremental, experience replay with 500 samples: the second experience is trained
and evaluated in memory, and its state is saved (serialised, with a checksum, synced to the disk of
the temporary folder) and loaded. Wall time, since a disk is waited for; one thread.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import ours
from benchmarks.measure import Effort, Goal, Row, paired, ratios, wall
from cl_platform.engine.fold import Fold
from cl_platform.storage.state_store import StateStore

STREAM = "split-mnist"
GOAL = Goal("at most", 0.03)


def measure(effort: Effort) -> list[Row]:
    rows = []
    for hidden, batch in (([400, 400], 10), ([100, 100], 10), ([100, 100], 64)):
        plan = ours.plan(
            {
                "stream": {
                    "name": STREAM,
                    "samples": effort.pick(20, 500, None),
                    "test_samples": effort.pick(10, 100, None),
                },
                "strategy": {"name": "er", "memory_size": 500},
                "model": {"name": "mlp", "hidden": hidden},
                "batch_size": batch,
                "optimizer": {"lr": 0.1},
            }
        )
        with TemporaryDirectory() as folder:
            found = measured(ours.fold(plan), StateStore(Path(folder)), effort)
        setting = f"MLP 2x{hidden[0]}, {batch}+{batch}"
        against = "training and evaluation"
        for what, goal in (("save", GOAL), ("load", None)):
            shares = ratios(found, what, against)
            rows.append(Row(setting, what, against, shares, "", found[what], goal))
    return rows


def measured(fold: Fold, store: StateStore, effort: Effort) -> dict[str, list[float]]:
    """Return the seconds of an experience, and of saving and loading the state after it."""
    fold.train()
    first, keys, times = fold.state, (f"{i:064}" for i in count()), effort.pick(1, 5, 5)

    def experience() -> None:
        fold.train()
        fold.evaluate()

    def learned() -> float:
        fold.state, fold.position = first, 0  # what is trained again is the same work
        fold.train()
        return wall(experience)

    def saved() -> float:
        return (
            wall(lambda: [store.save(next(keys), fold.state, None) for _ in range(times)]) / times
        )

    def loaded() -> float:
        key = next(keys)
        store.save(key, fold.state, None)
        return wall(lambda: [store.load(key) for _ in range(times)]) / times

    return paired(
        {"training and evaluation": learned, "save": saved, "load": loaded}, effort.rounds
    )
