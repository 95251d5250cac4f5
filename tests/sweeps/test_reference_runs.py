"""References: the metrics against them by hand, and the runs that a sweep adds to have them.

Sweeps here run in this process; one on a real Ray is in tests/system.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cl_platform as clp
from cl_platform.config.run_config import parse_config
from cl_platform.core.matrix import AccuracyMatrix
from cl_platform.engine.fold import Fold
from cl_platform.errors import BadInput, ConfigError
from cl_platform.metrics.matrix_metrics import forward_transfer_from_experts, intransigence
from cl_platform.results.references import (
    joint_references,
    read_references,
    reference_metrics,
    settings_key,
)
from cl_platform.results.result import Result
from sweeps import api
from sweeps.api import preview, sweep
from sweeps.executor.driver import Driver, OutOfTime
from sweeps.reference_runs import reference_phase, reference_runs
from tests.helpers.sweep_here import Here
from tests.helpers.sweep_references import BASE, BOTH, NAMES, STREAM, alone, check_numbers, document
from tests.helpers.sweep_runs import PLANNER, VALIDATED, planned, spec

# --- the metrics

R = AccuracyMatrix(
    [[0.1, 0.2, 0.3], [0.8, 0.25, 0.3], [0.9, 0.7, 0.4], [0.5, 0.6, 0.95]],
    experience_ids=("a", "b", "c"),
)
OTHERS = {"c": 0.97, "a": 0.9, "b": 0.85}


def test_intransigence_is_the_same_from_a_matrix_and_from_accuracies() -> None:
    expected = ((0.9 - 0.8) + (0.85 - 0.7) + (0.97 - 0.95)) / 3
    assert intransigence(R, OTHERS) == pytest.approx(expected, abs=1e-12)
    joint = AccuracyMatrix([[0, 0, 0]] + [list(OTHERS.values())] * 3, experience_ids=tuple(OTHERS))
    assert intransigence(R, joint) == intransigence(R, OTHERS)


def test_forward_transfer_from_experts_leaves_out_the_first_experience() -> None:
    expected = ((0.7 - 0.85) + (0.95 - 0.97)) / 2
    assert forward_transfer_from_experts(R, OTHERS) == pytest.approx(expected, abs=1e-12)
    assert forward_transfer_from_experts(R, OTHERS | {"a": 0.0}) == pytest.approx(expected)
    assert math.isnan(forward_transfer_from_experts(AccuracyMatrix([[0], [1]], ("a",)), OTHERS))


def test_an_experience_without_a_reference_makes_the_mean_undefined() -> None:
    for label in "bc":
        few = {k: v for k, v in OTHERS.items() if k != label}
        assert math.isnan(intransigence(R, few))
        assert math.isnan(forward_transfer_from_experts(R, few))
    without_first = {"b": 0.85, "c": 0.97}
    assert math.isnan(intransigence(R, without_first))
    assert forward_transfer_from_experts(R, without_first) == pytest.approx(-0.085)


@pytest.mark.parametrize("metric", [intransigence, forward_transfer_from_experts])
def test_columns_without_labels_cannot_be_compared(metric: Callable[..., float]) -> None:
    with pytest.raises(
        BadInput, match=r"^an accuracy matrix of 3 experiences has 0 experience_ids: .*$"
    ):
        metric(AccuracyMatrix(R.values), OTHERS)


# --- settings, and references by them


def config(**settings: Any) -> dict[str, Any]:
    return parse_config({**BASE, **settings}).model_dump(mode="json")


@pytest.mark.parametrize(
    "settings",
    [
        {"strategy": "ewc"},
        {"strategy": {"name": "er", "memory_size": 7}},
        {"curriculum": [2, 0, 1]},
        {"curriculum": {"name": "random", "level": "classes"}},
    ],
)
def test_strategy_and_order_do_not_part_settings(settings: dict[str, Any]) -> None:
    assert settings_key(config(**settings)) == settings_key(config())


def test_references_are_plain_training() -> None:
    assert settings_key(config(pacing="cyclical")) == settings_key(config())
    axes = {"strategy": ["er", "joint"], "pacing": ["cyclical", "reweighted"]}
    given = spec({}, base=BASE, references=["joint"])
    (made,) = reference_runs(given, planned(axes, base=BASE), PLANNER)
    assert made.config.pacing is None
    hidden = planned({}, base={**BASE, "strategy": "er", "boundaries": "hidden"})
    (other,) = reference_runs(given, hidden, PLANNER)
    assert (other.keys, other.config.boundaries) == (made.keys, "known")
    assert settings_key(config(boundaries="hidden")) == settings_key(config())
    paced = clp.run(strategy="joint", pacing="reweighted", out=None, **BASE)
    assert joint_references([paced]) == {}


def test_lists_over_experiences_have_no_references() -> None:
    base = {**BASE, "epochs": [2, 1]}
    given = spec({}, base=base, references=["joint"])
    with pytest.raises(BadInput, match=r"^references: epochs of a list over experiences; "):
        reference_runs(given, planned({}, base=base), PLANNER)


def test_the_device_does_not_part_settings() -> None:
    assert settings_key({**config(), "device": "cuda"}) == settings_key(config())


@pytest.mark.parametrize(
    "settings",
    [
        {"stream": {**STREAM, "samples_per_class": 13}},
        {"stream": {**STREAM, "scenario": "task"}},
        {"model": {"name": "mlp", "hidden": [9]}},
        {"optimizer": {"lr": 0.06}},
        {"optimizer": {"momentum": 0.9}},
        {"schedule": {"name": "CosineAnnealingLR"}},
        {"seed": 1},
        {"permute_labels": True},
        {"epochs": 3},
        {"batch_size": 11},
    ],
)
def test_whatever_training_depends_on_parts_settings(settings: dict[str, Any]) -> None:
    assert settings_key(config(**settings)) != settings_key(config())


def test_settings_can_be_read_off_a_result_file(tmp_path: Path) -> None:
    result = clp.run(strategy="er", out=tmp_path, **BASE)
    (path,) = tmp_path.glob("runs/*/result.json")
    in_memory = parse_config({**BASE, "strategy": "er"}).model_dump()
    stored = json.loads(path.read_text())["config"]
    assert settings_key(stored) == settings_key(in_memory) == settings_key(result.config)


def test_every_joint_run_is_a_reference_for_its_settings() -> None:
    by_class = {"name": "random", "level": "classes", "seed": 3}
    results = [
        clp.run(strategy="joint", out=None, **BASE),
        clp.run(strategy="joint", out=None, curriculum=by_class, **BASE),
        clp.run(strategy="joint", out=None, seed=1, **BASE),
        clp.run(strategy="er", out=None, seed=2, **BASE),
    ]
    found = joint_references(results)
    assert found.keys() == {settings_key(config()), settings_key(config(seed=1))}
    for result in results[:3]:
        row = found[settings_key(result.config)]
        for mask, matrix in result.matrices.items():
            assert {k: row[mask][k] for k in matrix.experience_ids} == matrix.last()
            assert matrix.last() == dict(zip(matrix.experience_ids, matrix.values[-1], strict=True))
    six = {*results[0].matrix.experience_ids, *results[1].matrix.experience_ids}
    assert found[settings_key(config())]["seen"].keys() == six
    assert len(six) > 3


@pytest.mark.parametrize(("scenario", "own"), [("class", "seen"), ("task", "task")])
def test_masks_are_named_as_in_a_result(scenario: str, own: str) -> None:
    base = {**BASE, "stream": {**STREAM, "scenario": scenario}}
    result = clp.run(strategy="finetune", out=None, **base)
    row = {mask: dict.fromkeys(m.experience_ids, 0.5) for mask, m in result.matrices.items()}
    metrics = reference_metrics(result, joint=row, experts=row)
    prefixes = {mask: "" if mask == own else f"{mask}/" for mask in result.matrices}
    names = (*NAMES, "normalised_transfer")
    assert metrics.keys() == {p + name for p in prefixes.values() for name in names}
    for mask, prefix in prefixes.items():
        learned = np.diagonal(result.matrices[mask].values, offset=-1)
        assert metrics[f"{prefix}{NAMES[0]}"] == pytest.approx(0.5 - learned.mean())
        assert metrics[f"{prefix}{NAMES[1]}"] == pytest.approx(learned[1:].mean() - 0.5)
    assert reference_metrics(result, joint=row).keys() == {
        f"{prefix}intransigence" for prefix in prefixes.values()
    }
    assert reference_metrics(result) == {}


def test_a_folder_without_references_has_none(tmp_path: Path) -> None:
    assert read_references(tmp_path) == {}
    (tmp_path / "sweep.json").write_text('{"name": "older"}')
    assert read_references(tmp_path) == {}


# --- the specification


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"references": ["joint", "joint"]}, "references=[joint, joint]: give each of joint and "),
        ({"references": ["expert"]}, "references=expert: input should be 'joint' or 'experts'"),
        ({"references": ["experts"], "share": False}, "references=[experts] with share=false: "),
        (
            {"references": ["joint"], "tune": {}},
            "references=[joint] with tune: references are those of final runs; give final",
        ),
    ],
)
def test_faults_are_one_line(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        spec(**settings)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


# --- the plan


def test_settings_share_their_references_and_orders_do_not_multiply_them() -> None:
    given = spec({}, base=BASE, references=BOTH)
    axes = {"strategy": ["er", "ewc"], "curriculum": ["all"], "seed": [0, 1]}
    found = reference_runs(given, planned(axes, base=BASE), PLANNER)
    assert len(found) == 2 * (1 + 3)
    assert len({run.run_id for run in found}) == len(found)
    assert [run.upto for run in found] == 2 * [1, 1, 1, 1]
    assert [run.whole for run in found] == 2 * [True, False, False, False]
    assert {run.config.curriculum["name"] for run in found} == {"as_given", "explicit"}


def test_a_joint_run_of_the_sweep_is_its_reference() -> None:
    given = spec({}, base=BASE, references=["joint"])
    others = planned({"strategy": ["er"]}, base=BASE)
    (made,) = reference_runs(given, others, PLANNER)
    (own,) = planned({"strategy": ["joint"]}, base=BASE)
    assert made.run_id == own.run_id
    reverse = planned({"strategy": ["joint"], "curriculum": ["reverse"]}, base=BASE)
    for joint in ([own], reverse):  # whatever its order: the same training
        assert reference_runs(given, [*others, *joint], PLANNER) == []
    other_seed = planned({"strategy": ["joint"], "seed": [1]}, base=BASE)
    assert len(reference_runs(given, [*others, *other_seed], PLANNER)) == 1


def test_experts_share_the_address_of_runs_that_begin_alike() -> None:
    given = spec({}, base=BASE, references=["experts"])
    runs = planned({"curriculum": ["all"]}, base=BASE)
    experts = reference_runs(given, runs, PLANNER)
    assert {run.keys[1] for run in experts} == {run.keys[1] for run in runs}


def test_a_dry_run_counts_references(tmp_path: Path) -> None:
    def tally(strategies: list[str], **more: Any) -> tuple[int, int, int]:
        axes = {"strategy": strategies, "curriculum": ["all"]}
        counted = preview(spec(axes, base=BASE, **more), tmp_path).tally
        return counted.runs, counted.experiences, counted.distinct

    # Six orders of three experiences: 18 steps, of which 3 + 6 + 6 are distinct.
    assert tally(["er"]) == (6, 18, 15)
    assert tally(["er"], references=["joint"]) == (7, 19, 16)
    assert tally(["er"], references=BOTH) == (10, 22, 19)
    assert tally(["finetune"], references=BOTH) == (10, 22, 16)
    assert tally(["joint"], references=["joint"]) == (6, 6, 1)
    assert tally(["er"], references=BOTH, budget={"runs": 10, "experiences": 19})[0] == 10
    with pytest.raises(BadInput, match=r"^the sweep has 10 runs, above budget\.runs=9; raise"):
        tally(["er"], references=BOTH, budget={"runs": 9})
    with pytest.raises(BadInput, match=r"has 19 experiences, above budget\.experiences=18; raise"):
        tally(["er"], references=BOTH, budget={"experiences": 18})
    assert not list(tmp_path.iterdir())


# --- sweeps


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Sweeps run in this process; one item for every experience that is trained, its strategy."""
    trained: list[str] = []
    train = Fold.train

    def counted(fold: Fold) -> None:
        trained.append(fold.plan.config.strategy["name"])
        train(fold)

    monkeypatch.setattr(Fold, "train", counted)
    monkeypatch.setattr(api, "Driver", Here)
    return trained


