"""Sweeps on a real Ray cluster of several nodes, with workers and nodes that die."""

from __future__ import annotations

import logging
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from cl_platform.config.run_config import parse_config
from cl_platform.engine.execution import execute
from cl_platform.engine.planner import make_plan
from cl_platform.errors import BadInput
from cl_platform.report.tuning.trials import tuning_of
from cl_platform.results.result import Result
from sweeps.api import Sweep, sweep
from sweeps.executor.driver import Driver

STREAM = {"name": "blobs", "experiences": 4}
NODES = 2


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without room for workers, and two nodes with a CPU each; one has a (fake) GPU."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    cluster.add_node(num_cpus=1, num_gpus=1, resources={"fast": 1})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def noted(log: Path, **settings: Any) -> dict[str, Any]:
    return {"name": "tests.helpers.sweep_strategies:Noted", "log": str(log), **settings}


FILE = "tests/helpers/sweep_strategies.py:Noted"


def all_orders(log: Path, **settings: Any) -> dict[str, Any]:
    """The 24 orders of four experiences: 64 distinct states for 96 steps."""
    return {
        "base": {"stream": STREAM},
        "axes": {"strategy": [noted(log, **settings)], "curriculum": ["all"]},
    }


def lines(log: Path) -> list[list[str]]:
    return [line.split(maxsplit=4) for line in log.read_text().splitlines()] if log.exists() else []


def check_complete(found: Sweep, out: Path) -> None:
    """All 24 results are there, and a sample is equal, bit by bit, to runs made alone."""
    assert found.complete
    assert found.failed == 0
    runs = found.phases[0].runs
    assert len(runs) == 24
    for run in random.Random(0).sample(list(runs), 3):
        result = Result.load(out / "runs" / run.run_id)
        alone = execute(make_plan(run.config), None)
        assert result is not None
        assert result.run_id == alone.run_id
        assert result.metrics == alone.metrics
        assert all(result.matrices[mask] == alone.matrices[mask] for mask in alone.matrices)


def after(n: int, act: Callable[[Driver], None]) -> Callable[[Driver], Any]:
    """For `watch`: act once, when `n` experiences have been trained."""
    done: list[bool] = []

    def of(driver: Driver) -> Callable[[Any], None]:
        def tick(phase: Any) -> None:
            if not done and phase.tally.trained >= n:
                done.append(True)
                act(driver)

        return tick

    return of


def test_every_state_is_trained_once_on_all_nodes(cluster: Cluster, tmp_path: Path) -> None:
    log = tmp_path / "log"
    found = sweep(all_orders(log, seconds=0.1), tmp_path / "out")
    trained = lines(log)
    tally = found.phases[0].tally
    assert (tally.experiences, tally.distinct, tally.trained, tally.known) == (96, 64, 64, 0)
    assert len(trained) == 64
    assert len({process for process, *_ in trained}) == NODES

    again = sweep(all_orders(log, seconds=0.1), tmp_path / "out")
    assert again.phases[0].tally.kept == 24
    assert len(lines(log)) == 64
    check_complete(found, tmp_path / "out")


def test_a_killed_worker_is_replaced(cluster: Cluster, tmp_path: Path, rng: random.Random) -> None:
    log = tmp_path / "log"

    def kill(driver: Driver) -> None:
        os.kill(int(lines(log)[-1][0]), signal.SIGKILL)

    found = sweep(
        all_orders(log, seconds=0.02), tmp_path / "out", watch=after(rng.randrange(1, 40), kill)
    )
    assert len(lines(log)) <= 64 + 4  # what it was doing is done again, and no more
    check_complete(found, tmp_path / "out")


@pytest.mark.slow
def test_a_killed_node_is_done_without(
    cluster: Cluster, tmp_path: Path, rng: random.Random
) -> None:
    log, third = tmp_path / "log", cluster.add_node(num_cpus=1)
    found = sweep(
        all_orders(log, seconds=0.05),
        tmp_path / "out",
        watch=after(
            rng.randrange(5, 30), lambda _: cluster.remove_node(third, allow_graceful=False)
        ),
    )
    assert len(lines(log)) <= 64 + 4
    check_complete(found, tmp_path / "out")


