"""Searches, references, measured affinities, policies and objects, on a local Ray that all share."""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import cl_platform as clp
from cl_platform.config.signatures import build
from cl_platform.core.order.affinity import affinity_of, ask
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
from tests.sweeps.tuning import test_policy_search as policies

Clp = Callable[..., tuple[int, str, str]]


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


# --- affinities


DIGITS = build("stream", {"name": "split-digits", "experiences": 5, "validation": 0.15})


def test_workers_measure_affinities_with_the_steps_and_bits_of_one_process(
    cluster: None, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    strategy = {"name": "tests.helpers.sweep_strategies:Noted", "log": str(log)}
    section = {"name": "pairwise", "base": {"strategy": strategy}, "mask": "task"}
    spread = ask(DIGITS, affinity_of({**section, "workers": 2}))
    steps = [line.split(maxsplit=4) for line in log.read_text().splitlines()]
    assert Counter(name for *_, name in steps) == {e.name: 1 + 4 for e in DIGITS.experiences}
    assert str(os.getpid()) not in {process for process, *_ in steps}
    log.unlink()
    assert np.array_equal(ask(DIGITS, affinity_of(section)), spread)
    assert len(log.read_text().splitlines()) == 5 + 20


# --- objects, and classes that no module holds


def stream() -> clp.Stream:
    x = torch.randn(80, 6, generator=torch.Generator().manual_seed(0))
    samples = clp.Samples.of(x, torch.arange(80) % 4)
    return clp.class_incremental("mine", [[0, 1], [2, 3]], list("abcd"), samples, samples)


def test_objects_travel_to_workers_with_the_keys_of_their_code(
    cluster: None, tmp_path: Path
) -> None:
    class Mine(clp.Strategy):
        """Learns with a factor of the loss."""

        factor: float = 1.0

        def loss(self, batch: Any) -> Any:
            if self.factor > 9:
                raise ArithmeticError("too much")
            return self.factor * nn.functional.cross_entropy(self(batch.x), batch.y)

    class Net(nn.Module):
        def __init__(self, input_shape: tuple[int, ...], n_classes: int) -> None:
            super().__init__()
            self.layer = nn.Linear(input_shape[0], n_classes)

        def forward(self, x: torch.Tensor) -> Any:
            return self.layer(x)

    axes = {"strategy": [Mine, Mine(factor=2.0), "er", Mine(factor=10.0)]}
    base = {"stream": stream(), "model": Net}
    found = sweep({"base": base, "axes": axes, "workers": 1}, tmp_path)
    frame = found.results()
    assert len(frame) == 4
    (failed,) = frame[frame["error"] != ""].to_dict("records")
    assert failed["strategy.factor"] == 10
    assert "ArithmeticError: too much" in failed["error"]
    for (_, row), strategy in zip(frame[:3].iterrows(), axes["strategy"], strict=False):
        loaded = clp.load_run(row["path"])
        named = next(s for s in axes["strategy"] if _matches(s, loaded.config["strategy"]))
        alone = clp.run(stream(), named, model=Net, out=None)
        assert loaded.matrix == alone.matrix, strategy
        assert loaded.command is None


def _matches(strategy: Any, section: dict[str, Any]) -> bool:
    if isinstance(strategy, str):
        return bool(section["name"] == strategy)
    if not section["name"].startswith("given:Mine-"):
        return False
    return bool(getattr(strategy, "factor", 1.0) == section["factor"])


# --- a policy of replay schedules from one command: all schedules, what is learned, the final runs


def test_a_policy_is_learned_on_some_seeds_and_judged_on_others(
    cluster: None, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    run_clp: Clp = request.getfixturevalue("clp")
    spec = {
        "base": policies.BASE,
        "axes": {"seed": [0, 1]},
        "tune": {"method": "policy", "policy": policies.LEARNING},
        "final": {"seeds": 2},
        "workers": 1,
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(spec))
    code, out, err = run_clp("sweep", str(tmp_path / "mine.yaml"), "--out", str(tmp_path / "out"))
    assert (code, err) == (0, "")
    text = " ".join(out.split())
    assert "accuracy after each experience, on the 2 seeds learned from: policy 0." in text
    assert f"tune: runs 60 of 60 done; {2 * policies.TREE} experiences trained" in text
    record = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert [phase["name"] for phase in record["phases"]] == ["tune", "final"]
    (path,) = (tmp_path / "out" / "policies").iterdir()
    (chosen,) = record["chosen"]
    assert chosen["config"]["strategy"]["policy"] == str(path)
    final = [run["run_id"] for run in record["phases"][1]["runs"]]
    results = [Result.load(tmp_path / "out" / "runs" / run_id) for run_id in final]
    assert [result and result.config["seed"] for result in results] == [2, 3]
    # A run by itself finds the same file.
    given = [
        "--strategy",
        "scheduled-replay",
        "--set",
        f"strategy.policy={path}",
        "--out",
        str(tmp_path / "own"),
    ]
    stream = ["--stream", "split-digits", "--set", "stream.experiences=4"]
    more = ["--set", "stream.validation=0.3", "--set", "stream.samples=30", "--seed", "7", "--json"]
    code, out, err = run_clp("run", *stream, *given, *more)
    assert (code, err) == (0, "")
    assert json.loads(out)["config"]["strategy"]["policy"] == str(path)
