"""Where experiences start as a tree of runs: all candidates once, the best by validation data."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from cl_platform.config.documents import parse
from cl_platform.engine.fold import Fold
from sweeps.executor import tree
from sweeps.planning import plan_runs
from sweeps.record import Phase
from sweeps.spec import parse_spec
from sweeps.tuning.choice import choose
from tests.conftest import ROOT
from tests.helpers.sweep_here import Here
from tests.helpers.sweep_runs import PLANNER, spec

BASE = {
    "stream": {
        "name": "related",
        "relation": "negative",
        "datasets": ["digits"],
        "classes": 5,
        "samples": 100,
    },
    "strategy": "selective",
    "model": {"name": "mlp", "hidden": [64]},
    "epochs": 5,
    "optimizer": {"name": "adam", "lr": 0.001},
}
STARTS = [list(starts) for starts in product(*(["base", *range(k)] for k in range(3)))]


def test_every_start_is_a_branch_that_is_trained_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    train = Fold.train

    def counted(fold: Fold) -> None:
        train(fold)
        trained.append(fold.plan.keys[fold.position])

    monkeypatch.setattr(Fold, "train", counted)
    given = spec({"strategy.start_from": STARTS}, base=BASE, tune={"metric": "average_accuracy"})
    phase = Phase("tune", plan_runs(given, PLANNER))
    Here(given, tmp_path, PLANNER).carry_out(phase)
    assert len(phase.runs) == len(STARTS) == 6
    assert sorted(trained) == sorted(tree.states(phase.runs)), "each state is trained exactly once"
    assert len(trained) == 1 + 2 + 6
    assert given.tune is not None
    (oracle,) = choose(given.tune, phase, tmp_path)
    reached = [phase.metrics[run.run_id]["validation/average_accuracy"] for run in phase.runs]
    always = dict(zip(map(str, STARTS), reached, strict=True))
    base, last = (always[str(s)] for s in (["base", "base", "base"], ["base", 0, 1]))
    assert oracle.objective == max(reached)
    assert oracle.objective >= base > last


def test_the_sweep_of_the_docs_has_all_starts() -> None:
    _, _, rest = (ROOT / "docs" / "selective.md").read_text().partition("```yaml\n")
    given = parse_spec(parse(rest.partition("```")[0]))
    assert given.axes["strategy.start_from"] == STARTS
