"""A policy chooses what is replayed by the recorded validation accuracies, and by nothing else."""

from __future__ import annotations

import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from cl_platform import Experience, Strategy, Wrapper
from cl_platform.config.run_config import parse_config
from cl_platform.engine import contract, planner
from cl_platform.engine.execution import execute
from cl_platform.engine.fold import Fold
from cl_platform.engine.plan import Plan
from cl_platform.engine.planner import make_plan
from cl_platform.errors import ClpError
from cl_platform.models.policy import Policy, read_policy
from cl_platform.results.result import Result
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from sweeps.tuning.schedule_search import actions

STREAM = {"name": "split-digits", "experiences": 4, "samples": 30, "validation": 0.3}
BASE = {"stream": STREAM, "model": {"name": "mlp", "hidden": [8]}}


def write(path: Path, threshold: float, n: int = 4) -> str:
    """A policy that replays the first experience if its accuracy is low, else the second."""
    made = Policy([actions(k) for k in range(n)], hidden=n - 1)
    for layer in made.values[::2]:
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.constant_(layer.bias, -1.0)
    with torch.no_grad():
        for layer in (made.values[0], made.values[2]):  # the accuracy of the first experience
            layer.weight[0, 0], layer.bias[0] = 1.0, 0.0
        made.values[4].bias[0] = threshold
        last = [1, 2, 3]  # other actions: more of the second experience
        for action in last:
            made.values[4].weight[action, 0] = 1.0 - action / 100
            made.values[4].bias[action] = 0.0
    path.write_bytes(made.sealed())
    return str(path)


def plan(strategy: dict[str, Any], **more: Any) -> Plan:
    return make_plan(parse_config({**BASE, "strategy": strategy, **more}))


def by_policy(path: str, **more: Any) -> Plan:
    return plan({"name": "scheduled-replay", "policy": path}, **more)


def chosen(result: Result, policy: Policy) -> list[list[float]]:
    """The schedule that follows from the validation matrix of a run."""
    rows = result.validation["seen"].values
    return [policy.actions[k][policy.choose(rows[k, :k].tolist())] for k in range(len(rows) - 1)]


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [2, 0, 3, 1]], ids=str)
@pytest.mark.parametrize("threshold", [0.0, 2.0])
def test_a_run_with_a_policy_is_the_run_with_the_schedule_that_it_chose(
    tmp_path: Path, threshold: float, order: list[int]
) -> None:
    path = write(tmp_path / "policy.json", threshold)
    ours = execute(by_policy(path, curriculum=order), None)
    schedule = chosen(ours, read_policy(path))
    assert schedule[2] == ([1.0, 0.0] if threshold else [0.5, 0.5])
    by_hand = {"name": "scheduled-replay", "schedule": schedule}
    theirs = execute(plan(by_hand, curriculum=order), None)
    assert ours.validation == theirs.validation
    assert ours.matrices == theirs.matrices
    assert ours.metrics == theirs.metrics


class Watching(Strategy):
    """Notes what it is told."""

    needs_validation: ClassVar[bool] = True
    told: ClassVar[list[list[float]]] = []

    def begin_experience(self, experience: Experience) -> None:
        self.told.append([*self.info.validated])


class Blind(Watching):
    """Has not declared that it goes by accuracies."""

    needs_validation: ClassVar[bool] = False
    told: ClassVar[list[list[float]]] = []


class Plain(Wrapper):
    """Changes nothing."""


@pytest.mark.parametrize(("scenario", "mask"), [("class", "seen"), ("task", "task")])
def test_what_a_strategy_is_told_is_the_validation_matrix(scenario: str, mask: str) -> None:
    Watching.told.clear()
    stream = {**STREAM, "scenario": scenario}
    given = {"curriculum": [2, 0, 3, 1], "stream": stream, "epochs": 2}
    result = execute(plan({"name": f"{__name__}:Watching"}, **given), None)
    rows = result.validation[mask].values
    assert Watching.told == [rows[k, :k].tolist() for k in range(4)]
    assert Watching.told[3] != result.matrices[mask].values[3, :3].tolist()


