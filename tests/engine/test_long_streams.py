"""Long streams: what a step looks up does not grow with those before it.

Seconds are measured in ``benchmarks/cases/long.py``; here calls are counted.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cl_platform.config.run_config import parse_config
from cl_platform.core.matrix import OWN_MASK
from cl_platform.engine.evaluation import Evaluator
from cl_platform.engine.fold import Fold
from cl_platform.engine.plan import Learned, Plan
from cl_platform.engine.planner import make_plan
from cl_platform.engine.teaching import PastRecords
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers

BLOBS = {"name": "blobs", "experiences": 12, "samples_per_class": 4, "dimensions": 4}
SMALL = {"stream": BLOBS, "strategy": "finetune", "model": {"name": "mlp", "hidden": [4]}}


def plan_of(**settings: Any) -> Plan:
    return make_plan(parse_config({**SMALL, **settings}))


class Counting(StateStore):
    """Counts the states that are looked up."""

    looked_up: Counter[str]

    def load(self, key: str) -> Any:
        self.looked_up[key] += 1
        return super().load(key)


@pytest.mark.parametrize(("evaluate", "rows"), [("last", 2), (5, 4), (1, 13)])
def test_states_are_looked_up_a_few_times_and_rows_alone_are_evaluated(
    evaluate: Any, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated: list[int] = []
    score = Evaluator.__call__
    monkeypatch.setattr(
        Evaluator, "__call__", lambda self, *args: evaluated.append(1) or score(self, *args)
    )
    store = Counting(tmp_path)
    store.looked_up = Counter()
    fold = Fold(plan_of(evaluate=evaluate), store, Trackers())
    records = fold.run()
    assert fold.trained == 12
    assert len(evaluated) == rows
    assert [k for k, record in enumerate(records) if record.rows] == fold.plan.rows(12)
    assert max(store.looked_up.values()) <= 2
    again = Fold(plan_of(evaluate=evaluate), store, Trackers())
    again.run()
    assert again.trained == 0
    assert len(evaluated) == rows


def test_a_killed_run_with_few_rows_goes_on_from_its_last_state(tmp_path: Path) -> None:
    whole = Fold(plan_of(evaluate="last"), StateStore(None), Trackers())
    whole.run()

    class Killing(StateStore):
        def save(self, *args: Any) -> None:
            super().save(*args)
            if len(self.seen) == 7:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Fold(plan_of(evaluate="last"), Killing(tmp_path), Trackers()).run()
    resumed = Fold(plan_of(evaluate="last"), StateStore(tmp_path), Trackers())
    resumed.run()
    assert resumed.trained == 12 - 7
    assert resumed.records[-1].rows == whole.records[-1].rows


def test_what_was_learned_is_told_of_any_step_and_of_a_plan_that_grows() -> None:
    plan = plan_of(strategy="cumulative", curriculum="random")
    learned = Learned(plan.stream)
    for end in (5, 12):
        learned.follow(plan.steps[:end])
        for k in range(end + 1):
            parts = [e for step in plan.steps[:k] for e in step.sources]
            assert learned.columns(k) == {e.task: e.identity for e in parts}
            assert [*learned.columns(k)] == [*dict.fromkeys(e.task for e in parts)]
            assert learned.classes(k) == {c for e in parts for c in e.classes}
            assert learned.visits(k) == [*range(k)]


def test_a_teacher_is_shown_all_records_although_each_is_read_once() -> None:
    teacher = {"name": "teacher:fixed", "order": [*range(4)], "share": 0.3}
    stream = {"name": "split-digits", "experiences": 4, "samples": 20, "validation": 0.3}
    fold = Fold(plan_of(stream=stream, curriculum=teacher), StateStore(None), Trackers())
    records = fold.run()
    one_by_one, at_once = PastRecords(fold.plan), PastRecords(fold.plan)
    for k in range(1, len(records) + 1):
        past = one_by_one.of(fold.plan, records[:k])
    whole, own = at_once.of(fold.plan, records), OWN_MASK[fold.plan.stream.scenario]
    expected = [
        [record.rows["validation"][own][e.identity] for e in fold.plan.stream.experiences]
        for record in records
    ]
    assert np.array_equal(past.accuracy, expected)
    for name in ("accuracy", "probability", "confidence"):
        assert np.array_equal(getattr(past, name), getattr(whole, name))
        with pytest.raises(ValueError, match="read-only"):
            getattr(past, name)[:] = 0
