"""The study of orders in docs/curriculum_study.md: their effect, its prediction, their search.

Runs examples/curriculum_study.yaml as it is and with longer training, compares ten runs with the
same ones alone, and tries the two searches over orders where the results of all orders are there.
An interrupted study continues from the results under --out; --write puts tables and pictures into
the document.

    python -m benchmarks.curriculum_study --write
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import ray

from benchmarks.document import DOCS, write_table
from cl_platform.engine.execution import execute
from cl_platform.engine.planner import make_plan
from cl_platform.metrics.statistics import Interval, spearman
from cl_platform.report.orders.study import SIGNIFICANT, PointStudy, Prediction, Study
from cl_platform.report.pictures import overview_figure, position_figure, prediction_figure
from cl_platform.results.result import Result
from sweeps.api import Sweep, sweep
from sweeps.spec import read_spec

SPEC = Path(__file__).parent.parent / "examples" / "curriculum_study.yaml"
REGIMES = {
    "short": [],
    "long": ["base.optimizer.lr=0.05", "base.batch_size=10"],
}
DATA = {"split-mnist": "MNIST", "split-fashion-mnist": "Fashion-MNIST"}
BUDGETS = (30, 60, 120)
SAMPLE = 10
SHOWN = ("short_mnist", "long_mnist")  # the document shows all of their pictures

Results = dict[int, pd.DataFrame]  # of every order, by seed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("clp-results/curriculum_study"))
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    ray.init(address="local", include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    found = {name: _regime(name, arguments.out) for name in REGIMES}
    searched = list(_searches(arguments.out))
    tables = {
        "summary": list(_summary(found)),
        "orders": [
            "| training | data | strategy | accuracy | worst to best | order | seed | both "
            "| worth of picking |",
            "|---|---|---|---|---|---|---|---|---|",
            *(line for name, studies in found.items() for line in _orders(name, studies)),
        ],
        "foreseen": [
            "| training | data | strategy | score | rho | p | p (Holm) | p (renamed) "
            "| top 10 | top 20 | top 50 |",
            "|---|---|---|---|---|---|---|---|---|---|---|",
            *(line for name, studies in found.items() for line in _foreseen(name, studies)),
        ],
        "searched": [
            "| data | budget | search | whole orders tried | validation | test | better than |",
            "|---|---|---|---|---|---|---|",
            *searched,
        ],
    }
    for name, lines in tables.items():
        print("\n".join(lines), end="\n\n")
        if arguments.write:
            write_table(name, "curriculum_study.md", lines)
    if arguments.write:
        _draw(found)


def _regime(name: str, out: Path) -> list[Study]:
    began = time.monotonic()
    done = sweep(read_spec(SPEC, REGIMES[name]), out / name)
    tally = done.phases[0].tally
    print(
        f"{name}: {tally.runs} runs, {tally.distinct} experiences instead of {tally.experiences}, "
        f"{tally.trained} of them now in {time.monotonic() - began:.0f} s"
    )
    _compare_with_runs_alone(done)
    return done.studies()


def _compare_with_runs_alone(done: Sweep) -> None:
    """Repeat a sample of the runs, each by itself: they must be equal to the bit."""
    for run in random.Random(0).sample(list(done.phases[0].runs), SAMPLE):
        alone = execute(make_plan(run.config), None)
        shared = Result.load(done.path / "runs" / run.run_id)
        assert shared is not None
        assert shared.metrics == alone.metrics, run.point
        assert all(shared.matrices[m] == alone.matrices[m] for m in alone.matrices), run.point
    print(f"  {SAMPLE} runs are the same alone, to the bit")


def _summary(found: dict[str, list[Study]]) -> Iterator[str]:
    """Count the predictions that hold, and compare short with long training."""
    points = [point for studies in found.values() for study in studies for point in study.points]
    every = [p for point in points for p in point.predictions]
    tested = [p for p in every if p.correlation.p == p.correlation.p]
    shuffled = [p for p in tested if p.adjusted < SIGNIFICANT]
    renamed = [p for p in shuffled if p.relabelled < SIGNIFICANT]
    up = sum(p.correlation.rho > 0 for p in shuffled)
    outcomes = ", ".join(sorted({p.outcome for p in renamed})) or "none"
    yield (
        f"Of {len(tested)} correlations of a score with an outcome, {len(shuffled)} are below p = "
        f"{SIGNIFICANT} by shuffling and after Holm's correction, {up} of them positive and "
        f"{len(shuffled) - up} negative. Of these {len(renamed)} are below it under renaming as "
        f"well ({outcomes})."
    )
    yield ""
    rhos = [
        f"{_data(short)} {point.point} {_agreement(point, other):.2f}"
        for short, long in zip(found["short"], found["long"], strict=True)
        for point in short.points
        for other in long.points
        if other.point == point.point
    ]
    yield f"Spearman's rho of accuracy by order, short with long training: {', '.join(rhos)}."


def _agreement(one: PointStudy, other: PointStudy) -> float:
    means = dict(zip(map(tuple, other.orders.tolist()), other.means, strict=True))
    there = np.array([means[tuple(order)] for order in one.orders.tolist()])
    return float(spearman(one.means[None], there[None])[0])


def _orders(regime: str, studies: list[Study]) -> Iterator[str]:
    for study in studies:
        for point in study.points:
            low, high = point.worst.accuracy.value, point.best.accuracy.value
            yield _row(
                regime,
                _data(study),
                point.point,
                f"{100 * point.means.mean():.1f}",
                f"{100 * low:.1f} to {100 * high:.1f}",
                *_shares(point),
                _percent(point.picked),
            )


def _shares(point: PointStudy) -> list[str]:
    shares = point.shares["average_accuracy"]
    if not shares.total:
        return ["-"] * 3
    return [f"{100 * s.value:.0f} % [{100 * s.low:.0f}, {100 * s.high:.0f}]" for s in shares.parts]


def _foreseen(regime: str, studies: list[Study]) -> Iterator[str]:
    for study in studies:
        for point in study.points:
            for p in point.predictions:
                if p.outcome == "average_accuracy" and p.correlation.p == p.correlation.p:
                    yield _row(regime, _data(study), point.point, *_prediction(p))


def _prediction(p: Prediction) -> list[str]:
    values = (p.correlation.p, p.adjusted, p.relabelled)
    overlaps = [f"{found} ({chance:.1f})" for found, chance in p.overlaps.values()]
    return [p.score, f"{p.correlation.rho:.2f}", *(f"{value:.3f}" for value in values), *overlaps]


def _searches(out: Path) -> Iterator[str]:
    """Search with ER where every order was run, each for three seeds of run and search."""
    for stream, data in DATA.items():
        base = {
            "stream": {"name": stream, "classes": 5, "samples": 500, "validation": 0.1},
            "strategy": "er",
            "permute_labels": True,
            "model": {"name": "mlp", "hidden": [100, 100]},
            "optimizer": {"lr": 0.05},
        }
        folder = out / f"search-{stream}"
        spec = {"base": base, "axes": {"curriculum": ["all"], "seed": [0, 1, 2]}}
        frame = sweep(spec, folder).results().set_index("axis.curriculum")
        results = {seed: frame[frame["seed"] == seed] for seed in range(3)}
        for budget in BUDGETS:
            for method in ("mcts", "halving"):
                yield _row(
                    data, str(budget), method, *_search(base, folder, results, method, budget)
                )
            yield _row(data, str(budget), "random", *_random(results, budget))


def _search(
    base: dict[str, Any], folder: Path, results: Results, method: str, budget: int
) -> list[str]:
    tried, chosen = [], []
    for seed in range(3):
        spec = {
            "base": {**base, "seed": seed},
            "seed": seed,
            "tune": {"method": method, "budget": budget},
        }
        done = sweep(spec, folder)
        order = done.chosen[0].point["curriculum"]
        whole = [run for run in done.phases[0].runs if run.whole]
        tried.append(len(whole))
        chosen.append((seed, order))
    return _found(results, tried, chosen)


def _random(results: Results, budget: int) -> list[str]:
    """Draw as many random orders as the budget allows without sharing, 200 times."""
    n = budget // 5
    chosen = []
    for draw in range(200):
        mine = results[draw % 3]
        some = mine.sample(n, random_state=draw)
        chosen.append((draw % 3, some["validation/average_accuracy"].idxmax()))
    return _found(results, [n], chosen)


def _found(results: Results, tried: list[int], chosen: list[tuple[int, str]]) -> list[str]:
    """Return accuracies of the chosen orders, and the share of orders with lower test accuracy."""
    validation, test, better = [], [], []
    for seed, order in chosen:
        row, mine = results[seed].loc[order], results[seed]["average_accuracy"]
        validation.append(row["validation/average_accuracy"])
        test.append(row["average_accuracy"])
        better.append(float((mine < row["average_accuracy"]).mean()))
    means = [100 * statistics.fmean(values) for values in (validation, test, better)]
    return [
        f"{statistics.fmean(tried):.0f}",
        f"{means[0]:.1f}",
        f"{means[1]:.1f}",
        f"{means[2]:.0f} %",
    ]


def _draw(found: dict[str, list[Study]]) -> None:
    folder = DOCS / "pictures"
    folder.mkdir(exist_ok=True)
    for regime, studies in found.items():
        for study in studies:
            name = f"{regime}_{_data(study).lower()}"
            overview_figure(study).savefig(folder / f"orders_{name}.png", dpi=100)
            if name in SHOWN:
                position_figure(study).savefig(folder / f"places_{name}.png", dpi=100)
                prediction_figure(study).savefig(folder / f"scores_{name}.png", dpi=90)


def _data(study: Study) -> str:
    return DATA[study.stream.split()[0]]


def _percent(value: Interval | None) -> str:
    assert value is not None
    return f"{100 * value.value:+.1f} [{100 * value.low:+.1f}, {100 * value.high:+.1f}]"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
