"""Accuracy within experiences: what is measured, and that training does not notice."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import cl_platform as clp
from cl_platform import Batch, Experience, Result, StreamInfo
from cl_platform.config.registry import load, plugins
from cl_platform.config.run_config import parse_config
from cl_platform.engine.evaluation import Evaluator
from cl_platform.engine.execution import advance, execute
from cl_platform.engine.fold import Fold
from cl_platform.engine.plan import Plan
from cl_platform.engine.planner import make_plan
from cl_platform.metrics.matrix_metrics import anytime_accuracy
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.baselines import Finetune
from strategies.lwf import LwF
from tests.engine.test_contract import NEEDS

HERE = __name__
STREAM = {"name": "blobs", "experiences": 3, "samples_per_class": 40}
WATCHED = {"evaluate_every": 3, "count_flops": True}


def plan(strategy: object, **settings: object) -> Plan:
    data = {"stream": STREAM, "strategy": strategy, "model": {"name": "mlp", "hidden": [16]}}
    return make_plan(parse_config({**data, **settings}))


def states(plan: Plan) -> list[dict[str, object]]:
    """The state after every step, optimizer included."""
    fold = Fold(plan, StateStore(None), Trackers())
    found = []
    for _ in plan.steps:
        fold.train()
        held = fold.state.copy()
        found.append({**held.strategy, "optimizer": repr(held.optimizer)})
    return found


def differing(first: list[dict[str, object]], second: list[dict[str, object]]) -> list[str]:
    def same(a: object, b: object) -> bool:
        return torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b

    assert [a.keys() for a in first] == [b.keys() for b in second]
    return [k for a, b in zip(first, second, strict=True) for k in a if not same(a[k], b[k])]


class Noisy(nn.Module):
    """A convolution, batch norm and dropout: what depends on mode, statistics and draws."""

    def __init__(self, input_shape: tuple[int, ...], n_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Unflatten(1, (1, *input_shape)) if len(input_shape) == 1 else nn.Flatten(1, 2),
            nn.Conv1d(1 if len(input_shape) == 1 else input_shape[1], 4, 3),
            nn.BatchNorm1d(4),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.LazyLinear(n_classes),
        )
        self.layers.eval()(torch.zeros(1, *input_shape))
        self.layers.train()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits


class Drawing(Finetune):
    """RNG whenever it is asked, from its own generator and from the global one."""

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        own = torch.rand((), generator=self.info.rng.generator("mine"))
        return super().forward(x, task) * (1 + own * torch.rand(()))


class FrozenPart(LwF):
    """Its teacher drops units, unless something puts it into training mode."""

    def begin_experience(self, experience: Experience) -> None:
        super().begin_experience(experience)
        self.teacher.eval()


@pytest.mark.system
@pytest.mark.parametrize("name", sorted(plugins("strategy")))
def test_no_strategy_notices_that_it_is_measured_and_counted(name: str) -> None:
    scenario = "task" if load("strategy", name).needs_task is True else "class"
    stream = {**STREAM, "scenario": scenario, "experiences": 2, "samples_per_class": 20}
    settings = {"strategy": name, **NEEDS.get(name, {}), "schedule": None, "stream": stream}
    assert not differing(states(plan(**settings)), states(plan(**settings, **WATCHED)))


@pytest.mark.parametrize(
    "name", ["er", "ewc", "gss", "lwf", f"{HERE}:FrozenPart", f"{HERE}:Drawing"]
)
def test_neither_do_batch_norm_dropout_and_draws(name: str) -> None:
    settings = {"model": f"{HERE}:Noisy", "optimizer": {"name": "adam", "lr": 0.01, "reset": False}}
    assert not differing(states(plan(name, **settings)), states(plan(name, **settings, **WATCHED)))


def test_the_comparison_finds_a_difference() -> None:
    assert differing(states(plan("er")), states(plan("er", seed=1)))


class LateBloomer(Finetune):
    """Wrong for its first five steps of an experience, and right from then on."""

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        self.done = nn.Buffer(torch.zeros((), dtype=torch.int64))

    def begin_experience(self, experience: Experience) -> None:
        self.done.zero_()

    def after_step(self, batch: Batch) -> None:
        self.done += 1

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        y = x[:, 0].long()
        answer = y if self.done >= 5 else 1 - y
        weight = 0 * sum(p.sum() for p in self.model.parameters())
        return nn.functional.one_hot(answer, 2).float() + weight


def two_domains(samples: int = 16) -> clp.Stream:
    y = torch.arange(2).repeat(samples // 2)
    data = clp.Samples.of(y[:, None].float(), y)
    parts = [Experience(n, (0, 1), t, data, data.emptied(), data) for t, n in enumerate("ab")]
    return clp.Stream("two", "domain", tuple(parts), ("a", "b"))


def test_the_curve_by_hand() -> None:
    """Two experiences of eight steps of two samples: wrong after 3 steps, right after 6 and 8."""
    result = clp.run(two_domains(), LateBloomer, batch_size=2, evaluate_every=3, out=None)
    assert result.anytime == [[6, 0], [12, 1], [16, 1], [22, 0], [28, 1], [32, 1]]
    assert result.metrics["anytime_accuracy"] == (6 + 4 + 6 + 4) / 32
    nan = math.nan
    columns = [[0, nan], [1, nan], [1, nan], [0, 0], [1, 1], [1, 1]]
    assert np.array_equal(result.anytime_by_experience, np.array(columns), equal_nan=True)
    found = {name: result.metrics[name] for name in ("min_accuracy", "worst_case_accuracy")}
    assert found == {"min_accuracy": 0, "worst_case_accuracy": 0.5}
    assert result.metrics["windowed_forgetting_10"] == 0.5  # of the first: 1, 0; none of the second
    assert result.metrics["windowed_plasticity_10"] == 1


def test_an_experience_that_comes_again_is_one_column_and_then_not_old() -> None:
    once = two_domains()
    again = replace(once, experiences=(*once, once[0]), columns=once.experiences)
    result = clp.run(again, LateBloomer, batch_size=2, evaluate_every=3, out=None)
    nan = math.nan
    columns = [[0, nan], [1, nan], [1, nan], [0, 0], [1, 1], [1, 1], [0, 0], [1, 1], [1, 1]]
    assert np.array_equal(result.anytime_by_experience, np.array(columns), equal_nan=True)
    assert result.metrics["min_accuracy"] == 0  # of the second alone, while the first came again
    assert result.metrics["worst_case_accuracy"] == 0.5


def test_the_end_of_an_experience_is_measured_once() -> None:
    result = clp.run(two_domains(), LateBloomer, batch_size=2, evaluate_every=4, out=None)
    assert result.anytime == [[8, 0], [16, 1], [24, 0], [32, 1]]


def test_the_area_by_hand() -> None:
    assert anytime_accuracy([[10, 0.2], [30, 0.5], [40, 1.0]]) == pytest.approx(
        (10 * 0.2 + 20 * 0.5 + 10 * 1.0) / 40
    )
    assert anytime_accuracy([[7, 0.3]]) == pytest.approx(0.3)


def test_it_ends_with_the_accuracy_of_the_experiences_so_far() -> None:
    result = execute(plan("er", evaluate_every=3), None)
    ends = [80, 160, 240]
    found = dict(result.anytime)
    rows = result.matrix.values
    assert [found[n] for n in ends] == pytest.approx([rows[i, :i].mean() for i in (1, 2, 3)])
    assert [s for s, _ in result.anytime] == [30, 60, 80, 110, 140, 160, 190, 220, 240]
    for i, row in enumerate(result.anytime_by_experience):
        assert np.nanmean(row) == pytest.approx(result.anytime[i][1])
        assert (~np.isnan(row)).sum() == i // 3 + 1
    at_ends = result.anytime_by_experience[2::3]
    assert np.allclose(at_ends, np.where(np.isnan(at_ends), np.nan, rows[1:]), equal_nan=True)


@pytest.mark.parametrize(("strategy", "samples"), [("joint", 240), ("cumulative", 80 + 160 + 240)])
def test_methods_that_train_on_more_than_an_experience(strategy: str, samples: int) -> None:
    result = execute(plan(strategy, evaluate_every=5, epochs=2), None)
    assert result.anytime[-1] == [2 * samples, pytest.approx(result.metrics["average_accuracy"])]
    assert result.cost["samples"] == 2 * samples
    assert [a[0] < b[0] for a, b in zip(result.anytime, result.anytime[1:], strict=False)]
    assert 0 < result.metrics["anytime_accuracy"] <= 1
    known = ~np.isnan(result.anytime_by_experience).all(0)
    assert known.all()
    if strategy == "joint":  # nothing is ever old
        assert np.isnan(result.metrics["min_accuracy"])
        assert result.metrics["worst_case_accuracy"] == result.metrics["average_accuracy"]


def test_later_experiences_are_not_in_it() -> None:
    """The state after k steps depends on the first k experiences only; so does its curve."""
    first = execute(plan("er", evaluate_every=3, curriculum=[0, 1, 2]), None)
    second = execute(plan("er", evaluate_every=3, curriculum=[0, 2, 1]), None)
    assert first.anytime[:3] == second.anytime[:3]
    assert first.anytime[3:] != second.anytime[3:]


@pytest.mark.parametrize("k", range(4))
@pytest.mark.parametrize("lost", ["states and records", "records"])
def test_it_survives_a_kill_after_any_experience(tmp_path: Path, k: int, lost: str) -> None:
    p = plan("er", evaluate_every=3)
    expected = execute(p, None)
    first = execute(p, tmp_path)
    (first.path / "result.json").unlink()  # type: ignore[operator]
    for key in p.keys[k:]:
        for file in tmp_path.glob(f"states/*/{key}.{'json' if lost == 'records' else '*'}"):
            file.unlink()
    again = execute(p, tmp_path)
    assert again.anytime == first.anytime == expected.anytime
    assert again.metrics == expected.metrics
    assert again.cost["samples"] == expected.cost["samples"]


def test_results_hold_it_only_if_asked_for(tmp_path: Path) -> None:
    silent = execute(plan("er"), tmp_path)
    assert silent.anytime == []
    assert "anytime_accuracy" not in silent.metrics
    assert "min_accuracy" not in silent.metrics
    assert "anytime_by_experience" not in silent.to_json()
    result = execute(plan("er", evaluate_every=4), tmp_path)
    assert result.run_id != silent.run_id
    assert result.matrix == silent.matrix
    written = json.loads((result.path / "result.json").read_text())  # type: ignore[operator]
    assert Result.from_json(written).anytime == result.anytime == written["anytime"]
    read = Result.from_json(written).anytime_by_experience
    assert np.array_equal(read, result.anytime_by_experience, equal_nan=True)


def test_part_of_a_stream_has_its_part_of_the_curve() -> None:
    p = plan("er", evaluate_every=4)
    points = [point for point in execute(p, None).anytime if point[0] <= 160]
    found = advance(p, StateStore(None), 2)
    assert found["anytime_accuracy"] == anytime_accuracy(points)
    assert 0 <= found["worst_case_accuracy"] <= 1


def test_the_time_it_takes_is_that_of_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that only the measurements move."""
    now = 0.0

    def measure(_: Evaluator, __: object, learned: list[Experience], *___: object) -> list[float]:
        nonlocal now
        now += 10
        return [0.5] * len(learned)

    monkeypatch.setattr(
        "cl_platform.engine.machine.cost.time", SimpleNamespace(perf_counter=lambda: now)
    )
    monkeypatch.setattr(Evaluator, "accuracies", measure)
    cost = execute(plan("er", evaluate_every=3), None).cost
    assert cost["train_seconds"] == 0
    assert cost["eval_seconds"] == cost["seconds"] == 6 * 10


def test_a_negative_number_of_steps_is_refused() -> None:
    with pytest.raises(clp.ClpError, match=r"evaluate_every=-1: input should be greater"):
        parse_config({"evaluate_every": -1})
