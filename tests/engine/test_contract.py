"""Every registered strategy faces every check of the contract, by being registered."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from cl_platform import Batch, Experience, Strategy, StreamInfo, check_strategy
from cl_platform.config.registry import load, plugins
from cl_platform.engine.contract import CHECKS
from cl_platform.engine.fold import Fold
from cl_platform.errors import ContractError
from strategies.baselines import Finetune
from strategies.er import ER
from strategies.parts.frozen import FrozenBackbone

# Half the steps of the default batches, each of them longer: the checks are all about steps.
LARGE = {"batch_size": 20, "optimizer": {"lr": 0.075}}
# What some need besides: TAG multiplies the learning rate by a large factor, and SI is held back by
# what it has learned after few steps.
NEEDS: dict[str, dict] = {
    "tag": {"optimizer": {"lr": 0.001}},
    "si": {"batch_size": 10, "optimizer": {"lr": 0.05}},
    "ranpac": {"strategy": {"name": "ranpac", "projections": 100}},  # else seconds for each check
}
# What is built on transformers gets a tiny one, and the optimizer of its papers.
ON_TRANSFORMERS = {"model": "tiny-transformer", "optimizer": {"name": "adam", "lr": 0.015}}
NEEDS |= {
    name: ON_TRANSFORMERS
    for name in plugins("strategy")
    if issubclass(load("strategy", name), FrozenBackbone)
}
# By default prompts are many and in five blocks; it has two, and few tokens.
IN_TWO: dict[str, dict] = {"general_blocks": [0], "expert_blocks": [1]}
SHORT = {**IN_TWO, "general_length": 4, "expert_length": 4}
SMALL: dict[str, dict] = {
    "l2p": {"pool_size": 4, "selected": 2},
    "dualprompt": IN_TWO,
    "coda-prompt": {"blocks": [0, 1], "components": 6, "length": 4},
    "oneprompt": SHORT,
    "ovor": {**SHORT, "draws": 60},
    "gdumb": {"passes": 15},
}
NEEDS |= {
    name: {**NEEDS.get(name, {}), "strategy": {"name": name, **given}}
    for name, given in SMALL.items()
}
# As few steps as these need to be larger.
FAR = {"dualprompt": 0.03, "s-prompts": 0.03, "oneprompt": 0.045, "ovor": 0.045}
for name, lr in FAR.items():
    NEEDS[name]["optimizer"] = {"name": "adam", "lr": lr}
DEPENDS_ON_THE_BATCH = "l2p-batch-vote"  # and warns of it
CASES = [
    {"strategy": {"name": name}, **NEEDS.get(name, {})}
    for name in plugins("strategy")
    if name != DEPENDS_ON_THE_BATCH
]
CASES += [
    {"strategy": section}
    for section in (
        {"name": "er", "memory": "balanced", "memory_size": 50, "memory_batch_size": 5},
        {"name": "der++", "memory": "ring"},
        {"name": "ewc", "mode": "online", "fisher": "sampled", "strength": 10},
        {"name": "ewc", "fisher": "batch", "fisher_samples": None},
        {"name": "refresh", "mode": "code", "inner": "ewc"},
        {"name": "lwf", "alpha": [0, 1, 2], "balance": True},
        {"name": "selective", "start_from": "logme"},
        {"name": "fscil", "contrastive": True, "subnet": 0.2},
        {"name": "fscil", "etf": True, "neck": 16},
        {"name": "continual-backprop", "replacement_rate": 0.02, "maturity": 3, "inner": "er"},
    )
]
CASES += [
    {**NEEDS[section["name"]], "strategy": section}
    for section in (
        {"name": "ovor", **SHORT, "draws": 60, "outliers": "code"},
        {"name": "s-prompts", "shared_head": True},
    )
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["strategy"]))
def test_contract(case: dict) -> None:
    assert check_strategy(**{**LARGE, **case}) == dict.fromkeys(CHECKS, "")


class Impure(Finetune):
    """Counts batches in `loss`."""

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        self.register_buffer("count", torch.zeros(()))

    def loss(self, batch: Batch) -> Tensor:
        self.count += 1
        return super().loss(batch)


class Forgetful(Finetune):
    """Remembers the classes it has met in a plain attribute and weighs the loss by them."""

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        self.met: list[int] = []

    def begin_experience(self, experience: Experience) -> None:
        self.met += experience.classes

    def loss(self, batch: Batch) -> Tensor:
        return super().loss(batch) * len(self.met)


class Votes(Finetune):
    """Adds the batch's mean logits to every sample, as a majority vote over a batch does."""

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        logits = super().forward(x)
        return logits + logits.mean(0)


