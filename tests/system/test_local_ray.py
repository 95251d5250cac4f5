"""Searches for an order, and references, on a local Ray that the tests of this file share."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cl_platform.engine.execution import execute
from cl_platform.engine.planner import make_plan
from cl_platform.errors import ClpError
from cl_platform.results.result import Result
from cl_platform.tracking.console import new_console
from sweeps import console as show
from sweeps.api import Sweep, sweep
from sweeps.executor.cluster import connected
from sweeps.executor.driver import Driver
from sweeps.planning import plan_runs
from sweeps.spec import parse_spec
from tests.helpers.sweep_references import check_numbers, document
from tests.helpers.sweep_runs import PLANNER
from tests.helpers.sweep_search import BASE, WHOLE, Searched, objectives, spec


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray that the tests below share."""
    with connected("local"):
        yield


FINAL = {"final": {"seeds": 2}, "scored_by": ["designer"]}


@pytest.fixture(scope="module")
def whole(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A tree search with room for all orders, averaged over two seeds, and its final runs."""
    given = spec({"method": "mcts", "budget": 2 * WHOLE}, [0, 2], **FINAL)
    return sweep(given, tmp_path_factory.mktemp("search") / "out")


def test_it_chooses_what_a_sweep_over_all_orders_would(whole: Sweep) -> None:
    assert whole.complete
    plain = {"base": BASE, "axes": {"curriculum": ["all"], "seed": [0, 2]}}
    by_order: dict[tuple[int, ...], list[float]] = {}
    for run in plan_runs(parse_spec(plain), PLANNER):
        result = Result.load(whole.path / "runs" / run.run_id)
        assert result is not None, "its runs are those of the sweep"
        value = result.metrics["validation/average_accuracy"]
        by_order.setdefault(run.order, []).append(value)
    means = {order: sum(values) / 2 for order, values in by_order.items()}
    (choice,) = whole.chosen
    assert tuple(choice.config.curriculum["order"]) == max(means, key=lambda o: means[o])
    assert choice.objective == pytest.approx(max(means.values()), abs=1e-12)
    assert objectives(whole.phases[0]) == pytest.approx(means, abs=1e-12)
    tally = whole.phases[0].tally
    assert (tally.trained, tally.runs, tally.done) == (2 * WHOLE, 48, 48)


def test_the_final_runs_are_of_that_order_with_unused_seeds(whole: Sweep) -> None:
    final = whole.phases[1]
    order = tuple(whole.chosen[0].config.curriculum["order"])
    assert [run.config.seed for run in final.runs] == [1, 3]
    assert {run.order for run in final.runs} == {order}
    frame = whole.results()
    assert len(frame) == 2
    assert frame["score.designer"].nunique() == 1
    for run in final.runs:
        result = Result.load(whole.path / "runs" / run.run_id)
        assert result is not None
        assert result.metrics == execute(make_plan(run.config), None).metrics


def test_the_console_says_how_the_orders_that_were_tried_did(whole: Sweep) -> None:
    console = new_console(file=io.StringIO(), width=80, color_system=None)
    show.outcome(whole, console)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines[:-1])
    values = objectives(whole.phases[0]).values()
    expected = (
        f"24 whole orders tried: validation {min(values):.4f} to {max(values):.4f}, "
        f"mean {sum(values) / 24:.4f}"
    )
    text = " ".join(" ".join(lines).split())
    assert expected in text
    order = " ".join(map(str, whole.chosen[0].config.curriculum["order"]))
    assert f"chosen for er: curriculum={order} (validation {max(values):.4f}, 2 seeds)" in text


def test_its_record_is_that_of_a_search_in_one_process(whole: Sweep, tmp_path: Path) -> None:
    here = Searched(tmp_path, whole.spec)
    assert objectives(whole.phases[0]) == here.tried
    assert list(objectives(whole.phases[0])) == list(here.tried)
    record = json.loads((whole.path / "sweep.json").read_text())
    assert record["status"] == "done"
    assert record["chosen"][0]["config"]["curriculum"]["order"] == list(here.best)
    assert len(record["phases"][0]["trials"]) == 24


def test_again_on_ray_it_trains_nothing(whole: Sweep) -> None:
    again = sweep(whole.spec, whole.path)
    assert [phase.tally.trained for phase in again.phases] == [0, 0]
    assert again.chosen[0].config == whole.chosen[0].config
    assert objectives(again.phases[0]) == objectives(whole.phases[0])
    assert again.results().equals(whole.results())


def test_the_number_of_workers_changes_nothing(cluster: None, tmp_path: Path) -> None:
    given = spec({"method": "halving", "budget": 30}, workers=2, scored_by=["designer"])
    found, one = sweep(given, tmp_path / "two"), Searched(tmp_path / "one", given)
    assert list(objectives(found.phases[0]).items()) == list(one.tried.items())
    assert found.chosen[0].config == one.chosen[0].config
    assert found.phases[0].tally.trained == one.phase.tally.trained <= 30
    # Without final runs the results are those of the orders that were tried to their end.
    assert set(found.results()["order"]) == {order for order in one.tried if len(order) == 4}
    assert found.results()["score.designer"].notna().all()


def test_where_every_order_fails_one_line_says_why(cluster: None, tmp_path: Path) -> None:
    base = {"strategy": {"name": "tests.helpers.sweep_strategies:Exploding"}}
    given = spec({"method": "mcts", "budget": 12}, base=base, workers=1)
    with pytest.raises(ClpError) as caught:
        sweep(given, tmp_path / "out")
    message = str(caught.value)
    assert message.startswith(
        "tune: no order for tests.helpers.sweep_strategies:Exploding: every run fail"
    )
    assert "loss is nan with lr=0.05; lower lr" in message
    assert len(message.splitlines()) == 1
    assert json.loads((tmp_path / "out" / "sweep.json").read_text())["status"] == message


def test_references_that_need_no_worker_the_second_time(cluster: None, tmp_path: Path) -> None:
    axes = {"strategy": ["finetune"], "curriculum": ["as_given", "reverse"]}
    given = document(axes, workers=1)
    drivers: list[Driver] = []

    def watch(driver: Driver) -> Callable[[Any], None]:
        drivers.append(driver)
        return lambda phase: None

    found = sweep(given, tmp_path, watch=watch)
    assert found.complete
    assert not found.failed
    references, runs = found.phases
    assert (references.tally.trained, references.tally.known) == (2, 2)
    assert runs.tally.trained == 6
    check_numbers(found)
    again = sweep(given, tmp_path, watch=watch)
    assert again.references == found.references
    assert [driver.pool is None for driver in drivers] == [False, True]
