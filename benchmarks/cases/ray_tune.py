"""A study of 120 orders, against Avalanche's strategies as trials of Ray Tune.

Split-MNIST with 3200 images of each experience, experience replay, a memory of 200, batches of
64+64, an MLP of two layers of 100 and one of 400, one epoch, evaluation after each experience. Ours
is a sweep over `curriculum: [all]`; theirs is `benchmarks/rivals/ray_tune_study.py`, whose trials
reuse their actors. Theirs carries out some of the 120 orders (their number stands in the first
column) and its seconds are scaled to 120. As many workers as cores on both sides, one thread each.
Wall time from the first worker's beginning to the end, without the start of Ray and the imports of
workers.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import ours
from benchmarks.cases.sweeps import cluster, timed
from benchmarks.measure import Effort, Goal, NotMeasured, Row, paired, ratios
from benchmarks.rivals import avalanche_loop, ray_tune_study

THEIRS = "Avalanche and Ray Tune"


def measure(effort: Effort) -> list[Row]:
    if effort.size == "quick":
        raise NotMeasured("--quick leaves it out: it takes minutes")
    avalanche_loop.require()
    with cluster():
        return [row(width, effort) for width in effort.pick((100,), (100,), (100, 400))]


def row(width: int, effort: Effort) -> Row:
    """Return the line of an MLP of two layers of some width."""
    samples, tests, trials = effort.pick((40, 10, 2), (3200, 500, 8), (3200, 500, 8))
    base = {
        "stream": {"name": "split-mnist", "samples": samples, "test_samples": tests},
        "batch_size": ray_tune_study.BATCH,
        "optimizer": {"lr": ray_tune_study.LR},
        "model": {"name": "mlp", "hidden": [width] * 2},
    }
    axes = {
        "strategy": [{"name": "er", "memory_size": ray_tune_study.MEMORY}],
        "curriculum": ["all"],
    }
    with TemporaryDirectory() as folder:
        avalanche_loop.write_mnist(ours.plan(base).stream, Path(folder))
        given = (Path(folder), trials, width, Path(folder, "results"))
        ways = {
            THEIRS: lambda: 120 / trials * ray_tune_study.study(*given),
            "ours": lambda: timed({"base": base, "axes": axes}),
        }
        found = paired(ways, effort.rounds, warm_up=False)
    setting = f"2x{width}, {trials} of 120 orders by theirs, {samples} images each"
    values = ratios(found, THEIRS, "ours")
    return Row(setting, THEIRS, "ours", values, "", found[THEIRS], Goal("at least", 15.0))
