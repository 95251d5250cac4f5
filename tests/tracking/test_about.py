"""What dashboards call a run: other settings, another point; another seed, the same one."""

from __future__ import annotations

from typing import Any

import pytest

from cl_platform.config.run_config import parse_config
from cl_platform.tracking.about import About, about


def described(sweep: str = "", **settings: Any) -> About:
    config = parse_config({"stream": "blobs", **settings}).model_dump(mode="json")
    start = {"config": config, "run_id": "abc", "order": [0], "scenario": "class"}
    return about(start, sweep)


def er(size: int, **more: Any) -> dict[str, Any]:
    return {"strategy": {"name": "er", "memory_size": size, **more}}


def test_other_settings_are_another_point() -> None:
    points = {
        described(**settings).point
        for settings in (er(50), er(201), {**er(50), "optimizer": {"lr": 0.03}}, {})
    }
    assert points == {
        "blobs/er/as_given memory_size=50",
        "blobs/er/as_given memory_size=201",
        "blobs/er/as_given memory_size=50 lr=0.03",
        "blobs/er/as_given",
    }


def test_what_is_no_other_experiment_is_the_same_point() -> None:
    same = [described(seed=s, threads=t, plasticity=p) for s, t, p in ((0, 1, True), (1, 2, False))]
    assert same[0].point == same[1].point == "blobs/er/as_given"
    assert [one.name for one in same] == ["blobs/er/as_given s0", "blobs/er/as_given s1"]


def test_an_order_is_a_name() -> None:
    found = described(curriculum=[2, 0, 1, 4, 3], model="cnn")
    assert found.point == "blobs/er/2 0 1 4 3 cnn"


def test_keys_are_as_long_as_tells_them_apart() -> None:
    found = described(
        strategy={"name": "er", "memory_size": 9}, schedule={"name": "steplr", "step_size": 3}
    )
    assert "step_size=3" in found.tags
    assert "schedule.name=steplr" in found.tags or "name=steplr" in found.tags


def test_long_points_are_short_and_stay_different() -> None:
    orders = [list(range(200)), [1, 0, *range(2, 200)]]
    found = [described(curriculum=order) for order in orders]
    assert len({one.point for one in found}) == 2
    assert all(len(one.name) <= 128 for one in found)
    assert all(len(described("s" * 20, curriculum=o).group) <= 128 for o in orders)


def test_a_sweep_is_in_the_group_the_tags_and_the_configuration() -> None:
    found = described("mine", **er(50))
    assert found.group == "mine: blobs/er/as_given memory_size=50"
    assert "sweep mine" in found.tags
    assert found.config["sweep"] == "mine"


def test_tags_of_the_environment_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_TAGS", "paper, draft")
    assert described().tags[-2:] == ("paper", "draft")
