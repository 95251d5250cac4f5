"""What W&B does not take is shortened or kept offline; whether it takes runs is asked once."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cl_platform.config.run_config import parse_config
from cl_platform.engine.execution import execute
from cl_platform.engine.planner import make_plan
from cl_platform.tracking.values import Bars
from cl_platform.tracking.wandb import sink as wandb_sink
from cl_platform.tracking.wandb.sink import WandbSink, decided_mode
from sweeps.executor.driver import Driver
from tests.helpers.sweep_runs import PLANNER, spec

LINE = (
    "W&B: the server takes no runs (CommError: HTTP 500). Tracking offline; upload later with "
    "`wandb sync`.\n"
)


class Wandb:
    """A library that starts runs offline only, and keeps what it is given."""

    def __init__(self) -> None:
        self.started: list[dict[str, Any]] = []
        self.logged: list[dict[str, Any]] = []
        self.Settings = SimpleNamespace
        self.Table = self.Image = lambda *_, **__: None
        self.Histogram = lambda np_histogram: np_histogram
        self.plot_table = lambda **_: None
        self.plot = SimpleNamespace(line_series=lambda *_, **__: None)

    def init(self, **fields: Any) -> Any:
        self.started.append(fields)
        if fields["mode"] == "online":
            raise OSError("CommError: HTTP 500.")
        return SimpleNamespace(
            define_metric=lambda *_, **__: None,
            log=self.logged.append,
            finish=lambda exit_code=0: None,
            summary={},
        )

    def modes(self) -> list[str]:
        return [fields["mode"] for fields in self.started]


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Wandb:
    library = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", library)
    monkeypatch.setattr(wandb_sink, "reachable_mode", lambda: "online")
    monkeypatch.setattr(wandb_sink, "as_image", lambda figure: None)
    monkeypatch.setattr(wandb_sink, "_refused", type(wandb_sink._refused)())
    return library


def run(sink: WandbSink, **settings: Any) -> None:
    stream = {"name": "blobs", "samples_per_class": 6}
    execute(make_plan(parse_config({"stream": stream, **settings})), None, sinks=[sink])


def test_a_server_that_takes_no_runs_costs_one_wait_and_one_line(
    wandb: Wandb, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1):
        run(WandbSink("online", tmp_path), seed=seed)
    assert wandb.modes() == ["online", "offline", "offline"]
    assert capsys.readouterr().err == LINE
    assert [row["experience"] for row in wandb.logged if "so_far/average_accuracy" in row] == [
        *range(1, 6),
        *range(1, 6),
    ]


def test_a_sweep_asks_once(
    wandb: Wandb, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    driver = Driver(spec(wandb={"mode": "online"}, name="mine"), tmp_path, PLANNER)
    assert driver.tracking == driver.tracking == "offline"
    assert wandb.modes() == ["online"]
    assert wandb.started[0]["id"] == "mine-summary"
    assert capsys.readouterr().err == LINE


def test_a_worker_does_not_ask_what_is_decided(
    wandb: Wandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask() -> str:
        raise AssertionError("asked again")

    monkeypatch.setattr(wandb_sink, "reachable_mode", ask)
    assert WandbSink("online", tmp_path, decided=True).mode == "online"


def test_a_server_that_takes_runs_has_the_summary(
    wandb: Wandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_sink, "_init", lambda *_, **__: SimpleNamespace(finish=lambda: None))
    assert decided_mode(tmp_path, "mine") == "online"


def test_long_names_are_shortened_for_tags(wandb: Wandb, tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    (folder / "mine.py").write_text("from strategies.baselines import Finetune as Mine\n")
    run(WandbSink("offline", tmp_path), strategy=f"{folder}/mine.py:Mine")
    (started,) = wandb.started
    assert [len(tag) for tag in started["tags"]][1] == 64
    assert started["tags"][1].endswith("long/mine.py:Mine")
    assert started["tags"][0] == "blobs"


@pytest.mark.parametrize(("n", "heights"), [(3, 3), (512, 512), (513, 257), (2000, 500)])
def test_a_histogram_has_no_more_bars_than_are_taken(n: int, heights: int) -> None:
    found, edges = Bars([1.0] * n).histogram()
    assert (len(found), len(edges)) == (heights, heights + 1)
    assert found.sum() == n
    assert (edges[0], edges[-1]) == (0, n)
    assert np.array_equal(found, np.diff(edges))


def test_what_is_held_out_and_probed_is_logged_from_the_untrained_model_on(
    wandb: Wandb, tmp_path: Path
) -> None:
    stream = {"name": "rotated-digits", "experiences": 3, "held_out": [1]}
    plan = make_plan(parse_config({"stream": stream, "probe": {"shots": 2}}))
    result = execute(plan, tmp_path, sinks=[WandbSink("offline", tmp_path)])
    assert result.probes is not None
    again = len(wandb.logged)
    execute(plan, tmp_path, sinks=[WandbSink("offline", tmp_path)])  # reads what it found
    for logged in (wandb.logged[:again], wandb.logged[again:]):
        rows = [row for row in logged if "held_out/all/average" in row]
        assert [row["experience"] for row in rows] == [0, 1, 2]
        for name, column in {
            "held_out/all/column_3": result.matrix.values[:, 2],
            "held_out/task/average": result.matrices["task"].values[:, 2],
            "probe/column_3": result.probes.values[:, 2],
            "probe/average": result.probes.values[:, 2],
        }.items():
            assert [row[name] for row in rows] == column.tolist()
        assert [row["so_far/average_accuracy"] for row in rows[1:]] == [
            result.matrix.values[1, 0],
            result.matrix.values[2, :2].mean(),
        ]