def test_the_numbers_are_those_of_separate_runs(here: list[str], tmp_path: Path) -> None:
    axes = {"strategy": ["er", "finetune"], "curriculum": ["reverse", [1, 0, 2]], "seed": [0, 1]}
    found = sweep(document(axes), tmp_path / "out")
    assert found.complete
    assert not found.failed
    assert [phase.name for phase in found.phases] == ["references", "runs"]
    assert len(found.references) == 2
    for seed in (0, 1):
        check_numbers(found, seed=seed)
    values = found.results()[[f"{p}{n}" for p in ("", "task/") for n in NAMES]]
    assert (values.nunique() > 1).all()  # something was compared
    assert (tmp_path / "out" / "report.html").exists()


def test_class_indices_dealt_by_the_seed_have_references(here: list[str], tmp_path: Path) -> None:
    base = {"permute_labels": True}
    found = sweep(document({"strategy": ["er"], "seed": [3]}, base=base), tmp_path / "out")
    check_numbers(found, seed=3, permute_labels=True)


def test_a_result_is_compared_as_the_document_says(here: list[str], tmp_path: Path) -> None:
    found = sweep(document({"strategy": ["er"]}), tmp_path)
    (row,) = found.results().to_dict("records")
    result = alone("er")
    metrics = reference_metrics(result, **read_references(tmp_path)[settings_key(result.config)])
    assert len(metrics) == 9
    assert {name: row[name] for name in metrics} == pytest.approx(metrics, abs=0, nan_ok=True)


