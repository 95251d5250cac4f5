"""The loop: batches, optimizers and schedules by name, memory-mapped data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

import cl_platform as clp
from cl_platform import Batch, Experience, StreamInfo
from cl_platform.config.run_config import LRSchedule, Optimizer, parse_config
from cl_platform.config.signatures import build
from cl_platform.core.preprocess import Preprocess
from cl_platform.engine.execution import execute
from cl_platform.engine.fold import Fold
from cl_platform.engine.optimization import OPTIMIZERS, SCHEDULES, build_optimizer, build_schedule
from cl_platform.engine.planner import make_plan
from cl_platform.engine.training import chunks
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.baselines import Finetune


def generators() -> tuple[torch.Generator, torch.Generator]:
    return torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)


@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
def test_an_epoch_shows_every_sample_once(batch_size: int) -> None:
    data = build("stream", {"name": "split-digits"})[1].train
    seen = []
    for chunk in chunks(data, None, batch_size, Preprocess(), *generators()):
        for batch in chunk.batches():
            assert len(batch) <= batch_size
            assert batch.task is None
            assert torch.equal(batch.x, batch.raw.float())
            seen.append((batch.raw, batch.y))
    raw, y = torch.cat([s[0] for s in seen]), torch.cat([s[1] for s in seen])
    assert len(y) == len(data)
    assert not torch.equal(y, data.y)
    key = torch.arange(64, dtype=torch.float64).view(1, 1, 8, 8)
    assert torch.equal(
        (raw.double() * key).sum((1, 2, 3)).sort().values,
        (data.x.double() * key).sum((1, 2, 3)).sort().values,
    )


def test_task_labels_follow_their_samples() -> None:
    data = build("stream", {"name": "split-digits"})[1].train
    for chunk in chunks(data, data.y * 10, 7, Preprocess(), *generators()):
        assert torch.equal(chunk.task, chunk.y * 10)


def test_memory_mapped_data_give_the_same_bits() -> None:
    stream = build("stream", {"name": "split-digits"})
    parts = ("train", "validation", "test")
    mapped = replace(
        stream,
        experiences=tuple(
            replace(e, **{p: replace(getattr(e, p), mapped=True) for p in parts})
            for e in stream.experiences
        ),
    )
    first = clp.run(stream, "er", out=None, epochs=2)
    assert clp.run(mapped, "er", out=None, epochs=2).matrix == first.matrix


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimizer_of_torch_by_name(name: str) -> None:
    module = torch.nn.Linear(2, 2, bias=name != "muon")  # muon takes matrices only
    optimizer = build_optimizer(module, Optimizer(name=name.upper(), lr=0.01))
    assert optimizer is not None
    module(torch.randn(3, 2)).sum().backward()
    optimizer.step()


@pytest.mark.parametrize("name", ["cosineannealinglr", "linearlr", "onecyclelr", "constantlr"])
def test_a_schedule_ends_with_the_experience(name: str) -> None:
    assert name in SCHEDULES
    optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=1.0)
    extra = {"max_lr": 1.0} if name == "onecyclelr" else {}
    schedule = build_schedule(optimizer, LRSchedule(name=name, **extra), 8)
    rates = []
    for _ in range(8):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step() if len(rates) < 8 else None
    assert len(set(rates)) > 1 or name == "constantlr"


class Rates(Finetune):
    """Writes down the learning rate of every step and what the optimizer remembers at the start."""

    def begin_experience(self, experience: Experience) -> None:
        self.rates: list[float] = []
        LOG.append(self.rates)

    def training_step(self, batch: Batch) -> Tensor:
        if not self.rates:
            MEMORIES.append(len(self.optimizer.state))
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        return super().training_step(batch)


LOG: list[list[float]] = []
MEMORIES: list[int] = []


@pytest.fixture(autouse=True)
def clean() -> None:
    LOG.clear()
    MEMORIES.clear()


def train(**settings: object) -> None:
    clp.run({"name": "blobs", "experiences": 2}, Rates, out=None, **settings)  # type: ignore[arg-type]


def test_schedules_restart_at_each_experience_and_cover_it() -> None:
    train(epochs=4, schedule={"name": "CosineAnnealingLR"}, lr=0.01)
    assert LOG[0] == LOG[1]
    by_epoch = LOG[0][::20]
    assert by_epoch == pytest.approx([0.01, 0.00853553, 0.005, 0.00146447], abs=1e-7)
    LOG.clear()
    train(schedule={"name": "LinearLR", "interval": "step", "start_factor": 1, "end_factor": 0.1})
    assert len(set(LOG[0])) == 20
    assert LOG[0] == LOG[1]


@pytest.mark.parametrize(("reset", "expected"), [(True, [0, 0]), (False, [0, 6])])
def test_optimizers_are_reset_or_kept(reset: bool, expected: list[int]) -> None:
    train(optimizer={"name": "adam", "lr": 1e-3, "reset": reset})
    assert expected == MEMORIES


class Anew(Rates):
    """Learns each experience with a new model."""

    def begin_experience(self, experience: Experience) -> None:
        super().begin_experience(experience)
        self.model = self.info.build_model()


def test_a_new_model_does_not_inherit_the_moments_of_the_one_before() -> None:
    stream = {"name": "blobs", "experiences": 2}
    clp.run(stream, Anew, optimizer={"name": "adam", "reset": False}, out=None)
    assert MEMORIES == [0, 0]


@pytest.mark.parametrize("optimizer", [{"name": "adam", "lr": 0.01}, {"name": "adagrad"}])
def test_gdumb_is_the_same_whether_the_optimizer_is_reset_or_not(optimizer: dict) -> None:
    ends = []
    for reset in (True, False):
        given = {**optimizer, "reset": reset}
        strategy = {"name": "gdumb", "passes": 3}
        config = {"stream": {"name": "blobs", "experiences": 2}, "strategy": strategy}
        fold = Fold(
            make_plan(parse_config({**config, "optimizer": given})), StateStore(None), Trackers()
        )
        fold.run()
        ends.append(torch.cat([p.detach().flatten() for p in fold.strategy.model.parameters()]))
    assert torch.equal(*ends)


def test_a_kept_optimizer_gives_other_results_than_a_reset_one() -> None:
    results = [
        clp.run("blobs", "finetune", optimizer={"name": "adam", "reset": r}, out=None).matrix
        for r in (True, False)
    ]
    assert results[0] != results[1]


def test_a_strategy_without_parameters_needs_no_optimizer() -> None:
    assert build_optimizer(torch.nn.Identity(), Optimizer()) is None


def test_the_device_is_checked_before_anything_starts() -> None:
    with pytest.raises(clp.ClpError, match=r"device=cuda:99 cannot be used here .*give device=cpu"):
        make_plan(parse_config({"device": "cuda:99"}))


class Growing(Finetune):
    """Gains a parameter with every experience."""

    grows: ClassVar[bool] = True

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        self.scales = torch.nn.ParameterList()

    def begin_experience(self, experience: Experience) -> None:
        self.scales.append(torch.nn.Parameter(torch.ones(())))

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        logits = super().forward(x, task)
        for scale in self.scales:
            logits = logits * scale
        return logits


@pytest.mark.parametrize("k", [1, 2, 3])
def test_parameters_may_come_with_experiences_and_the_kept_optimizer_follows(
    tmp_path: Path, k: int
) -> None:
    plan = make_plan(
        parse_config(
            {
                "stream": {"name": "blobs", "experiences": 4},
                "strategy": f"{Growing.__module__}:Growing",
                "optimizer": {"name": "adam", "reset": False},
            }
        )
    )
    expected = execute(plan, None)
    execute(replace(plan, steps=plan.steps[:k], keys=plan.keys[: k + 1], run_id="part"), tmp_path)
    fold = Fold(plan, StateStore(tmp_path / "states"), Trackers())
    rows = fold.run()
    assert fold.trained == 4 - k
    assert len(fold.strategy.scales) == 4  # type: ignore[arg-type]
    own = [row.rows["test"]["seen"] for row in rows]
    assert [
        [r[label] for label in expected.matrix.experience_ids] for r in own
    ] == expected.matrix.tolist()
