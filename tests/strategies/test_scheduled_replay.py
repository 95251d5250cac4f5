"""What of each past experience is replayed."""

from __future__ import annotations

import pytest

from cl_platform.config.run_config import parse_config
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers


def replayed(scenario: str, **parameters: object) -> list[int]:
    """How many samples of each of the first six classes are replayed with the fourth experience."""
    strategy = {"name": "scheduled-replay", "schedule": SCHEDULE, **parameters}
    stream = {"name": "blobs", "experiences": 4, "samples_per_class": 20, "scenario": scenario}
    data = {"stream": stream, "strategy": strategy, "model": {"name": "mlp", "hidden": [8]}}
    fold = Fold(make_plan(parse_config(data)), StateStore(None), Trackers())
    fold.run()
    counts: list[int] = fold.strategy.stored.y[fold.strategy.rows].bincount(minlength=6).tolist()
    return counts


SCHEDULE = [[], [1], [0, 1], [0, 0, 1]]  # the latest experience alone


def test_every_past_class_has_a_sample_and_the_schedule_deals_out_the_rest() -> None:
    assert replayed("class") == [1, 1, 1, 1, 3, 3]
    assert replayed("class", memory_size=6) == [1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("size", [2, 3, 5])
def test_a_memory_smaller_than_the_classes_is_shared_among_the_experiences(size: int) -> None:
    assert sum(replayed("class", memory_size=size)) == size


def test_elsewhere_and_on_request_the_schedule_deals_out_all() -> None:
    assert replayed("task") == [0, 0, 0, 0, 5, 5]
    assert replayed("class", every_class=False) == [0, 0, 0, 0, 5, 5]


def test_a_schedule_without_shares_replays_nothing() -> None:
    assert replayed("class", schedule=[[], [1], [0, 1], [0, 0, 0]]) == [0] * 6