def test_what_was_computed_once_is_used_again(here: list[str], tmp_path: Path) -> None:
    axes = {"strategy": ["er"], "curriculum": ["as_given", "reverse"]}
    first = sweep(document(axes), tmp_path)
    assert sorted(here) == ["er"] * 6 + ["finetune"] * 3 + ["joint"]
    assert first.phases[0].tally.trained == 4
    again = sweep(document(axes), tmp_path)
    assert len(here) == 10
    assert [phase.tally.trained for phase in again.phases] == [0, 0]
    assert [phase.tally.kept for phase in again.phases] == [4, 2]
    assert again.references == first.references
    tally = preview(document(axes), tmp_path).tally
    assert (tally.runs, tally.kept, tally.known) == (6, 6, 10)
    phase = reference_phase(
        reference_runs(first.spec, first.phases[-1].runs, PLANNER), PLANNER, tmp_path
    )
    assert Here(first.spec, tmp_path, PLANNER).survey(phase) == []  # so that no Ray is started

    wider = sweep(document({**axes, "strategy": ["er", "er-ace"]}), tmp_path)
    assert sorted(set(here[10:])) == ["er-ace"]
    assert wider.references == first.references


def test_experts_are_the_first_steps_of_fine_tuning(here: list[str], tmp_path: Path) -> None:
    axes = {"strategy": ["finetune"], "curriculum": ["all"]}
    found = sweep(document(axes), tmp_path)
    assert sorted(here) == ["finetune"] * 15 + ["joint"]
    assert found.phases[0].tally.known == 3
    check_numbers(found)
    values = found.results()
    assert (values["curriculum.name"] == "explicit").all()
    assert len(values) == 6