def test_who_does_not_declare_it_is_told_nothing() -> None:
    Blind.told.clear()
    execute(plan({"name": f"{__name__}:Blind"}), None)
    assert Blind.told == [[]] * 4


def test_training_without_evaluation_in_between_is_told_the_same() -> None:
    Watching.told.clear()
    fold = Fold(plan({"name": f"{__name__}:Watching"}), StateStore(None), Trackers())
    for _ in range(4):
        fold.train()
    stepwise = [*Watching.told]
    Watching.told.clear()
    execute(fold.plan, None)
    assert stepwise == Watching.told


def test_resumed_after_any_experience_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    contract._resumes(by_policy(write(tmp_path / "policy.json", 0.5)))


def test_interrupted_within_experiences_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    given = by_policy(write(tmp_path / "policy.json", 0.5), epochs=5)
    undisturbed = Fold(given, StateStore(None), Trackers())
    undisturbed.run()
    interruptions = 0
    with tempfile.TemporaryDirectory() as folder:
        store = contract._Interrupting(Path(folder), checkpoint_minutes=0)
        for _ in range(contract.MOST_INTERRUPTIONS):
            with suppress(KeyboardInterrupt):
                fold = Fold(given, store, Trackers())
                fold.run()
                break
            interruptions += 1
    assert interruptions > 8
    assert not contract._differing(undisturbed.strategy.state_dict(), fold.strategy.state_dict())


def test_keys_cover_the_content_of_the_file_and_the_code_that_evaluates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "policy.json", 0.5)
    before, fixed = by_policy(path), plan({"name": "scheduled-replay"})
    assert by_policy(path).keys == before.keys
    write(tmp_path / "policy.json", 0.6)
    other = by_policy(path)
    assert not set(other.keys) & set(before.keys)
    assert other.run_id != before.run_id
    assert other.code["strategy"] == before.code["strategy"], "its code is the same"
    inside = {"name": f"{__name__}:Plain", "inner": {"name": "scheduled-replay", "policy": path}}
    wrapped = plan(inside)
    write(tmp_path / "policy.json", 0.5)
    assert by_policy(path).keys == before.keys
    assert not set(wrapped.keys) & set(plan(inside).keys)
    monkeypatch.setattr(planner, "EVALUATION", ("cl_platform.core.matrix",))
    assert not set(by_policy(path).keys) & set(before.keys)
    assert plan({"name": "scheduled-replay"}).keys == fixed.keys


def test_a_policy_inside_a_wrapper_is_told_as_well(tmp_path: Path) -> None:
    path = write(tmp_path / "policy.json", 2.0)
    inner = {"name": "scheduled-replay", "policy": path}
    ours = execute(plan({"name": f"{__name__}:Plain", "inner": inner}), None)
    assert ours.validation == execute(by_policy(path), None).validation


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"stream": {**STREAM, "validation": 0}},
            "strategy 'scheduled-replay' goes by accuracies on validation data, and stream 'split-digits' "
            "has none: give stream.validation, say 0.1",
        ),
        (
            {"stream": {**STREAM, "experiences": 3}},
            "is for streams of 4 experiences, and this one has 3",
        ),
        ({"stream": {**STREAM, "open": True}}, "is set up for a known number of experiences"),
        ({"schedule": [[], [1], [1, 0], [1, 0, 0]]}, "leave strategy.schedule out"),
        ({"policy": "nowhere.json"}, "policy=nowhere.json is no file"),
    ],
    ids=["no validation", "other length", "open", "schedule as well", "no file"],
)
def test_what_a_policy_cannot_do_is_refused_in_one_line_before_training(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "policy.json", 0.5)
    own = {k: v for k, v in changes.items() if k != "stream"}
    stream = changes.get("stream", STREAM)
    with pytest.raises(ClpError, match=re.escape(message)) as caught:
        plan({"name": "scheduled-replay", "policy": path, **own}, stream=stream)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 500
