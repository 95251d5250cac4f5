"""What a report says of a sweep's tuning."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cl_platform.report.runs import Runs, read_runs
from cl_platform.report.tuning.edges import edges, range_of
from cl_platform.report.tuning.page import chosen, coordinates, sections
from cl_platform.report.tuning.trials import Choice, Trial, Tuning, settings_of, tuning_of
from sweeps.record import Phase, write_sweep
from tests.helpers.sweep_runs import Tuned, planned, spec

EWC = {"name": "ewc", "strength": {"loguniform": [1, 1000]}}
AXES = {"strategy": ["finetune", EWC], "lr": [0.01, 0.1, 0.5], "seed": [0, 1]}


def by_lr(run: Any) -> float | None:
    """More with more lr; one run of the smallest fails."""
    if run.config.optimizer.lr == 0.01 and run.config.seed == 1:
        return None
    return 0.5 + run.config.optimizer.lr + 0.1 * run.config.seed


def recorded(out: Path, phase: Phase, choices: Any, given: Any) -> Runs:
    write_sweep(out, given, [phase, Phase("final", planned())], "done", chosen=choices)
    return read_runs(out)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Every point tried with two seeds: 3 of finetune, 3 x 10 draws of ewc."""
    made = Tuned(AXES, by_lr)
    return recorded(tmp_path_factory.mktemp("tuned"), made.phase, made.choose(), made.spec)


@pytest.fixture(scope="module")
def tuned(runs: Runs) -> Tuning:
    found = tuning_of(runs)
    assert found is not None
    return found


def test_every_point_is_a_trial_with_its_mean_over_seeds(tuned: Tuning) -> None:
    finetune = [t for t in tuned.trials if t.group == {"strategy": "finetune"}]
    assert [t.settings for t in finetune] == [{"lr": lr} for lr in ("0.01", "0.1", "0.5")]
    assert [t.value for t in finetune[1:]] == pytest.approx([0.65, 1.05])
    assert finetune[0].value != finetune[0].value, "a seed of it failed"
    assert finetune[0].error.startswith("loss is nan")
    assert [t.chosen for t in finetune] == [False, False, True]
    ewc = [t for t in tuned.trials if t.group == {"strategy": "ewc"}]
    assert len(ewc) == 3 * 10
    assert all(t.settings.keys() == {"strategy.strength", "lr"} for t in ewc)
    assert sum(t.chosen for t in ewc) == 1


