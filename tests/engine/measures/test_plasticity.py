"""Plasticity of the states of runs: ranks by hand, no trace, and records that runs share."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import cl_platform as clp
from cl_platform import Result
from cl_platform.config.run_config import parse_config
from cl_platform.engine.execution import execute
from cl_platform.engine.fold import Fold
from cl_platform.engine.lanes.running import run_lanes
from cl_platform.engine.measures.measuring import _parts
from cl_platform.engine.measures.plasticity import effective_rank, stable_rank
from cl_platform.engine.measures.sample import Sample
from cl_platform.engine.measures.trainability import trainability
from cl_platform.engine.plan import Plan
from cl_platform.engine.planner import make_plan
from cl_platform.results.references import settings_key
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from tests.engine import test_anytime
from tests.engine.test_anytime import differing, states

STREAM = {"name": "blobs", "experiences": 3, "samples_per_class": 20}
ASKED = {"plasticity": True, "trainability_steps": 3}
NAMES = {
    *("active_units", "dead_units", "active_units_layer_1", "dead_units_layer_1"),
    *("effective_rank", "stable_rank", "weight_norm"),
}


def plan(strategy: object = "er", **settings: object) -> Plan:
    data = {"stream": STREAM, "strategy": strategy, "model": {"name": "mlp", "hidden": [16]}}
    return make_plan(parse_config({**data, **settings}))


def test_ranks_by_hand() -> None:
    """Singular values 2, 1, 1: shares 1/2, 1/4, 1/4, entropy 1.5 ln 2; squares 6 over 4."""
    features = torch.diag(torch.tensor([2.0, 1.0, 1.0])) @ torch.linalg.qr(torch.randn(3, 3))[0]
    assert effective_rank(features) == pytest.approx(2**1.5)
    assert stable_rank(features) == pytest.approx(1.5)
    assert effective_rank(torch.ones(5, 3)) == pytest.approx(1)
    assert stable_rank(torch.eye(4)) == pytest.approx(4)
    assert effective_rank(torch.zeros(5, 3)) == stable_rank(torch.zeros(5, 3)) == 0


def test_rows_and_metrics_of_a_run(tmp_path: Path) -> None:
    result = execute(plan(**ASKED), tmp_path)
    assert result.plasticity.keys() == {*NAMES, "trainability"}
    assert all(len(values) == 4 for values in result.plasticity.values())
    for name in ("active_units", "dead_units", "effective_rank", "weight_norm", "trainability"):
        assert result.metrics[name] == result.plasticity[name][-1]
    assert 0.2 < result.plasticity["active_units"][0] < 0.8  # type: ignore[operator]
    assert 1 <= result.metrics["stable_rank"] <= result.metrics["effective_rank"] <= 16
    written = json.loads((tmp_path / "runs" / result.run_id / "result.json").read_text())
    assert Result.from_json(written).plasticity == result.plasticity == written["plasticity"]
    model = result.model(0)  # the untrained state
    weights = [p for p in model.parameters() if p.requires_grad]
    if weights:
        norm = math.sqrt(sum(float((p.double() ** 2).sum()) for p in weights))
        assert result.plasticity["weight_norm"][0] == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize("strategy", ["er", f"{test_anytime.__name__}:Drawing"])
def test_training_does_not_notice(strategy: str) -> None:
    settings = {"model": f"{test_anytime.__name__}:Noisy", "optimizer": {"name": "adam"}}
    settings["optimizer"] |= {"lr": 0.01, "reset": False}
    bare, asked = plan(strategy, **settings), plan(strategy, **settings, **ASKED)
    assert bare.keys == asked.keys
    assert bare.run_id != asked.run_id
    assert not differing(states(bare), states(asked))
    folds = [Fold(p, StateStore(None), Trackers()) for p in (bare, asked)]
    plain, measured = (fold.run() for fold in folds)
    assert [r.rows for r in plain] == [r.rows for r in measured]
    assert not differing([folds[0].state.strategy], [folds[1].state.strategy])
    assert all(not r.measured for r in plain)
    assert all(r.measured.keys() == {"plasticity", "trainability"} for r in measured)


def test_the_references_are_those_of_runs_without() -> None:
    with_budget = {**ASKED, "budget": {"samples": 5}}
    keys = {settings_key(plan(**s).config.model_dump()) for s in ({}, with_budget)}
    assert len(keys) == 1


def test_records_are_shared_and_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is measured of stored states; nothing is trained again, and nothing lost."""
    plain = execute(plan(), tmp_path)
    monkeypatch.setattr(Fold, "train", None)  # from here on
    first = execute(plan(plasticity=True), tmp_path)
    second = execute(plan(trainability_steps=3), tmp_path)
    both = execute(plan(**ASKED), tmp_path)
    assert plain.plasticity == {}
    assert first.plasticity.keys() == NAMES
    assert second.plasticity.keys() == {"trainability"}
    assert both.plasticity == first.plasticity | second.plasticity
    assert plain.matrix == first.matrix == both.matrix
    monkeypatch.setattr(Fold, "evaluate", None)
    assert execute(plan(plasticity=True, seed=0, budget={"samples": 9}), tmp_path).plasticity
    with pytest.raises(TypeError):  # another number of steps is another measure
        execute(plan(trainability_steps=4), tmp_path)


