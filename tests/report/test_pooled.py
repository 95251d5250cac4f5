"""Strategies compared over all that varies besides them, runs that failed, and orders left out."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cl_platform.metrics.bounds import SHARE
from cl_platform.metrics.comparison import bounded_mean, compare
from cl_platform.report.failures import SHOWN, failures
from cl_platform.report.orders.left_out import left_out
from cl_platform.report.pooled import data, pool, sections
from cl_platform.report.runs import Runs, read_runs
from sweeps.record import Phase, write_sweep
from tests.helpers.report_runs import changed, one_run, put
from tests.helpers.sweep_runs import planned, spec

STREAMS, STRATEGIES, ORDERS, SEEDS = ("one", "two"), ("er", "si", "ewc"), (0, 1), (0, 1, 2)


@pytest.fixture(scope="module")
def model() -> dict[str, Any]:
    return one_run()


def documents(model: dict[str, Any], accuracy: Any, lost: Any = None) -> Iterator[dict[str, Any]]:
    """Runs of all streams, strategies, orders and seeds, but those that are lost."""
    for i, cell in enumerate(product(STREAMS, STRATEGIES, ORDERS, SEEDS)):
        stream, strategy, order, seed = cell
        data = changed(model, i, seed=seed, stream={"name": stream}, strategy={"name": strategy})
        data["config"]["curriculum"] = {"name": ("as_given", "reverse")[order]}
        data["stream"] = stream
        data["metrics"]["average_accuracy"] = accuracy(*cell)
        if lost is None or not lost(*cell):
            yield data


def drawn(stream: str, strategy: str, order: int, seed: int) -> float:
    level = {"er": 0.7, "si": 0.6, "ewc": 0.3}[strategy] + 0.1 * STREAMS.index(stream)
    noise = np.random.default_rng([STREAMS.index(stream), STRATEGIES.index(strategy), order, seed])
    return float(level + 0.02 * noise.normal())


def test_a_strategy_is_pooled_over_streams_orders_and_seeds(
    tmp_path: Path, model: dict[str, Any]
) -> None:
    found = pool(read_runs(put(tmp_path, *documents(model, drawn))))
    assert found is not None
    assert [row.name for row in found.strategies] == ["er", "si", "ewc"]
    assert (found.over, found.left_out) == ("2 streams, 2 orders, 3 seeds", {})
    by_seed = {
        name: {
            seed: np.mean([drawn(s, name, o, seed) for s, o in product(STREAMS, ORDERS)])
            for seed in SEEDS
        }
        for name in STRATEGIES
    }
    expected = compare(by_seed, bounds=SHARE)
    for row in found.strategies:
        mine = bounded_mean([*by_seed[row.name].values()], SHARE)
        assert row.accuracy.value == pytest.approx(mine.value)
        assert (row.accuracy.low, row.accuracy.high) == pytest.approx((mine.low, mine.high))
        if row.difference is None:
            assert row.name == "er"
            continue
        difference, p = expected[row.name]
        assert row.difference.difference.value == pytest.approx(difference.difference.value)
        assert (row.p, row.difference.pairs) == (pytest.approx(p), 3)
        assert row.wins[1] == 12
    assert found.strategies[2].wins[0] == 0
    assert [*found.strategies[0].streams] == ["one", "two"]
    shown = "".join(sections(found))
    assert "details" not in shown, "nothing is folded"
    assert shown.index("<td>er<") < shown.index(">the best<") < shown.index("<td>si<")
    assert data(found)[0]["accuracy"][0] == pytest.approx(
        100 * found.strategies[0].accuracy.value, abs=0.01
    )


def test_strategies_are_compared_on_what_they_have_in_common(
    tmp_path: Path, model: dict[str, Any]
) -> None:
    def lost(stream: str, strategy: str, order: int, seed: int) -> bool:
        few = strategy == "ewc" and (stream, order) != ("one", 0)
        return few or (strategy, stream, order, seed) == ("si", "two", 1, 2)

    found = pool(read_runs(put(tmp_path, *documents(model, drawn, lost))))
    assert found is not None
    assert [row.name for row in found.strategies] == ["er", "si"]
    assert found.left_out == {"ewc": "3 of 12 runs"}
    assert found.strategies[1].wins[1] == 11
    assert "Left out, with too few runs: ewc: 3 of 12 runs." in "".join(sections(found))


def test_where_only_seeds_vary_there_is_nothing_to_pool(
    tmp_path: Path, model: dict[str, Any]
) -> None:
    def lost(stream: str, strategy: str, order: int, seed: int) -> bool:
        return (stream, order) != ("one", 0)

    assert pool(read_runs(put(tmp_path, *documents(model, drawn, lost)))) is None


# --- runs that failed, and orders that are left out


def swept(
    out: Path, model: dict[str, Any], errors: dict[tuple[str, str], str], orders: int = 7
) -> Runs:
    """A sweep over orders of three experiences and two seeds, of which some runs failed."""
    named = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0], "as_given"][:orders]
    runs = planned(
        {"curriculum": named, "seed": [0, 1]}, base={"stream": {"name": "blobs", "experiences": 3}}
    )
    phase = Phase("runs", runs)
    for run in runs:
        error = errors.get((run.point["curriculum"], run.point["seed"]))
        if error is None:
            done = changed(model, 0, seed=run.config.seed)
            put(out, {**done, "run_id": run.run_id, "order": list(run.order)})
            phase.done.add(run.run_id)
        elif error:
            phase.errors[run.run_id] = error
    write_sweep(out, spec(), [phase], "done")
    return read_runs(out)


def test_what_failed_is_told_run_by_run_and_folded_beyond_some(
    tmp_path: Path, model: dict[str, Any]
) -> None:
    names = ["[0 1 2]", "[0 2 1]", "[1 0 2]", "[1 2 0]", "[2 0 1]", "[2 1 0]"]
    runs = swept(
        tmp_path,
        model,
        {(n, "0"): f"step {i}: it broke" for i, n in enumerate(names)}
        | {("as_given", "1"): "no <space>\nleft" + "x" * 400},
    )
    text = "".join(failures(runs))
    assert "<p>7 runs failed.</p>" in text
    first, _, rest = text.partition("<details><summary>2 more")
    assert (first.count("<li"), rest.count("<li")) == (SHOWN, 2)
    assert "curriculum [0 1 2], seed 0: <b>step 0: it broke</b>" in first
    assert "curriculum as_given, seed 1: <b>no &lt;space&gt; left" in first, "another error"
    assert "x" * 300 not in text
    assert "".join(failures(swept(tmp_path / "sound", model, {}))) == ""


def test_orders_left_out_have_their_reasons(tmp_path: Path, model: dict[str, Any]) -> None:
    (found,) = left_out(swept(tmp_path, model, {("[0 2 1]", "1"): "it broke"}))
    assert str(found) == "finetune: 1 of 7 orders is left out"
    assert found.why == {"[0 2 1]": "lacks seed 1 (it broke)"}
    (found,) = left_out(
        swept(tmp_path / "b", model, {("[0 2 1]", "1"): "", ("[1 0 2]", "0"): "it broke"})
    )
    assert str(found) == (
        "finetune: no study of orders, which takes 6 with every seed; 5 of 7 have that"
    )
    assert found.why["[0 2 1]"] == "lacks seed 1 (not done yet)"
    assert left_out(swept(tmp_path / "c", model, {})) == []


def test_orders_drawn_anew_for_each_seed_are_left_out_of_a_study_alone(
    tmp_path: Path, model: dict[str, Any]
) -> None:
    for orders, why in ((7, ["each seed draws an order of its own"]), (5, [])):
        runs = swept(tmp_path / str(orders), model, {}, orders)
        frame = runs.frame.copy()
        first = frame["axis.curriculum"].iloc[0]
        mine = frame["axis.curriculum"] == first
        frame.loc[mine, "order"] = [(0, 1, 2), (2, 1, 0)]
        found = left_out(Runs(**{**vars(runs), "frame": frame}))
        assert [reason for point in found for reason in point.why.values()] == why
