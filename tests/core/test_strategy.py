"""Which classes compete in training: all of the stream, or those seen so far."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from cl_platform.config.run_config import parse_config
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.parts.fisher import diagonal_fisher
from strategies.parts.gradients import flat_gradient, flatten, trainable

BLOBS = {"name": "blobs", "experiences": 3, "samples_per_class": 20}
REPLAY = ["er", "er-ace", "mir", "gss", "a-gem", "gem", "icarl", "scheduled-replay"]
OTHERS = ["finetune", "cumulative", "ewc", "si", "mas", "lwf", "tag"]
REFRESH = {"name": "refresh", "inner": {"name": "er"}, "noise": 0.0}


def fold_of(strategy: str | dict, steps: int = 0, **settings: object) -> Fold:
    data = {"stream": BLOBS, "strategy": strategy, "model": {"name": "mlp", "hidden": [8]}}
    fold = Fold(make_plan(parse_config({**data, **settings})), StateStore(None), Trackers())
    for _ in range(steps):
        fold.train()
    return fold


def to_come(fold: Fold) -> Tensor:
    """The classifier's weights of the classes that are not seen before the last experience."""
    return flatten([p[4:] for p in fold.strategy.model.classifier.parameters()])


@pytest.mark.parametrize("strategy", [*REPLAY, *OTHERS, REFRESH], ids=str)
def test_among_the_seen_classes_those_to_come_are_not_touched(strategy: str | dict) -> None:
    moved = {}
    for loss_classes in ("seen", "all"):
        fold = fold_of(strategy, loss_classes=loss_classes, optimizer={"lr": 0.01})
        before = to_come(fold)
        fold.train()
        fold.train()
        moved[loss_classes] = bool((to_come(fold) != before).any())
    own_mask = strategy in ("er-ace", "icarl")  # they compare seen classes in any case
    assert moved == {"seen": False, "all": not own_mask}


def test_prediction_compares_all_classes_in_any_case() -> None:
    fold = fold_of("finetune", steps=1, loss_classes="seen")
    x = next(fold.strategy.batches(fold.plan.steps[0].experience)).x
    assert fold.strategy(x)[:, 2:].isneginf().all()
    assert torch.equal(fold.strategy.eval()(x), fold.strategy.model(x))


@pytest.mark.parametrize("scenario", ["task", "domain"])
def test_other_scenarios_are_not_affected(scenario: str) -> None:
    stream = {"name": "split-digits", "scenario": scenario, "samples": 30}
    ends = []
    for loss_classes in ("all", "seen"):
        fold = fold_of("er", steps=2, stream=stream, loss_classes=loss_classes)
        ends.append(flatten(trainable(fold.strategy.model)))
    assert torch.equal(*ends)


def test_the_classes_seen_are_those_up_to_the_present_experience(tmp_path: Path) -> None:
    config = parse_config({"stream": BLOBS, "strategy": "finetune", "curriculum": [2, 0, 1]})
    store = StateStore(tmp_path)
    fold = Fold(make_plan(config), store, Trackers())
    seen = []
    for _ in range(3):
        fold.train()
        seen.append(fold.strategy.info.seen.nonzero().flatten().tolist())
    assert seen == [[4, 5], [0, 1, 4, 5], [0, 1, 2, 3, 4, 5]]
    resumed = Fold(make_plan(config), store, Trackers())
    assert resumed.load(2)
    assert resumed.strategy.info.seen.nonzero().flatten().tolist() == seen[1]


def test_joint_training_sees_all_classes() -> None:
    fold = fold_of("joint", steps=1, loss_classes="seen")
    assert fold.strategy.info.seen.all()


def test_the_fisher_information_is_that_of_the_same_loss() -> None:
    fold = fold_of("finetune", steps=1, loss_classes="seen")
    strategy, experience = fold.strategy, fold.plan.steps[0].experience
    parameters = trainable(strategy.model)
    by_hand = torch.zeros_like(flatten(parameters))
    for b in strategy.batches(experience, 1):
        gradient = flat_gradient(cross_entropy(strategy.model(b.x)[:, :2], b.y), parameters)
        by_hand += gradient.square() / len(experience.train)
    ours = diagonal_fisher(strategy, experience)
    assert torch.allclose(ours, by_hand, rtol=1e-3, atol=1e-9)
