"""Epochs and optimizers that differ from experience to experience: what is trained, and its keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cl_platform as clp
from cl_platform.config.run_config import parse_config
from cl_platform.engine.fold import Fold
from cl_platform.engine.plan import Plan
from cl_platform.engine.planner import make_plan
from cl_platform.errors import ConfigError
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers

STREAM = {"name": "blobs", "samples_per_class": 20, "experiences": 3}


def planned(strategy: Any = "finetune", **settings: Any) -> Plan:
    return make_plan(parse_config({"stream": STREAM, "strategy": strategy, **settings}))


def run(strategy: Any = "finetune", **settings: Any) -> tuple[list[float], np.ndarray]:
    """The samples that each step trains on, and the accuracy matrix."""
    fold = Fold(planned(strategy, **settings), StateStore(None), Trackers())
    records = fold.run()
    rows = [list(r.rows["test"]["seen"].values()) for r in records]
    return [r.cost["samples"] for r in records[1:]], np.array(rows)


def test_each_step_has_its_own_epochs() -> None:
    samples, _ = run(epochs=[3, 1])
    assert samples == [120, 40, 40]
    assert run("cumulative", epochs=[3, 1])[0] == [120, 80, 120]


def test_equal_items_are_the_single_number_to_the_bit() -> None:
    single = planned(epochs=2, optimizer={"lr": 0.1})
    assert planned(epochs=[2, 2], optimizer={"lr": [0.1]}).keys == single.keys
    assert planned(epochs=2, optimizer=[{"lr": 0.1}]).keys == single.keys
    np.testing.assert_array_equal(
        run(epochs=2, optimizer={"lr": 0.1})[1], run(epochs=[2, 2], optimizer=[{"lr": 0.1}])[1]
    )


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ({"epochs": 2}, {"epochs": [2, 1]}, 1),
        ({"epochs": [2, 1]}, {"epochs": [2, 1, 1]}, 3),
        ({"epochs": [2, 1, 2]}, {"epochs": [2, 1]}, 2),
        ({"epochs": [2, 2, 1]}, {"epochs": [2, 3, 1]}, 1),
        ({"epochs": [1, 2]}, {"epochs": 2}, -1),
        ({"optimizer": {"lr": [0.1, 0.01]}}, {"optimizer": {"lr": 0.1}}, 1),
        ({"optimizer": [{"lr": 0.1}, {"name": "adam"}]}, {"optimizer": {"lr": 0.1}}, 1),
    ],
    ids=str,
)
def test_states_are_shared_up_to_the_first_difference(
    first: dict[str, Any], second: dict[str, Any], shared: int
) -> None:
    a, b = planned(**first), planned(**second)
    same = [one == other for one, other in zip(a.keys, b.keys, strict=True)]
    assert same == [k <= shared for k in range(4)]
    assert a.run_id != b.run_id


def test_a_list_of_rates_trains_as_each_of_them_does() -> None:
    """The first step as with the first rate alone; after it a rate of next to nothing."""
    _, fast = run(optimizer={"lr": 0.1})
    _, mixed = run(optimizer={"lr": [0.1, 1e-12]})
    np.testing.assert_array_equal(mixed[1], fast[1])
    np.testing.assert_array_equal(mixed[2, 0], mixed[1, 0])  # of what is seen, nothing has moved
    assert not np.array_equal(fast[2], mixed[2])


def test_the_second_optimizer_takes_over() -> None:
    _, sgd = run(optimizer={"name": "sgd", "lr": 0.05})
    _, both = run(optimizer=[{"name": "sgd", "lr": 0.05}, {"name": "adam", "lr": 0.01}])
    np.testing.assert_array_equal(sgd[1], both[1])
    assert not np.array_equal(sgd[2], both[2])


class Watching(clp.Strategy):
    """Notes what it is told of the run's loop at each step."""

    def begin_experience(self, experience: clp.Experience) -> None:
        optimizer = self.info.build_optimizer(self)  # type: ignore[misc]
        noted.append((self.info.epochs, optimizer.param_groups[0]["lr"]))


