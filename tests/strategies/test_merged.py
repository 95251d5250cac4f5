"""Merged weights: training does not notice, and evaluations have nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import cl_platform as clp
from cl_platform import Batch, Strategy, StreamInfo, check_strategy
from cl_platform.config.run_config import parse_config
from cl_platform.core.wrapper import Wrapper
from cl_platform.deploy.trained import network_of
from cl_platform.engine.fold import Fold
from cl_platform.engine.lanes.choice import unfit
from cl_platform.engine.planner import make_plan
from cl_platform.engine.steps import evaluating
from cl_platform.errors import BadInput, ClpError
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.baselines import Finetune
from strategies.merged import RULES

STREAM = {"name": "blobs", "experiences": 3, "samples_per_class": 30}
METHODS = ("interpolation", "ema", "slerp", "average", *RULES)


def fold_of(strategy: Any, store: StateStore | None = None, **settings: Any) -> Fold:
    data = {"stream": STREAM, "strategy": strategy, "optimizer": {"lr": 0.05}, **settings}
    return Fold(make_plan(parse_config(data)), store or StateStore(None), Trackers())


def ended(strategy: Any, **settings: Any) -> Fold:
    fold = fold_of(strategy, **settings)
    fold.run()
    return fold


def merged(inner: str | dict[str, Any], **given: object) -> dict[str, object]:
    return {"name": "merged", "inner": inner, **given}


def assert_equal(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    for key, value in a.items():
        same = torch.equal(value, b[key]) if isinstance(value, Tensor) else value == b[key]
        assert same, key


@pytest.mark.parametrize(
    ("inner", "settings"),
    [
        ("er", {}),
        ("ewc", {"evaluate_every": 2}),
        ({"name": "gdumb", "passes": 2}, {}),
        ("si", {"optimizer": {"lr": 0.05, "momentum": 0.9, "reset": False}}),
        ("l2p", {"model": "tiny-transformer"}),
        ("lora", {"model": "tiny-transformer", "stream": {**STREAM, "scenario": "task"}}),
        (
            "er",
            {
                "stream": {"name": "split-digits", "samples": 60},
                "model": {"name": "cnn", "width": 4},
            },
        ),
        ("der++", {"stream": {**STREAM, "open": True}}),
    ],
)
def test_with_all_weight_on_the_raw_ones_it_is_the_inner_strategy(
    inner: str | dict[str, Any], settings: dict[str, Any]
) -> None:
    plain, wrapped = ended(inner, **settings), ended(merged(inner, weight=1.0), **settings)
    assert_equal(plain.strategy.state_dict(), wrapped.strategy.inner.state_dict())
    for a, b in zip(plain.records, wrapped.records, strict=True):
        assert (a.rows, a.anytime, a.calibration) == (b.rows, b.anytime, b.calibration)


@pytest.mark.parametrize("method", METHODS)
def test_training_from_raw_weights_does_not_notice_what_is_evaluated(method: str) -> None:
    given = {"method": method, "weight": 0.4, "growth": 0.1}
    wrapped = ended(merged("er", **given), evaluate_every=3)
    plain = ended("er", evaluate_every=3)
    assert_equal(plain.strategy.state_dict(), wrapped.strategy.inner.state_dict())
    assert wrapped.records[3].rows != plain.records[3].rows


@pytest.mark.parametrize("start", ["raw", "merged", "initial"])
@pytest.mark.parametrize("method", ["interpolation", "ema", "slerp", "task-arithmetic"])
def test_without_weight_it_stays_the_initial_model(method: str, start: str) -> None:
    given = {"method": method, "weight": 0.0, "start_from": start}
    model = {"name": "cnn", "width": 4}
    fold = ended(
        merged("finetune", **given), stream={"name": "split-digits", "samples": 60}, model=model
    )
    initial = fold_of("finetune", stream={"name": "split-digits", "samples": 60}, model=model)
    found = {k: v.clone() for k, v in shown(fold).items() if not k.endswith("batches_tracked")}
    if method != "task-arithmetic":  # where statistics of batch norm are averaged
        assert_equal(found, {k: initial.strategy.state_dict()[k] for k in found})
        assert all(
            r.rows["test"]["all"] == fold.records[0].rows["test"]["all"] for r in fold.records
        )
    for name, parameter in initial.strategy.named_parameters():
        assert torch.equal(found[name], parameter)


def shown(fold: Fold) -> dict[str, Tensor]:
    """Return the inner state that a fold's strategy is evaluated with."""
    with evaluating(fold.strategy, fold.state.average):
        return {k: v.clone() for k, v in fold.strategy.inner.state_dict().items()}


class Line(Finetune):
    """Has a single weight, which each experience adds something to."""

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        self.place = torch.nn.Parameter(torch.zeros(1))

    def end_experience(self, experience: clp.Experience) -> None:
        self.place.data += 2 ** (self.info.rng.step - 1)

    def training_step(self, batch: Batch) -> Tensor:
        return self.loss(batch).detach()