def test_lanes_measure_what_separate_runs_do() -> None:
    plans = [plan("finetune", seed=seed, **ASKED) for seed in (0, 1)]
    apart = [Fold(p, StateStore(None), Trackers()) for p in plans]
    beside = [Fold(p, StateStore(None), Trackers()) for p in plans]
    expected = [fold.run() for fold in apart]
    assert run_lanes(beside) == [None, None]
    for fold, records in zip(beside, expected, strict=True):
        assert [r.measured for r in fold.records] == [r.measured for r in records]


def test_what_a_network_does_not_have_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    model = {"name": "mlp", "hidden": [7], "activation": "tanh"}
    result = execute(plan("finetune", model=model, plasticity=True), None)
    assert result.plasticity["active_units"] == [None] * 4
    assert math.isnan(result.metrics["active_units"])
    assert result.metrics["effective_rank"] > 1
    assert "model 'mlp' has no activation that can be off" in capsys.readouterr().err


def test_a_frozen_model_is_not_trained(capsys: pytest.CaptureFixture[str]) -> None:
    p = plan("l2p", stream="split-digits", model="tiny-transformer", **ASKED)
    record = Fold(p, StateStore(None), Trackers()).run(upto=0)[0]
    assert record.measured["trainability"] == {"trainability": None}
    assert record.measured["plasticity"]["active_units"] is not None
    assert "strategy 'l2p' trains nothing of its model" in capsys.readouterr().err


def test_the_sample_is_spread_evenly_and_the_same_for_all_orders() -> None:
    stream = make_plan(parse_config({"stream": STREAM})).stream
    device = torch.device("cpu")

    def rows(experiences: Any, n: int = 1000) -> tuple[Tensor, Tensor]:
        sample = Sample(_parts(experiences, "test"), stream.preprocess, device, n=n)
        x, task = (torch.cat(values) for values in zip(*sample, strict=True))
        assert len(x) == len(sample)
        return x, task

    whole, _ = rows(stream.experiences)
    every = [stream.preprocess(e.test.gather(torch.arange(len(e.test)))) for e in stream]
    assert torch.equal(whole, torch.cat(every))
    x, task = rows(stream.experiences, n=6)
    assert task.tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.equal(x, rows(stream.experiences[::-1], n=6)[0])


class Frozen(nn.Module):
    """A body that is not trained, with dropout and batch norm, and a classifier that is."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1))
        self.body.requires_grad_(False)
        self.classifier = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.body(x))
        return logits


def test_trainability_rises_with_steps_and_leaves_the_model_as_it_is() -> None:
    torch.manual_seed(0)
    model, x = Frozen(), torch.randn(32, 8)
    model.body.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = parse_config({"optimizer": {"name": "adam", "lr": 0.05}}).optimizer
    few, many = (trainability(model, x, optimizer, steps) for steps in (1, 200))
    assert few is not None
    assert many is not None
    assert few < 0.7 < many
    assert trainability(model, x, optimizer, 1) == few
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert [module.training for module in (model, model.body, model.classifier)] == [
        True,
        False,
        True,
    ]
    model.requires_grad_(False)
    assert trainability(model, x, optimizer, 5) is None


def test_trainability_of_a_network_that_has_died_is_that_of_the_commonest_label() -> None:
    """Weights of zero pass no gradient: only the last bias learns."""
    alive, dead = (nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 4)) for _ in range(2))
    for p in dead.parameters():
        p.data.zero_()
    optimizer = parse_config({"optimizer": {"name": "adam", "lr": 0.05}}).optimizer
    x = torch.randn(32, 8)
    found = [trainability(model, x, optimizer, 200) for model in (alive, dead)]
    assert found[0] == 1
    assert found[1] < 0.5  # type: ignore[operator]


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(clp.ClpError, match=r"trainability_steps=-1"):
        parse_config({"trainability_steps": -1})
    with pytest.raises(clp.ClpError, match=r"plasticity=often"):
        parse_config({"plasticity": "often"})


def test_rows_on_demand_and_columns_of_their_own() -> None:
    """With rows after every second step, values are those of the same states; columns may be held
    out."""
    every = execute(plan(plasticity=True), None)
    some = execute(plan(plasticity=True, evaluate=2), None)
    assert some.rows == [0, 2, 3]
    for name, values in some.plasticity.items():
        assert values == [every.plasticity[name][k] for k in some.rows]
    blobs = plan().stream
    held_out = replace(blobs, experiences=blobs.experiences[:2], columns=blobs.experiences)
    result = clp.run(held_out, "er", out=None, evaluate_every=2, **ASKED)
    assert result.anytime_by_experience.shape == (4, 3)
    assert np.isnan(result.anytime_by_experience[:, 2]).all()
    assert len(result.plasticity["active_units"]) == 3
    assert 0 <= result.metrics["worst_case_accuracy"] <= 1
