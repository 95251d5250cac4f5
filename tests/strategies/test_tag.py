"""TAG: with one task it is RMSProp, and conflicting tasks slow it down."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import cl_platform as clp
from cl_platform import Batch, StreamInfo
from cl_platform.config.run_config import parse_config
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.parts.gradients import trainable, views
from strategies.tag import TAG, task_weights


def fold_of(strategy: dict, experiences: int, **optimizer: object) -> Fold:
    stream = {"name": "blobs", "experiences": experiences, "samples_per_class": 40}
    data = {"stream": stream, "strategy": strategy, "optimizer": {"lr": 0.001, **optimizer}}
    return Fold(make_plan(parse_config(data)), StateStore(None), Trackers())


@pytest.mark.parametrize(
    ("flavour", "optimizer"),
    [
        ({"flavour": "rmsprop"}, {"name": "rmsprop"}),
        ({"flavour": "adam", "second_decay": 0.999}, {"name": "adam"}),
        ({"flavour": "adagrad"}, {"name": "adagrad", "eps": 1e-8}),
    ],
)
def test_with_one_task_it_is_the_usual_optimizer(flavour: dict, optimizer: dict) -> None:
    ours, usual = (
        fold_of({"name": "tag", **flavour}, 1),
        fold_of({"name": "finetune"}, 1, **optimizer),
    )
    ours.train()
    usual.train()
    for p, q in zip(ours.strategy.parameters(), usual.strategy.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=1e-4, atol=1e-6)


def test_with_one_task_it_is_rmsprop_to_the_bit() -> None:
    ours = fold_of({"name": "tag"}, 1)
    usual = fold_of({"name": "finetune"}, 1, name="rmsprop", foreach=False)
    ours.train()
    usual.train()
    pairs = zip(ours.strategy.parameters(), usual.strategy.parameters(), strict=True)
    assert all(torch.equal(p, q) for p, q in pairs)


def test_the_weights_of_aligned_orthogonal_and_opposed_tasks() -> None:
    present = torch.tensor([2.0, 0.0])
    past = [torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), torch.tensor([-1.0, 0.0])]
    first = torch.stack([*past, present])
    (weights,) = task_weights([first], 5.0)
    assert torch.allclose(weights[0], torch.tensor(0.00673795), rtol=1e-5)
    assert torch.allclose(weights[1], torch.tensor(1.0))
    assert torch.allclose(weights[2], torch.tensor(148.413159), rtol=1e-5)
    assert torch.allclose(weights[3], torch.tensor(math.exp(-5.0)))


def test_the_own_weight_alone_lengthens_steps_by_its_root() -> None:
    own = task_weights([torch.stack([torch.zeros(2), torch.ones(2)])], 5.0)[0, 1]
    assert float(own.rsqrt()) == pytest.approx(12.182494, rel=1e-5)


def test_with_b_zero_second_moments_are_summed() -> None:
    assert torch.equal(task_weights([torch.randn(4, 7)], 0.0)[0], torch.ones(4))


class OnQuadratics(TAG):
    """Task k pulls the weights towards the k-th corner; the corners are opposed."""

    pull: float = 1.0

    def setup(self, info: StreamInfo) -> None:
        self.info = info
        self.model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.model.weight)
        self.first = nn.Buffer(torch.zeros(info.n_experiences, 1))
        self.second = nn.Buffer(torch.zeros(info.n_experiences, 1))

    def loss(self, batch: Batch) -> Tensor:
        corner = 1.0 if self.index == 0 else -1.0
        return (self.model.weight - corner).square().sum()

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        return torch.zeros(len(x), self.info.n_classes)


def test_a_conflicting_task_moves_less_than_an_aligned_one() -> None:
    moved = {}
    for name, sign in {"aligned": 1.0, "opposed": -1.0}.items():
        fold = fold_of({"name": f"{__name__}:OnQuadratics"}, 2)
        fold.train()
        strategy = fold.strategy
        fold.rng.restart(2)
        strategy.begin_experience(fold.plan.steps[1].experience)
        strategy.first[0] *= -sign  # the first task's direction; the second pulls to -1
        before = float(strategy.model.weight.detach())
        strategy.training_step(Batch(*[torch.zeros(1, dtype=torch.int64)] * 4))
        moved[name] = abs(float(strategy.model.weight.detach()) - before)
    assert moved["opposed"] < moved["aligned"] / 5


def test_another_optimizer_is_refused_in_one_line() -> None:
    with pytest.raises(clp.ClpError, match=r"tag is an optimizer itself.*give optimizer\.name=sgd"):
        clp.run("blobs", "tag", optimizer={"name": "adam", "lr": 0.001}, out=None)


def test_what_is_stored_of_a_task_has_unit_length_per_tensor() -> None:
    fold = fold_of({"name": "tag"}, 2)
    fold.train()
    for m in views(fold.strategy.first[0], trainable(fold.strategy.model)):
        assert float(m.norm()) == pytest.approx(1, rel=1e-4)


def test_in_adams_flavour_every_task_is_corrected_for_its_own_start() -> None:
    fold = fold_of({"name": "tag", "flavour": "adam", "second_decay": 0.999}, 2)
    strategy = fold.strategy
    fold.train()
    stored = strategy.second[0]
    strategy.steps = 1  # the first step of the second task
    second = torch.stack([torch.ones(5), torch.zeros(5)])
    (weighted,) = strategy.weighted([torch.zeros(2, 5)], [second])
    assert torch.allclose(weighted, torch.ones(5))  # whatever the present task's correction
    assert stored.max() < 1e3


def test_schedules_change_the_learning_rate() -> None:
    settings = {"optimizer": {"lr": 0.001}, "out": None, "epochs": 3}
    plain = clp.run("blobs", "tag", **settings)
    annealed = clp.run("blobs", "tag", schedule={"name": "cosineannealinglr"}, **settings)
    assert plain.matrix.values.tolist() != annealed.matrix.values.tolist()