def places(**given: object) -> Iterator[float]:
    """Yield the evaluated weight after each experience."""
    fold = fold_of(merged(f"{__name__}:Line", **given))
    for k in range(1, 4):
        fold.run(upto=k)
        yield round(float(shown(fold)["place"]), 6)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # From 0 raw weights go to 1, 3 and 7.
        ({"method": "interpolation", "weight": 0.1}, [0.1, 0.3, 0.7]),
        ({"method": "ema", "weight": 0.1}, [0.1, 0.39, 1.051]),  # as published
        ({"method": "average"}, [1, 2, 3.666667]),
        ({"method": "task-arithmetic", "weight": 0.5}, [0.5, 2, 5.5]),
        ({"method": "magmax", "weight": 0.5}, [0.5, 1.5, 3.5]),
        # Always from 0, to 1, 2 and 4.
        ({"method": "ema", "weight": 0.1, "start_from": "initial"}, [0.1, 0.29, 0.661]),
        ({"method": "interpolation", "weight": 0.1, "start_from": "initial"}, [0.1, 0.29, 0.661]),
        ({"method": "average", "start_from": "initial"}, [1, 1.5, 2.333333]),
        ({"method": "magmax", "weight": 1.0, "start_from": "initial"}, [1, 2, 4]),
        # From the merge so far: to 1; 0.5 + 2; 1.5 + 4.
        ({"method": "ema", "weight": 0.5, "start_from": "merged"}, [0.5, 1.5, 3.5]),
        ({"method": "interpolation", "weight": 0.5, "start_from": "merged"}, [0.5, 1.5, 3.5]),
        # To 1; 1 and 1 + 2; 4 and 4 + 4.
        ({"method": "task-arithmetic", "weight": 1.0, "start_from": "merged"}, [1, 4, 12]),
    ],
)
def test_weights_after_each_experience(given: dict[str, Any], expected: list[float]) -> None:
    assert list(places(**given)) == pytest.approx(expected, abs=1e-6)


class Watching(Wrapper):
    """Notes what it is evaluated with in the midst of training."""

    def forward(self, x: Tensor, task: Tensor | None = None, *features: Tensor) -> Tensor:
        if not self.training:
            bias = self.inner.inner.model.classifier.bias
            SEEN.append((bool(self.inner.learning), bias.detach().clone()))
        return super().forward(x, task, *features)


SEEN: list[tuple[bool, Tensor]] = []


def test_in_the_midst_of_an_experience_it_is_the_merge_of_the_present_weights() -> None:
    SEEN.clear()
    inner = merged("finetune", method="dare", drop=0.5, weight=1.0)
    fold = ended({"name": f"{__name__}:Watching", "inner": inner}, evaluate_every=2)
    midst = [bias for learning, bias in SEEN if learning]
    assert len({tuple(bias.tolist()) for bias in midst}) > 3  # they change as it learns
    plain = ended(merged("finetune", method="dare", drop=0.5, weight=1.0))
    assert_equal(plain.strategy.state_dict(), fold.strategy.inner.state_dict())  # drawn again


def test_networks_have_the_weights_that_were_scored(tmp_path: Path) -> None:
    section = merged("finetune", method="ties", keep=0.5)
    result = clp.run(STREAM, section, out=tmp_path, optimizer={"lr": 0.05})
    weights = result.model().strategy.inner.state_dict()
    fold = ended(section)
    assert_equal(dict(weights), shown(fold))
    raw = result.strategy().inner.state_dict()
    assert_equal(dict(raw), dict(fold.strategy.inner.state_dict()))
    assert not torch.equal(raw["model.classifier.bias"], weights["model.classifier.bias"])
    assert_equal(
        dict(weights),
        dict(network_of(fold.plan, StateStore(None), retrain=True).strategy.inner.state_dict()),
    )


@pytest.mark.parametrize(
    "given",
    [
        {"method": "dare", "start_from": "merged", "drop": 0.3},
        {"method": "ties", "start_from": "initial"},
        {"method": "metagpt"},
    ],
)
def test_it_keeps_the_contract(given: dict[str, object]) -> None:
    verdicts = check_strategy(merged("er", **given), optimizer={"lr": 0.1})
    # What was merged need not have learned the last experience.
    del verdicts["learns"]
    assert not {name: line for name, line in verdicts.items() if line}


def test_lanes_leave_it_alone_since_they_know_one_set_of_weights() -> None:
    fold = fold_of(merged("er"))
    assert unfit(fold.plan, fold.strategy) == "Merged has its own evaluation_weights"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (merged("er", weight=1.5), "weight=1.5 and growth=0: ema lies between two sets"),
        (merged("er", weight=0.8, growth=0.3), "whose sum is at most 1"),
        (merged("ncm"), "NearestClassMean trains no weights of its own: give another inner"),
    ],
)
def test_what_cannot_be_merged_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        ended(given)


def test_a_running_average_beside_it_is_refused() -> None:
    with pytest.raises(ClpError, match="strategy 'merged' cannot obey ema: leave it out"):
        fold_of(merged("er"), ema=0.9)


class Replacing(Strategy):
    """Has more outputs after the first experience."""

    def end_experience(self, experience: clp.Experience) -> None:
        self.model.classifier = torch.nn.Linear(*self.model.classifier.weight.T.shape, bias=False)


def test_parameters_that_change_their_shapes_are_told() -> None:
    with pytest.raises(ClpError, match=r"Replacing has changed 'model.classifier.bias'"):
        ended(merged(f"{__name__}:Replacing"))