def test_an_expert_does_not_stand_for_the_run_that_goes_on(here: list[str], tmp_path: Path) -> None:
    sweep(document({"strategy": ["er"]}), tmp_path)
    axes = {"strategy": ["finetune"], "curriculum": [[1, 0, 2]]}  # the very run an expert begins
    assert preview(document(axes), tmp_path).tally.kept == 3  # joint and two experts
    found = sweep(document(axes), tmp_path)
    assert found.phases[1].tally.done == 1
    assert len(found.results()) == 1


def test_a_sweep_that_has_joint_runs_it_once(here: list[str], tmp_path: Path) -> None:
    axes = {"strategy": ["er", "joint"], "curriculum": ["as_given", "reverse"]}
    found = sweep(document(axes, ["joint"]), tmp_path)
    assert here.count("joint") == 1
    references, runs = found.phases
    assert (references.tally.runs, runs.tally.runs) == (0, 4)
    assert len(list(tmp_path.glob("runs/*/result.json"))) == 4
    frame = found.results().set_index(["strategy.name", "axis.curriculum"])
    assert (frame.loc["joint", "intransigence"] == 0).all()
    assert frame.loc["er", "intransigence"].notna().all()
    assert NAMES[1] not in frame
    (entry,) = json.loads((tmp_path / "sweep.json").read_text())["references"]
    assert entry.keys() == {"settings", "joint"}