def test_results_stand_in_for_values_that_are_not_on_record(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = copy.deepcopy(runs.sweep)
    lost = next(r for r in record["phases"][0]["runs"] if r["point"]["lr"] == "0.1")
    del lost["metrics"]

    def read(_: Path, run_ids: list[str]) -> list[Any]:
        assert run_ids == [lost["run_id"]]
        metrics = {"validation/average_accuracy": 0.2}
        return [SimpleNamespace(run_id=lost["run_id"], metrics=metrics)]

    monkeypatch.setattr("cl_platform.report.tuning.trials.read_results", read)
    found = tuning_of(replace(runs, sweep=record))
    assert found is not None
    assert found.trials[1].value == pytest.approx((0.2 + 0.7) / 2)


def test_a_choice_at_the_edge_is_warned_of_once_for_all_that_made_it(tuned: Tuning) -> None:
    found = {(e.choice.group["strategy"], e.key): (e.side, e.tried) for e in edges(tuned)}
    assert found["finetune", "lr"] == ("upper", "3 values from 0.01 to 0.5")
    assert found["ewc", "lr"] == found["finetune", "lr"]
    text = "".join(chosen(tuned))
    assert text.count("lr = 0.5 is the largest of 3 values from 0.01 to 0.5: chosen for") == 1
    assert "finetune; ewc" in text
    assert text.count("0.5\N{NO-BREAK SPACE}\N{WARNING SIGN}") == 2
    assert text.index("<table") < text.index("class=warn")


def at(value: str, tried: Mapping[str, Any] = EWC, key: str = "strategy.strength") -> list[str]:
    choice = Choice({"strategy": "ewc"}, {key: value}, 0.5, 1)
    trial = Trial({"strategy": "ewc"}, {key: value}, 0.5)
    measure: Any = None
    return [e.side for e in edges(Tuning(measure, "", {"strategy": [tried]}, [trial], [choice]))]


@pytest.mark.parametrize(
    ("value", "side"),
    [("1.3", ["lower"]), ("1.5", []), ("30", []), ("650", []), ("750", ["upper"]), ("off", [])],
)
def test_the_ends_of_a_range_are_five_percent_of_it_on_its_own_scale(
    value: str, side: list[str]
) -> None:
    assert at(value) == side


def test_of_another_strategys_range_nothing_is_said() -> None:
    assert at("750", {"name": "si", "strength": {"loguniform": [1, 1000]}}) == []
    axes = {"strategy": [EWC], "lr": {"uniform": [0, 1]}, "odd": {"uniform": ["a", 1]}}
    assert range_of(axes, "strategy.strength", "ewc") == ("loguniform", 1, 1000)
    assert range_of(axes, "strategy.strength", "si") is None
    assert range_of(axes, "lr", "si") == ("uniform", 0, 1)
    assert range_of(axes, "odd", "si") is None


def test_a_single_value_has_no_edge() -> None:
    assert at("3", {"name": "ewc"}) == []


def test_parameters_of_a_strategy_are_read_from_its_label() -> None:
    point = {"strategy": "a b.py:C sizes=[8 [1 2]] rate=1e-05", "lr": "0.1", "seed": "3"}
    found = settings_of(point, {"strategy": "a b.py:C"})
    assert found == {"strategy.sizes": "[8 [1 2]]", "strategy.rate": "1e-05", "lr": "0.1"}


def test_the_axes_of_a_strategys_trials_are_what_differs(tuned: Tuning) -> None:
    finetune, ewc = coordinates(tuned)
    assert [axis["label"] for axis in finetune["axes"]] == ["lr", "accuracy %"]
    assert finetune["axes"][0] == {"label": "lr", "values": [0, 1], "ticks": ["0.1", "0.5"]}
    assert finetune["axes"][1]["values"] == pytest.approx([65, 105])
    assert [axis["label"] for axis in ewc["axes"]] == ["strength", "lr", "accuracy %"]
    assert ewc["axes"][0]["log"] is True
    assert len(ewc["axes"][0]["values"]) == 20, "those that did not fail"


def test_the_table_has_the_best_first_and_errors_in_words(tuned: Tuning) -> None:
    text = "".join(sections(tuned))
    assert "33 points, 11 failed" in text
    rows = text[text.index("<tbody") :].split("<tr>")[1:]
    assert len(rows) == 33
    assert rows[0].startswith("<td>")
    assert "105.0" in rows[0]
    assert "loss is nan" in rows[-1]


TRIALS: dict[str, list[dict[str, Any]]] = {
    "ray": [
        {"group": {"strategy": "er"}, "values": {"0/lr": 0.1, "template": 0}, "error": None,
         "objectives": [0.5, 0.6], "point": {"strategy": "er", "lr": "0.1"}},
        {"group": {"strategy": "er"}, "values": {"0/lr": 0.2, "template": 0},
         "error": "it broke", "objectives": []},
    ],
    "orders": [
        {"group": {"strategy": "er"}, "values": {"curriculum": "1 0"}, "objectives": [0.6]},
        {"group": {"strategy": "er"}, "values": {"curriculum": "0"}, "objectives": [None]},
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", TRIALS)
def test_trials_of_searches_are_shown_as_well(tmp_path: Path, kind: str) -> None:
    phase = Phase("tune", [], trials=TRIALS[kind])
    setting = {"ray": {"lr": "0.1"}, "orders": {"curriculum": "1 0"}}[kind]

    class Chosen:
        def to_json(self) -> dict[str, Any]:
            point = {"strategy": "er", **setting}
            return {"group": {"strategy": "er"}, "point": point, "objective": 0.6, "seeds": 1}

    found = tuning_of(recorded(tmp_path, phase, [Chosen()], spec(tune={"method": "all"})))
    assert found is not None
    first, second = found.trials
    assert (first.settings, first.value, first.chosen) == (setting, 0.6, True)
    assert second.value != second.value
    assert not second.chosen
    assert (second.error, first.learned) == (("it broke", 2) if kind == "ray" else ("", None))
    assert "".join(sections(found)).count("<tr>") == 3


def test_a_folder_without_tuning_has_none(tmp_path: Path) -> None:
    write_sweep(tmp_path, spec(), [Phase("runs", planned())], "done")
    assert tuning_of(read_runs(tmp_path)) is None