class Unseeded(Finetune):
    """Draws from a generator that nobody seeds."""

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        self.generator = torch.Generator()
        self.generator.seed()

    def loss(self, batch: Batch) -> Tensor:
        return super().loss(batch) * torch.rand((), generator=self.generator)


class Hoarder(Finetune):
    """Keeps a copy of the model after each experience without saying so."""

    def end_experience(self, experience: Experience) -> None:
        name = f"kept_{experience.task}"
        self.register_buffer(name, nn.utils.parameters_to_vector(self.parameters()).detach())


class HonestHoarder(Hoarder):
    """Keeps them and says so; the state can still be restored."""

    grows: ClassVar[bool] = True


class Idle(Finetune):
    """Never trains."""

    def training_step(self, batch: Batch) -> Tensor:
        return self.loss(batch).detach()


class Numbered(Finetune):
    """Prefers classes with large numbers when asked."""

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        logits = super().forward(x)
        return logits if self.training else logits + 5 * torch.arange(6) / 6


class WrongShape(Finetune):
    """Returns one logit too many."""

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        return nn.functional.pad(super().forward(x), (0, 1))


class PerSampleLoss(Finetune):
    """Returns a loss per sample."""

    def loss(self, batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(self(batch.x), batch.y, reduction="none")

    def training_step(self, batch: Batch) -> Tensor:
        return super().loss(batch).detach()


@pytest.mark.parametrize(
    ("faulty", "check", "message"),
    [
        (Impure, "loss is pure", "loss changed 'count': change state in after_step"),
        (Forgetful, "resumes at every experience", "keep all that is remembered in parameters"),
        (Votes, "prediction ignores the batch", "logits depend on the batch"),
        (Unseeded, "same seed same bits", r"info\.rng\.generator"),
        (Hoarder, "state grows as declared", r"declare `grows: ClassVar\[bool\] = True`"),
        (Idle, "learns", "is right after learning it"),
        (Numbered, "numbering of classes is free", "nothing may depend on a class's number"),
        (
            WrongShape,
            "logits have the shape",
            r"forward returned \(\d+, 7\).*expected logits of shape",
        ),
        (PerSampleLoss, "loss is a scalar", "expected a finite scalar"),
    ],
)
def test_each_check_catches_its_fault(faulty: type, check: str, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        CHECKS[check]({"strategy": {"name": f"{faulty.__module__}:{faulty.__qualname__}"}})


class Counted(Finetune):
    """Finetune, of which no other test has trained a state."""


def test_checks_train_again_only_where_repetition_is_the_point(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained = []
    train = Fold.train

    def count(fold: Fold) -> None:
        train(fold)
        trained.append(fold.plan.keys[fold.position])

    monkeypatch.setattr(Fold, "train", count)
    assert not any(check_strategy(f"{Counted.__module__}:Counted").values())
    # Two scenarios, an open stream, hidden boundaries, five epochs, and those in reverse; and the
    # first again.
    assert len(set(trained)) == 6 * 3 + 1
    # The same seed; resumed after the first and the second, three times; interrupted within all of
    # them; grown after the first; the first two before the first again, which is resumed as well.
    again = 3 + 3 * (2 + 1) + 3 + 1 + 2 + (2 + 1)
    assert len(trained) == len(set(trained)) + again


def test_a_growing_state_that_is_declared_is_restored() -> None:
    name = f"{HonestHoarder.__module__}:HonestHoarder"
    assert not any(check_strategy(name).values())


def test_hyperparameters_are_the_annotated_attributes() -> None:
    strategy = ER(memory_size=7)
    assert strategy.hyperparameters() == {
        "memory_size": 7,
        "memory_batch_size": None,
        "memory": "reservoir",
        "offer": "once",
    }
    with pytest.raises(TypeError):
        ER(7)  # type: ignore[misc]
    assert issubclass(ER, Strategy)


def test_finetune_alone_has_no_hyperparameters() -> None:
    assert Finetune().hyperparameters() == {}