def test_without_references_nothing_is_added(here: list[str], tmp_path: Path) -> None:
    found = sweep(document({"strategy": ["er", "joint"]}, []), tmp_path)
    assert [phase.name for phase in found.phases] == ["runs"]
    assert read_references(tmp_path) == {}
    # A run of joint in the folder is a reference all the same; experts are not there.
    table = found.results().set_index("axis.strategy")
    assert NAMES[1] not in table
    er = Result.load(Path(table.loc["er", "path"]))
    joint = Result.load(Path(table.loc["joint", "path"]))
    assert er is not None
    assert joint is not None
    assert table.loc["er", NAMES[0]] == intransigence(er.matrix, joint.matrix)


def test_a_sweep_that_shares_nothing_may_have_joint(here: list[str], tmp_path: Path) -> None:
    found = sweep(document({"strategy": ["er"]}, ["joint"], share=False), tmp_path)
    expected = alone("joint").matrix.last()
    assert found.references[settings_key(config())]["joint"]["seen"] == expected
    assert sweep(document({"strategy": ["er"]}, ["joint"], share=False), tmp_path).complete
    assert here.count("joint") == 2  # here and alone


def test_orders_of_classes_have_no_experts(here: list[str], tmp_path: Path) -> None:
    by_class = {"name": "explicit", "level": "classes", "order": [4, 0, 1, 2, 3, 5]}
    found = sweep(document({"strategy": ["er"], "curriculum": [by_class, "reverse"]}), tmp_path)
    assert found.complete
    frame = found.results().set_index("curriculum.name")
    assert frame.loc["explicit", list(NAMES)].isna().all()
    assert frame.loc["reverse", list(NAMES)].notna().all()


def test_a_joint_run_over_the_same_order_of_classes_is_a_reference(
    here: list[str], tmp_path: Path
) -> None:
    by_class = {"name": "explicit", "level": "classes", "order": [4, 0, 1, 2, 3, 5]}
    axes = {"strategy": ["er", "joint"], "curriculum": [by_class]}
    found = sweep(document(axes, ["joint"]), tmp_path)
    frame = found.results().set_index("strategy.name")
    assert frame.loc["joint", "intransigence"] == 0
    expected = intransigence(alone("er", by_class).matrix, alone("joint", by_class).matrix)
    assert frame.loc["er", "intransigence"] == expected


def test_a_stream_of_one_experience(here: list[str], tmp_path: Path) -> None:
    base = {"stream": {**STREAM, "experiences": 1}}
    found = sweep(document({"strategy": ["er"]}, base=base), tmp_path)
    (row,) = found.results().to_dict("records")
    assert not found.failed
    assert math.isnan(row[NAMES[1]])  # nothing came before
    joint, er = (alone(name, **base).matrix for name in ("joint", "er"))
    assert row["intransigence"] == joint[1, 0] - er[1, 0]


def test_accuracies_by_another_evaluator_are_not_used(here: list[str], tmp_path: Path) -> None:
    axes = {"strategy": ["er"]}
    first = sweep(document(axes, ["experts"]), tmp_path)
    experts = [run for run in first.phases[0].runs if run.config.strategy["name"] == "finetune"]
    path = tmp_path / "states" / experts[0].keys[1][:2] / f"{experts[0].keys[1]}.json"
    record = json.loads(path.read_text())
    accuracies = record["rows"]["test"]["seen"]
    record |= {"evaluator": "of old"}
    record["rows"]["test"]["seen"] = dict.fromkeys(accuracies, 0.123)
    path.write_text(json.dumps(record))
    again = sweep(document(axes, ["experts"]), tmp_path)
    assert again.phases[0].tally.kept == 2
    assert again.references == first.references


# --- failures and interruptions

TOO_FAST = {"optimizer": {"lr": 1e30}}


def idle(tmp_path: Path) -> dict[str, Any]:
    """A strategy that learns nothing, at whatever rate."""
    return {
        "name": "tests.helpers.sweep_strategies:Noted",
        "log": str(tmp_path / "log"),
        "rate": 0.0,
    }


def test_references_that_fail_are_on_record_and_the_table_is_written(
    here: list[str], tmp_path: Path, clp: Callable[..., tuple[int, str, str]]
) -> None:
    given = document({"strategy": [idle(tmp_path)]}, base=TOO_FAST)
    found = sweep(given, tmp_path / "out")
    assert found.complete
    assert (found.failed, found.phases[1].tally.done) == (4, 1)
    assert all("loss is" in error for error in found.phases[0].errors.values())
    (row,) = found.results().to_dict("records")
    assert [math.isnan(row[name]) for name in NAMES] == [True, True]
    assert row["average_accuracy"] > 0
    assert read_references(tmp_path / "out") == {}
    assert "loss is" in (tmp_path / "out" / "report.html").read_text()

    trained = len(here)
    (tmp_path / "mine.json").write_text(json.dumps(given))
    arguments = ("sweep", str(tmp_path / "mine.json"), "--out", str(tmp_path / "out"))
    code, out, _ = clp(*arguments)
    assert code == 1
    assert "references: runs 0 of 4 done, 4 failed" in out
    assert len(here) == trained  # they are not tried again
    assert clp(*arguments, "--retry-failed")[0] == 1
    assert len(here) == trained + 4


