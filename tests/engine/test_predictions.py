"""Predictions kept by runs: they give the matrix back, bit by bit, however a run came about."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import cl_platform as clp
from cl_platform.config.run_config import parse_config
from cl_platform.core.predictions import row_bytes
from cl_platform.core.stream import StreamInfo
from cl_platform.engine.execution import advance, execute
from cl_platform.engine.fold import Fold
from cl_platform.engine.lanes.running import run_lanes
from cl_platform.engine.planner import Planner, make_plan
from cl_platform.errors import BadInput, RunFailed, StorageError
from cl_platform.results.result import Result
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers

BLOBS = {"name": "blobs", "samples_per_class": 6}
PLANNER = Planner()


def config(**settings: Any) -> Any:
    return parse_config({"stream": BLOBS, "strategy": "finetune", **settings})


def run(out: Path | None, order: Any = None, **options: Any) -> Result:
    settings = options.pop("settings", {})
    return execute(PLANNER(config(**settings), order), out, **options)


def assert_exact(result: Result) -> None:
    """Every row of the matrix is the mean of the kept credit, and the classes are those given."""
    found = result.predictions()
    assert found.rows == tuple(range(len(result.matrix.values)))
    rows = np.stack([found[i].accuracies() for i in found.rows])
    assert np.array_equal(rows, result.matrix.values)
    for j, e in enumerate(result.experiences):
        assert {*found[-1].columns(j).y.tolist()} <= {*e["classes"]}
    assert result.class_accuracy is not None
    for i in found.rows:
        p = found[i]
        of_class = np.bincount(p.y, p.credit, p.n_classes) / np.bincount(p.y)
        assert of_class == pytest.approx(result.class_accuracy[i], abs=1e-6)


class Coarse(clp.Strategy):
    """Gives logits that many classes share, others at each step."""

    def setup(self, info: StreamInfo) -> None:
        self.info = info
        self.model = info.build_model()

    def loss(self, batch: Any) -> Tensor:
        return torch.nn.functional.cross_entropy(self.model(batch.x), batch.y)

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        return self.model(x).mul(2).round()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"stream": {**BLOBS, "scenario": "task"}},
        {"stream": {"name": "permuted-digits", "experiences": 2}},
        {"permute_labels": True, "curriculum": [2, 0, 1, 4, 3], "seed": 3},
        {"strategy": "joint"},
        {"evaluate": 2, "curriculum": "reverse"},
        {"curriculum": {"name": "teacher:random"}},
        {"strategy": f"{__file__}:Coarse", "permute_labels": True},
    ],
    ids=lambda settings: " ".join(map(str, settings)),
)
def test_predictions_give_every_row_of_the_matrix_back(
    settings: Mapping[str, Any], tmp_path: Path
) -> None:
    result = execute(make_plan(config(**settings)), tmp_path)
    assert_exact(result)
    assert result.path is not None
    again = Result.load(result.path)
    assert again is not None
    assert_exact(again)
    nowhere = execute(make_plan(config(**settings)), None)
    assert_exact(nowhere)
    assert "predictions" not in nowhere.to_json()
    assert nowhere.metrics == pytest.approx(result.metrics, nan_ok=True)


def test_ties_are_kept(tmp_path: Path) -> None:
    result = execute(make_plan(config(strategy=f"{__file__}:Coarse")), tmp_path)
    credits = np.concatenate([result.predictions()[i].credit for i in range(1, 6)])
    assert ((credits > 0) & (credits < 1)).any()


def test_a_killed_run_finds_them_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = PLANNER(config())
    whole = execute(plan, tmp_path / "whole")
    train, calls = Fold.train, []

    def killed(self: Fold, *given: Any) -> None:
        if len(calls) == 2:
            raise RunFailed("killed")
        calls.append(None)
        train(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Fold, "train", killed)
        with pytest.raises(RunFailed):
            execute(plan, tmp_path / "out")
    kept = len([*(tmp_path / "out").rglob("*.predictions")])
    assert kept == 3
    resumed = execute(plan, tmp_path / "out")
    assert_exact(resumed)
    assert (resumed.metrics, resumed.kept) == (whole.metrics, whole.kept)


def test_runs_share_those_of_what_they_have_in_common(tmp_path: Path) -> None:
    first = run(tmp_path, settings={"curriculum": [0, 1, 2, 3, 4]})
    second = run(tmp_path, settings={"curriculum": [0, 1, 2, 4, 3]})
    assert first.kept[:4] == second.kept[:4]
    assert {*first.kept[4:]}.isdisjoint(second.kept[4:])
    assert len([*tmp_path.rglob("*.predictions")]) == 6 + 2
    for result in (first, second):
        assert_exact(result)
    shared = second.predictions()[3].columns(0)
    assert shared.top.tolist() == first.predictions()[3].columns(0).top.tolist()


def test_lanes_keep_what_separate_runs_keep(tmp_path: Path) -> None:
    plans = [PLANNER(config(seed=seed, model={"name": "mlp", "hidden": [8]})) for seed in (0, 1)]
    store = StateStore(tmp_path / "states")
    assert run_lanes([Fold(plan, store, Trackers()) for plan in plans]) == [None, None]
    for plan in plans:
        beside, alone = execute(plan, tmp_path), execute(plan, None)
        assert_exact(beside)
        assert beside.metrics == alone.metrics


def test_how_predictions_are_kept_is_in_no_key(tmp_path: Path) -> None:
    results = [run(tmp_path / kind, predictions=kind) for kind in ("none", "top", "scores")]
    assert len({result.run_id for result in results}) == 1
    none, top, scores = results
    assert none.kept == []
    assert "macro_f1" not in none.metrics
    with pytest.raises(BadInput, match="predictions are kept of none"):
        none.predictions()[-1]
    assert "auc" not in top.metrics
    assert 0 < scores.metrics["auc"] <= 1
    found = scores.predictions()[-1].scores
    assert found is not None
    assert found.dtype == np.float16
    assert found.sum(1) == pytest.approx(1, abs=2e-3)
    assert {k: v for k, v in scores.metrics.items() if k != "auc"} == top.metrics


def test_a_finished_run_is_evaluated_again_from_its_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = run(tmp_path, predictions="none")
    with monkeypatch.context() as patch:
        patch.setattr(Fold, "train", lambda *_: pytest.fail("it trains"))
        top = run(tmp_path)
        scores = run(tmp_path, predictions="scores")
        same = run(tmp_path)
    assert none.matrix == top.matrix == scores.matrix
    assert none.ended == top.ended
    for result in (top, scores, same):
        assert_exact(result)
    assert scores.metrics == same.metrics
    assert "auc" in scores.metrics


def test_without_states_nothing_is_trained_for_them_and_a_line_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = run(tmp_path, predictions="none", keep="none", settings={"seed": 17})
    after = run(tmp_path, settings={"seed": 17})
    assert after.predictions().rows == (0,)  # of which the state is made, not trained
    assert after.matrix == before.matrix
    (line,) = capsys.readouterr().err.splitlines()[:1]
    assert "5 of 6 rows have no predictions" in line
    shutil.rmtree(tmp_path / "states")
    assert run(tmp_path, settings={"seed": 17}).matrix == before.matrix


def test_a_damaged_file_is_set_aside_and_made_again(tmp_path: Path) -> None:
    plan = PLANNER(config(seed=1))
    advance(plan, StateStore(tmp_path / "states"), 3)
    damaged = sorted(tmp_path.rglob("*.predictions"))[1]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert_exact(execute(plan, tmp_path))
    assert len([*tmp_path.rglob("*.predictions.corrupt")]) == 1


def test_what_was_evicted_is_said(tmp_path: Path) -> None:
    result = run(tmp_path, settings={"seed": 2})
    sorted((tmp_path / "states").rglob(f"{result.kept[2]}.*"))[0].unlink()
    with pytest.raises(StorageError, match=r"row 2 of run .* are not in its folder"):
        result.predictions()[2]
    assert result.predictions()[3].accuracies().tolist() == result.matrix.values[3].tolist()


def test_a_budget_keeps_the_first_rows_and_the_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = run(tmp_path / "whole", settings={"seed": 5})
    n = len(whole.predictions()[0])
    room = 3 * row_bytes(n, whole.predictions()[0].n_classes, False)
    capsys.readouterr()
    result = run(tmp_path, settings={"seed": 5}, prediction_budget_mb=room / 1e6)
    assert result.predictions().rows == (0, 1, 5)
    assert capsys.readouterr().err.count("predictions of 3 rows fit into") == 1
    assert result.metrics["macro_f1"] == whole.metrics["macro_f1"]
    assert "negative_flips" not in result.metrics
    nothing = run(tmp_path / "nothing", settings={"seed": 5}, prediction_budget_mb=0)
    assert nothing.kept == []


def test_states_go_before_predictions_do(tmp_path: Path) -> None:
    result = run(tmp_path, settings={"seed": 4})
    states, predictions = ([*tmp_path.rglob(f"*.{kind}")] for kind in ("pt", "predictions"))
    store = StateStore(tmp_path / "states")
    store.evict(int(1.1 * sum(path.stat().st_size for path in predictions)), ())
    assert not any(path.exists() for path in states)
    assert all(path.exists() for path in predictions)
    assert_exact(result)


def test_two_runs_are_compared_sample_by_sample(tmp_path: Path) -> None:
    one, other = (
        run(tmp_path, settings={"curriculum": order}) for order in ("as_given", "reverse")
    )
    share = clp.agreement(one, other)
    a, b = one.predictions()[-1], other.predictions()[-1]
    b = b.columns(*range(len(b.sizes) - 1, -1, -1))
    assert share == (a.likeliest == b.likeliest).mean()
    assert clp.agreement(one, one) == 1


@pytest.mark.parametrize("wrong", [{"predictions": "all"}, {"prediction_budget_mb": -1.0}])
def test_what_cannot_be_kept_is_refused(wrong: Mapping[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="predictions is one of none, top, scores"):
        run(tmp_path, **wrong)