noted: list[tuple[int, float]] = []


def test_a_strategy_is_told_the_settings_of_the_present_step() -> None:
    noted.clear()
    config = parse_config(
        {"stream": STREAM, "epochs": [2, 1], "optimizer": {"lr": [0.1, 0.2, 0.3]}},
        given=("strategy",),
    )
    Fold(make_plan(config, {"strategy": Watching()}), StateStore(None), Trackers()).run()
    assert noted == [(2, 0.1), (1, 0.2), (1, 0.3)]


def test_a_run_of_lists_goes_on_from_a_state_as_if_never_interrupted(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"epochs": [2, 1], "optimizer": {"lr": [0.1, 0.02]}}
    _, whole = run(**settings)
    for upto in (1, 3):
        fold = Fold(planned(**settings), StateStore(tmp_path), Trackers())
        records = fold.run(upto)
    assert fold.trained == 2
    rows = [list(r.rows["test"]["seen"].values()) for r in records]
    np.testing.assert_array_equal(whole, np.array(rows))


def test_a_pacing_and_its_reference_have_the_epochs_of_the_step() -> None:
    pacing = {"name": "cyclical"}
    plain, listed = planned(pacing=pacing, epochs=2), planned(pacing=pacing, epochs=[2, 3])
    assert plain.keys[:2] == listed.keys[:2]
    assert plain.keys[2] != listed.keys[2]
    assert plain.reference is not None
    assert listed.reference is not None
    assert plain.reference.keys[0] == listed.reference.keys[0]
    assert plain.reference.keys[1] != listed.reference.keys[1]
    assert listed.of_reference(2).config.epochs == 3
    assert run(pacing=pacing, epochs=[2, 3])[0] == [80, 120, 120]


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"epochs": [3, 2, 1, 1]},
            "epochs has 4 items, and strategy 'finetune' trains in 3 steps: give at most one for "
            "each; the last holds for all that follow",
        ),
        (
            {"strategy": "joint", "optimizer": {"lr": [0.1, 0.2]}},
            "optimizer.lr has 2 items, and strategy 'joint' trains in 1 step: give at most one "
            "for each; the last holds for all that follow",
        ),
        (
            {"stream": {**STREAM, "online": True}, "epochs": [1, 2]},
            "epochs=[1, 2]: an online stream is seen once; give epochs=1",
        ),
        (
            {"optimizer": [{"reset": False}, {"name": "adam"}]},
            "optimizer.reset=false: the state of one optimizer cannot go on in another; give one "
            "optimizer, of which lr alone may be a list",
        ),
        (
            {"epochs": [3, 1], "schedule": {"warmup": 5}},
            "schedule.warmup=5 is longer than the shortest experience, which has 4 steps: give "
            "fewer, or a share such as 0.1",
        ),
        ({"optimizer": [{}, {"name": "adm"}]}, "unknown optimizer 'adm'. Did you mean 'adam'?"),
        ({"optimizer": [{}, {"momentun": 1}]}, "optimizer.momentun is unknown. "),
    ],
    ids=str,
)
def test_lists_that_do_not_fit_are_refused_in_one_line(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        planned(**{"strategy": "finetune", **settings})
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_a_teacher_learns_in_slices_and_refuses_lists() -> None:
    with pytest.raises(
        ConfigError, match=r"^epochs: curriculum 'teacher:\S+' learns in slices; give"
    ):
        planned(
            stream={"name": "split-digits", "validation": 0.1},
            curriculum="teacher:random",
            epochs=[2, 1],
        )


def test_moments_go_on_through_a_list_of_rates() -> None:
    kept = {"name": "adam", "reset": False}
    _, single = run(optimizer={**kept, "lr": 0.01})
    _, listed = run(optimizer={**kept, "lr": [0.01, 0.01]})
    np.testing.assert_array_equal(single, listed)