def test_one_reference_that_fails_leaves_the_others(
    here: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Fold.train

    def train(fold: Fold) -> None:
        if fold.plan.config.strategy["name"] == "joint":
            raise BadInput("no memory for all the data")
        before(fold)

    monkeypatch.setattr(Fold, "train", train)
    found = sweep(document({"strategy": ["er"]}), tmp_path)
    assert list(found.phases[0].errors.values()) == ["no memory for all the data"]
    (row,) = found.results().to_dict("records")
    assert math.isnan(row["intransigence"])
    assert not math.isnan(row[NAMES[1]])
    (entry,) = json.loads((tmp_path / "sweep.json").read_text())["references"]
    assert entry.keys() == {"settings", "experts"}


def test_after_the_hours_of_the_budget_no_reference_begins(here: list[str], tmp_path: Path) -> None:
    given = document({"strategy": ["er"]}, budget={"hours": 1})

    def watch(driver: Driver) -> Callable[[Any], None]:
        def tick(phase: Any) -> None:
            if phase.name == "references":
                raise OutOfTime("the budget of 1 hours is used up")

        return tick

    found = sweep(given, tmp_path, watch=watch)
    assert not found.complete
    (known,) = found.references.values()  # the one that had begun
    assert len(known.get("experts", {}).get("seen", {})) + ("joint" in known) == 1
    assert len(found.results()) == 1
    assert {*NAMES} <= {*found.results().columns}
    assert sweep(given, tmp_path).complete
    assert len(here) == 3 + 4


def test_interrupted_it_goes_on_and_does_nothing_twice(
    here: list[str], tmp_path: Path, rng: random.Random
) -> None:
    given = document({"strategy": ["er"], "curriculum": ["reverse"]})
    steps = rng.randrange(1, 5)  # of the references

    def watch(driver: Driver) -> Callable[[Any], None]:
        def tick(phase: Any) -> None:
            if phase.name == "references" and phase.tally.trained >= steps:
                raise KeyboardInterrupt

        return tick

    with pytest.raises(KeyboardInterrupt):
        sweep(given, tmp_path, watch=watch)
    assert json.loads((tmp_path / "sweep.json").read_text())["status"] == "interrupted"
    (known,) = read_references(tmp_path).values()  # what was found by then
    assert len(known.get("experts", {}).get("seen", {})) + ("joint" in known) == steps
    found = sweep(given, tmp_path)
    assert len(here) == 3 + 4
    check_numbers(found)


def test_references_of_a_tuned_sweep_are_those_of_its_final_runs(
    here: list[str], tmp_path: Path
) -> None:
    base = {"stream": VALIDATED, "epochs": 1}
    given = document(
        {"strategy": ["er", "er-ace"], "lr": [0.01, 0.1], "seed": [0]},
        base=base,
        tune={"experiences": 2},
        final={"seeds": 2},
    )
    told = preview(given, tmp_path / "out")
    assert told.tally.runs == 4
    assert told.then.endswith("with 2 final seeds, and joint and experts for reference")
    found = sweep(given, tmp_path / "out")
    assert [phase.name for phase in found.phases] == ["tune", "references", "final"]
    _, references, final = found.phases
    chosen = {choice.config.optimizer.lr for choice in found.chosen}
    assert references.tally.runs == len(chosen) * 2 * (1 + 3)
    assert found.references.keys() == {
        settings_key(run.config.model_dump(mode="json")) for run in final.runs
    }
    assert {run.config.seed for run in references.runs} == {1, 2}
    frame = found.results()
    assert len(frame) == 4
    assert frame[list(NAMES)].notna().all(axis=None)
    lr = found.chosen[0].config.optimizer.lr
    check_numbers(found, **base, seed=1, lr=lr)
    again = sweep(given, tmp_path / "out")
    assert again.phases[1].tally.trained == 0
