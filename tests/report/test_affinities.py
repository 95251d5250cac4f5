"""The report of a sweep whose curricula come from an affinity shows it once, as a heat map."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cl_platform.core.order.affinity import affinity_of, ask
from cl_platform.engine.execution import execute
from cl_platform.report.runs import read_runs
from cl_platform.report.sections import page
from cl_platform.results.plots import affinity_figure
from sweeps.record import Phase, write_sweep
from sweeps.scores import affinities_of, scores_of
from tests.helpers.sweep_runs import PLANNER, planned, spec

KL = {"name": "kl", "samples": 5}


def test_affinities_of_a_sweep_are_drawn_once_each(tmp_path: Path) -> None:
    curricula = ["as_given", *({"name": n, "affinity": KL} for n in ("useful_first", "towards"))]
    curricula[2]["target"] = 0  # type: ignore[index]
    axes = {"curriculum": curricula}
    scored_by = [{"name": "linear_ordering", "affinity": "mmd"}]
    runs = planned(axes)
    for run in runs:
        execute(PLANNER(run.config), tmp_path, keep="none")
    found = affinities_of(scored_by, runs, PLANNER)
    assert sorted(one["affinity"] for one in found) == ["kl samples=5", "mmd"]
    matrix = next(one for one in found if one["affinity"] != "mmd")["matrix"]
    assert np.array_equal(matrix, ask(PLANNER.stream(runs[0].config), affinity_of(KL)))
    scores = scores_of(scored_by, runs, PLANNER)
    assert len({round(v, 9) for v in scores["linear_ordering affinity=mmd"].values()}) == 1
    phase = Phase("runs", runs)
    write_sweep(tmp_path, spec(axes), [phase], "done", affinities=found)
    text = page(read_runs(tmp_path))
    assert text.count("What helps to learn what") == 1
    assert text.count('class=drawn id="affinity-') == 2
    assert "kl samples=5 on blobs" in text
    write_sweep(tmp_path, spec(axes), [phase], "done")
    assert "What helps to learn what" not in page(read_runs(tmp_path))


def test_a_heat_map_is_white_at_zero_and_writes_few_values() -> None:
    rng = np.random.default_rng(0)
    for n, texts in ((1, 0), (2, 2), (10, 90), (11, 0), (60, 0)):
        names = [f"name {i} with $signs$ " + "x" * i for i in range(n)]
        drawn = affinity_figure(rng.normal(size=(n, n)), names, "by $me$")
        axes = drawn.axes[0]
        (image,) = axes.images
        low, high = image.get_clim()
        assert low == -high
        assert np.ma.count_masked(np.ma.masked_invalid(image.get_array())) == n
        assert len(axes.texts) == texts
        drawn.canvas.draw()