@pytest.mark.slow
def test_a_gpu_node_may_come_and_go(cluster: Cluster, tmp_path: Path, rng: random.Random) -> None:
    """The only node that can hold a run goes twice, and each time another one comes some time
    later."""
    log, visitor = tmp_path / "log", {"num_cpus": 1, "num_gpus": 1, "resources": {"visitor": 1}}
    nodes = [cluster.add_node(**visitor)]
    leaving = [rng.randrange(2, 20), rng.randrange(25, 45)]  # after so many experiences
    absent = [0]

    def watch(driver: Driver) -> Callable[[Any], None]:
        def tick(phase: Any) -> None:
            if absent[0]:
                absent[0] -= 1
                if not absent[0]:
                    nodes.append(cluster.add_node(**visitor))
            elif leaving and phase.tally.trained >= leaving[0]:
                leaving.pop(0)
                cluster.remove_node(nodes[-1], allow_graceful=False)
                absent[0] = 4  # ticks

        return tick

    half = {"cpus": 0.5, "gpus": 0.5, "custom": {"visitor": 0.5}}
    spec = all_orders(log, seconds=0.3) | {"resources": half}
    spec["base"] |= {"device": "cpu"}
    found = sweep(spec, tmp_path / "out", watch=watch)
    cluster.remove_node(nodes[-1], allow_graceful=False)
    assert (len(nodes), leaving) == (3, [])
    assert len({process for process, *_ in lines(log)}) >= 3
    assert len(lines(log)) <= 64 + 2 * 4
    check_complete(found, tmp_path / "out")


@pytest.mark.slow
def test_without_a_folder_that_all_nodes_share(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under this name every process sees another folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    found = sweep(all_orders(tmp_path / "log"), "/proc/self/cwd/out")
    assert len(lines(tmp_path / "log")) == 64
    check_complete(found, tmp_path / "here" / "out")
    again = sweep(all_orders(tmp_path / "log"), tmp_path / "here" / "out")
    assert again.phases[0].tally.kept == 24
    assert not list((tmp_path / "here" / "out").glob(".*"))


@pytest.mark.slow
def test_a_worker_that_dies_every_time_is_given_up(cluster: Cluster, tmp_path: Path) -> None:
    deadly = "tests.helpers.sweep_strategies:Deadly"
    spec = {
        "base": {"stream": STREAM},
        "axes": {"strategy": [deadly, noted(tmp_path / "log")], "seed": {"range": 2}},
    }
    found = sweep(spec, tmp_path / "out")
    assert found.complete
    errors = found.phases[0].errors
    assert len(errors) == found.failed == 2
    assert set(errors.values()) == {"lost 3 workers: its process or node died"}
    assert found.phases[0].tally.done == 2


def test_a_failed_run_is_recorded_and_the_others_go_on(cluster: Cluster, tmp_path: Path) -> None:
    exploding = {
        "name": "tests.helpers.sweep_strategies:Exploding",
        "tame": {"grid": [True, False]},
    }
    hung = {"name": "tests.helpers.sweep_strategies:Hung"}
    spec = {
        "base": {"stream": STREAM},
        "axes": {"strategy": [exploding, hung], "seed": [0, 1]},
        "workers": 1,
        "budget": {"minutes_per_experience": 0.05},
    }
    found = sweep(spec, tmp_path)
    assert found.complete
    assert (found.phases[0].tally.done, found.failed) == (3, 3)
    errors = set(found.phases[0].errors.values())
    exploded = "failed at experience 3 of 4, step 1: loss is nan with lr=0.05; lower lr"
    ended = (
        "an experience took longer than budget.minutes_per_experience=0.05 allows, and was ended"
    )
    assert errors == {exploded, ended}
    assert len(list(tmp_path.glob("runs/*/failed.json"))) == 3
    assert exploded in (tmp_path / "report.html").read_text()

    del spec["axes"]["strategy"][1]
    kept = sweep(spec, tmp_path)  # without being tried again
    assert (kept.phases[0].tally.kept, kept.failed, kept.phases[0].tally.trained) == (2, 2, 0)
    retried = sweep(spec, tmp_path, retry_failed=True)
    assert retried.failed == 2


def test_a_new_value_of_an_axis_runs_only_what_is_new(cluster: Cluster, tmp_path: Path) -> None:
    log = tmp_path / "log"
    spec = {"base": {"stream": STREAM}, "axes": {"strategy": [noted(log)], "seed": [0]}}
    sweep(spec, tmp_path / "out")
    spec["axes"]["seed"] = [0, 1]
    found = sweep(spec, tmp_path / "out")
    assert (found.phases[0].tally.kept, found.phases[0].tally.done) == (1, 2)
    assert len(lines(log)) == 8


def test_gpus_are_shared_as_declared(cluster: Cluster, tmp_path: Path) -> None:
    log = tmp_path / "log"
    spec = {
        "base": {"stream": STREAM, "device": "cpu"},
        "axes": {"strategy": [noted(log, seconds=0.2)], "seed": {"range": 6}},
        "resources": {"cpus": 0.25, "gpus": 0.5},
    }
    assert sweep(spec, tmp_path / "out").complete
    assert {gpus for _, gpus, *_ in lines(log)} == {"0"}
    assert len({process for process, *_ in lines(log)}) == 2
    moments = [(float(start), float(end)) for _, _, start, end, _ in lines(log)]
    overlaps = [sum(a <= start < b for a, b in moments) for start, _ in moments]
    assert max(overlaps) == 2


def test_without_gpus_none_is_seen(cluster: Cluster, tmp_path: Path) -> None:
    spec = {
        "base": {"stream": STREAM},
        "axes": {"strategy": [noted(tmp_path / "log")], "seed": [0, 1]},
        "resources": {"custom": {"fast": 1}},
    }
    assert sweep(spec, tmp_path / "out").complete
    assert {gpus for _, gpus, *_ in lines(tmp_path / "log")} == {"-"}
    assert len({process for process, *_ in lines(tmp_path / "log")}) == 1


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"cpus": 64}, "resources CPU=64 for one run: no node has more than CPU=1; ask for less"),
        ({"gpus": 2}, "no node has more than GPU=1"),
        ({"custom": {"tpu": 1}}, "no node has more than tpu=0"),
    ],
)
def test_impossible_resources_are_refused(
    cluster: Cluster, tmp_path: Path, resources: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput) as caught:
        sweep({"axes": {"seed": [0]}, "resources": resources}, tmp_path)
    assert message in str(caught.value)


