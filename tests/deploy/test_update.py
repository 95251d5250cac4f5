"""A run goes on with new data: the bits of one that had them from the start, and a verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import cl_platform as clp
from cl_platform import Result, Stream
from cl_platform.cli.app import main
from cl_platform.config.signatures import build
from cl_platform.deploy.update import update
from cl_platform.errors import BadInput, ConfigError
from cl_platform.results.update import Requirement, Update

BASE = {"name": "split-digits", "classes": [3, 5], "experiences": 1}
NEW = [{"name": "split-digits", "classes": [c]} for c in (7, 1, 4)]
SETTINGS: dict[str, Any] = {"model": {"name": "mlp", "hidden": [16]}, "epochs": 2}


def state_of(result: Result) -> dict[str, Any]:
    return result.strategy().state_dict()


def assert_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(value, other[key]) if torch.is_tensor(value) else value == other[key]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("deployed")
    return clp.run({**BASE, "open": True}, "er", out=folder, **SETTINGS)


@pytest.fixture(scope="module")
def updated(deployed: Result) -> list[Update]:
    outcomes: list[Update] = []
    for section in NEW:
        outcomes.append(update(outcomes[-1].after if outcomes else deployed, section))
    return outcomes


def test_three_updates_are_the_run_of_four_experiences(
    updated: list[Update], tmp_path: Path
) -> None:
    more = [{**section, "experiences": 1} for section in NEW]
    stream = {"name": "extended", "base": BASE, "more": more, "open": True}
    whole = clp.run(stream, "er", out=tmp_path, **SETTINGS)
    last = updated[-1].after
    assert whole.matrix.names == last.matrix.names == ("3 5", "7", "1", "4")
    assert np.array_equal(whole.matrix.values, last.matrix.values)
    assert_equal(state_of(whole), state_of(last))


def test_an_update_trains_one_step_and_leaves_the_run_before(
    deployed: Result, updated: list[Update]
) -> None:
    assert deployed.path is not None
    steps = [
        json.loads(line)
        for line in (updated[2].after.path / "events.jsonl").read_text().splitlines()  # type: ignore[operator]
    ]
    rows = [event["reused"] for event in steps if event["event"] == "evaluated"]
    assert len(rows) == 5
    assert Result.load(deployed.path) is not None
    assert deployed.model().class_names == ("3", "5")  # type: ignore[comparison-overlap]
    assert updated[-1].after.model().class_names == ("3", "5", "7", "1", "4")  # type: ignore[comparison-overlap]


def test_the_measures_are_those_of_matrix_and_predictions(updated: list[Update]) -> None:
    last = updated[-1]
    values = last.after.matrix.values
    assert last.measures["old_accuracy"] == pytest.approx(values[-1, :3].mean())
    assert last.measures["old_accuracy_before"] == pytest.approx(values[3, :3].mean())
    assert last.measures["new_accuracy"] == values[-1, 3]
    # Over all old samples, flips are what the accuracy changes by.
    samples = sum(c.samples for c in last.classes)
    change = sum(c.samples * c.change for c in last.classes) / samples
    flips = last.measures["positive_flips"] - last.measures["negative_flips"]
    assert change == pytest.approx(flips)
    assert last.classes[0].change == last.measures["worst_class_change"]
    assert last.measures["worst_class_change"] == min(c.change for c in last.classes)


def test_an_update_is_looked_up_the_second_time(deployed: Result, updated: list[Update]) -> None:
    again = update(deployed, NEW[0])
    assert again.after.run_id == updated[0].after.run_id
    assert again.after.ended == updated[0].after.ended


def test_classes_are_told_by_name() -> None:
    more = [{**NEW[0], "classes": [5, 7], "experiences": [2]}]
    stream = build("stream", {"name": "extended", "base": BASE, "more": more})
    assert isinstance(stream, Stream)
    assert stream.class_names == ("3", "5", "7")
    assert [e.classes for e in stream.experiences] == [(0, 1), (1, 2)]


def test_new_data_may_be_a_stream_made_in_python(deployed: Result, updated: list[Update]) -> None:
    made = build("stream", {**NEW[0], "experiences": 1})
    outcome = update(deployed, made)
    assert np.array_equal(outcome.after.matrix.values, updated[0].after.matrix.values)
    further = update(outcome.after, NEW[1])
    assert np.array_equal(further.after.matrix.values, updated[1].after.matrix.values)


def test_states_that_were_not_kept_are_made_again(
    updated: list[Update], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = {
        "name": "extended",
        "base": BASE,
        "more": [{**NEW[0], "experiences": 1}],
        "open": True,
    }
    lean = clp.run(stream, "er", out=tmp_path, keep="last", **SETTINGS)
    outcome = update(lean, NEW[1])
    assert "the states after 1 of its 2 experiences were not kept" in capsys.readouterr().err
    assert np.array_equal(outcome.after.matrix.values, updated[1].after.matrix.values)


def test_domains_follow_without_a_new_class(tmp_path: Path) -> None:
    def rotated(n: int) -> dict[str, Any]:
        return {"name": "rotated-digits", "experiences": n, "largest_angle": 90.0 * (n - 1) or 1.0}

    before = clp.run({**rotated(2), "open": True}, "er", out=tmp_path, **SETTINGS)
    outcome = update(before, {**rotated(2)})
    assert outcome.after.matrix.values.shape == (5, 4)
    assert outcome.after.scenario == "domain"


def test_a_closed_stream_cannot_go_on(tmp_path: Path) -> None:
    closed = clp.run(BASE, "er", out=tmp_path, **SETTINGS)
    with pytest.raises(BadInput, match=r"cannot go on: its stream is closed.*stream\.open=true"):
        update(closed, NEW[0])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("old_accuracy", "give MEASURE>=NUMBER"),
        ("old_acuracy>=0.9", "Did you mean 'old_accuracy'"),
        ("old_accuracy>=high", "give MEASURE>=NUMBER"),
    ],
)
def test_a_malformed_requirement_is_one_line(text: str, reason: str) -> None:
    with pytest.raises(BadInput, match=reason) as caught:
        Requirement.parse(text)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [
        ("negative_flips<=1%", 0.01, True),
        ("negative_flips<1%", 0.01, False),
        ("old_accuracy>=0.9", float("nan"), False),
        ("seconds<=1e3", 999.0, True),
    ],
)
def test_a_requirement_compares(text: str, value: float, holds: bool) -> None:
    assert Requirement.parse(text).holds(value) is holds


def test_the_command_ends_with_3_where_a_requirement_fails(
    deployed: Result, updated: list[Update], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["update", str(deployed.path), "--data", "split-digits", "--set", "data.classes=[7]"]
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--require", "new_accuracy>=0"])
    assert not stopped.value.code
    assert "go: " in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--require", "old_accuracy>=101%", "--json"])
    assert stopped.value.code == 3
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["verdict"] == "no-go"
    assert outcome["after"] == updated[0].after.run_id
    page = (updated[0].after.path / "update.html").read_text("utf-8")  # type: ignore[operator]
    assert "no-go" in page
    assert "old_accuracy" in page


def test_data_of_another_shape_are_one_line(deployed: Result) -> None:
    with pytest.raises(BadInput) as caught:
        update(deployed, {"name": "blobs"})
    assert len(str(caught.value)) < 500


def test_a_run_in_an_order_of_classes_goes_on_with_new_ones(tmp_path: Path) -> None:
    stream = {"name": "split-digits", "classes": [0, 1, 2, 3], "experiences": 2, "open": True}
    order = {"name": "explicit", "order": [3, 0, 2, 1], "level": "classes"}
    before = clp.run(stream, "er", curriculum=order, out=tmp_path, **SETTINGS)
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 16, (40, 1, 8, 8)).astype(np.uint8), np.zeros(40, int)
    other = Stream.from_arrays(x, y, class_names=["other"], experiences=1)  # of another source
    digits = build("stream", stream)
    assert [e.identity for e in digits.followed_by(other).regrouped([3, 0, 2, 1, 4])][:2] == [
        e.identity for e in digits.regrouped([3, 0, 2, 1])
    ]
    after = update(before, {"name": "split-digits", "classes": [4]}).after
    assert after.matrix.names == ("0 3", "1 2", "4")
    assert after.order == [*before.order, 4]


def test_an_empty_name_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="give the id of one run"):
        update("", NEW[0], out=tmp_path)


def test_a_single_requirement_needs_no_list(deployed: Result) -> None:
    with pytest.raises(BadInput, match="requirement 'accuracy=1'"):
        update(deployed, NEW[0], require="accuracy=1")


def test_new_data_in_a_folder_are_one_experience_read_as_before(tmp_path: Path) -> None:
    for part, names in (("old", "ab"), ("new", "cde")):
        for i, name in enumerate(names):
            (tmp_path / part / name).mkdir(parents=True)
            for k in range(10):
                pixels = np.full((9, 9), 20 * k + 5 * i, np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{k}.png")
    stream = {"name": "folder", "path": str(tmp_path / "old"), "size": 6, "experiences": 1}
    before = clp.run({**stream, "open": True}, "er", out=tmp_path / "out", **SETTINGS)
    outcome = update(before, str(tmp_path / "new"))
    assert outcome.after.matrix.names == ("a b", "c d e")
    assert outcome.after.model().input_shape == (1, 6, 6)  # type: ignore[comparison-overlap]
    with pytest.raises(ConfigError, match=r"data\.sise is unknown\. Did you mean 'size'"):
        update(before, {"name": "folder", "path": str(tmp_path / "new"), "sise": 6})