def test_tuning_chooses_by_validation_data_and_the_final_runs_follow(
    cluster: Cluster, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    stream = {"name": "split-digits", "validation": 0.2}
    spec = {
        "base": {"stream": stream},
        "axes": {
            "strategy": [noted(log, rate={"grid": [1e-4, 1.0]})],
            "seed": [0, 1],
        },
        "tune": {"experiences": 2, "metric": "learning_accuracy"},
        "final": {"seeds": 2},
        "workers": 1,
    }
    found = sweep(spec, tmp_path / "out")
    assert found.complete
    tuning, final = found.phases
    assert tuning.tally.done == 4
    assert len(lines(log)) == 4 * 2 + 2 * 5  # two experiences while tuning, all of them after
    (choice,) = found.chosen
    assert choice.config.strategy["rate"] == 1.0
    assert [run.config.seed for run in final.runs] == [2, 3]
    frame = found.results()
    assert len(frame) == 2
    results = [p.parent.name for p in (tmp_path / "out").glob("runs/*/result.json")]
    assert sorted(results) == sorted(frame["run_id"])  # nothing of tuning saw whole streams

    # What was chosen is what separate runs on validation data say.
    for run in tuning.runs:
        settings = run.config.model_dump() | {
            "strategy": noted(log, rate=run.config.strategy["rate"])
        }
        alone = execute(make_plan(parse_config(settings)), None)
        rows = alone.validation["seen"].values
        expected = (rows[1, 0] + rows[2, 1]) / 2
        assert tuning.metrics[run.run_id]["validation/learning_accuracy"] == pytest.approx(expected)


@pytest.mark.slow
def test_an_adaptive_search_chooses_and_when_started_again_trains_nothing_twice(
    cluster: Cluster, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    spec = {
        "base": {"stream": {"name": "split-digits", "validation": 0.2}},
        "axes": {"strategy": [noted(log, rate={"loguniform": [1e-5, 1.0]})]},
        "tune": {
            "method": "asha",
            "trials": 4,
            "experiences": 3,
            "metric": "learning_accuracy",
            "grace": 1,
        },
        "final": {"seeds": [7]},
    }
    found = sweep(spec, tmp_path / "out")
    assert found.complete
    tuning, final = found.phases
    assert len(tuning.trials) == tuning.tally.runs == 4
    assert all(1 <= len(trial["objectives"]) <= 3 for trial in tuning.trials)
    longest = [t for t in tuning.trials if len(t["objectives"]) == 3]
    (choice,) = found.chosen
    assert choice.objective == max(t["objectives"][-1] for t in longest)
    assert choice.config.strategy["rate"] > 1e-2  # a rate of nothing learns nothing
    assert [run.config.seed for run in final.runs] == [7]
    assert len(lines(log)) <= 4 * 3 + 5
    assert not (tmp_path / "out" / "tune").exists()
    shown = tuning_of(found.runs)
    assert shown is not None
    (best,) = [t for t in shown.trials if t.chosen]
    assert (best.value, best.learned) == (choice.objective, 3)

    (tmp_path / "out" / "sweep.json").unlink()
    again = sweep(spec, tmp_path / "out")
    assert again.complete
    assert again.chosen[0].config == choice.config
    assert len(lines(log)) <= 4 * 3 + 5  # a trial that was stopped early may go further this time


@pytest.mark.slow
def test_a_trial_whose_process_dies_goes_on_from_its_states(
    cluster: Cluster, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    spec = {
        "base": {"stream": {"name": "split-digits", "validation": 0.2}},
        "axes": {"strategy": [noted(log, die_in=3, rate={"choice": [1.0]}, name=FILE)]},
        "tune": {"method": "asha", "trials": 1, "experiences": 4, "grace": 4},
    }
    (trial,) = sweep(spec, tmp_path / "out").phases[0].trials
    assert trial["error"] is None
    assert len(trial["objectives"]) == 4
    assert [experience for *_, experience in lines(log)] == ["0 1", "2 3", "4 5", "6 7"]
    assert len({process for process, *_ in lines(log)}) == 2
