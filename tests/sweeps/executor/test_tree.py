"""The tree of runs: segments, parts of runs, and the states that are kept where runs part."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st

from cl_platform.config.run_config import parse_config
from cl_platform.engine.execution import advance
from cl_platform.engine.fold import Fold
from cl_platform.engine.plan import Plan
from cl_platform.engine.planner import make_plan
from cl_platform.storage.state_store import State, StateStore
from cl_platform.tracking.sinks import Trackers
from sweeps.executor import tree
from sweeps.executor.tree import Segment, grow
from sweeps.planning import Run
from tests.helpers.sweep_runs import BLOBS, PLANNER, VALIDATED, planned

# --- the tree


@st.composite
def many_runs(draw: st.DrawFn) -> list[Run]:
    """Runs over few symbols, so that many of them begin alike; some are not trained to the end."""
    length = draw(st.integers(1, 5))
    runs = []
    for i in range(draw(st.integers(1, 12))):
        symbols = draw(st.text("abc", min_size=length, max_size=length))
        root = draw(st.sampled_from(["x", "y"]))
        keys = tuple(f"{root}/{symbols[:k]}" for k in range(length + 1))
        runs.append(made_up(str(i), keys, draw(st.integers(1, length))))
    return runs


def made_up(run_id: str, keys: tuple[str, ...], upto: int) -> Run:
    return Run(run_id, {}, None, (), keys, upto, True)  # type: ignore[arg-type]


def paths(segment: Segment, above: tuple[Segment, ...] = ()) -> Iterator[tuple[Segment, ...]]:
    """Every segment with the ones that lead to it."""
    yield (*above, segment)
    for child in segment.children:
        yield from paths(child, (*above, segment))


def parts(runs: list[Run], key: str, k: int) -> bool:
    """Whether runs part at a state: some go on, and others go elsewhere or end."""
    here = [run for run in runs if run.keys[k] == key and run.upto >= k]
    following = {run.keys[k + 1] for run in here if run.upto > k}
    ends = any(run.upto == k for run in here)
    return len(following) > 1 or (bool(following) and ends)


@settings(max_examples=150, deadline=None)
@given(many_runs())
def test_a_tree_does_every_step_of_every_run_once_and_knows_where_runs_part(
    runs: list[Run],
) -> None:
    roots = grow(runs)
    found = [path for root in roots for path in paths(root)]
    made = [key for path in found for key in path[-1].keys]
    assert sorted(made) == sorted({key for r in runs for key in r.keys[1 : r.upto + 1]})
    assert tree.states(runs) == set(made)
    ended = [run.run_id for path in found for run in path[-1].runs]
    assert sorted(ended) == sorted(run.run_id for run in runs)
    for path in found:
        last = path[-1]
        way = [key for segment in path for key in segment.keys]
        assert [s.start for s in path] == [0, *(s.end for s in path[:-1])]
        assert way == list(last.run.keys[1 : last.end + 1])
        for run in last.runs:
            assert way == list(run.keys[1 : run.upto + 1])
        ways = list(enumerate(last.run.keys[: last.end + 1]))
        assert last.branches == {key for k, key in ways if parts(runs, key, k)}
        assert not any(parts(runs, key, k) for k, key in ways[last.start + 1 : last.end])
        assert last.runs or len(last.children) > 1, "a segment goes on until runs part"


@settings(max_examples=40, deadline=None)
@given(many_runs())
def test_the_runs_of_a_segment_are_those_that_pass_it(runs: list[Run]) -> None:
    for root in grow(runs):
        for segment in root.walk():
            key, k = segment.run.keys[segment.end], segment.end
            passing = {r.run_id for r in runs if r.upto >= k and r.keys[k] == key}
            assert {r.run_id for r in segment.all_runs()} == passing


def test_runs_with_equal_steps_end_together() -> None:
    runs = planned({"curriculum": ["all"]}, base={"strategy": "joint"})
    (root,) = grow(runs)
    assert (root.start, root.end, len(root.runs), root.children) == (0, 1, 120, [])


def test_no_runs_are_no_segments() -> None:
    assert grow([]) == []


# --- a part of a run


@pytest.fixture(scope="module")
def whole() -> tuple[Plan, list[Any]]:
    """A plan and the records of all its states."""
    plan = make_plan(parse_config({"stream": VALIDATED, "epochs": 2}))
    return plan, Fold(plan, StateStore(None), Trackers()).run()


@pytest.mark.parametrize("upto", [1, 2, 3])
def test_the_metrics_of_a_part_are_those_of_the_stream_that_ends_there(
    tmp_path: Path, upto: int, whole: tuple[Plan, list[Any]]
) -> None:
    plan, records = whole
    metrics = advance(plan, StateStore(tmp_path), upto)
    columns = [e.identity for e in plan.stream.experiences][:upto]
    for split, mask, prefix in [
        ("test", "seen", ""),
        ("test", "task", "task/"),
        ("validation", "seen", "validation/"),
        ("validation", "all", "validation/all/"),
    ]:
        r = [[record.rows[split][mask][c] for c in columns] for record in records[: upto + 1]]
        last, learned = r[upto], [r[i + 1][i] for i in range(upto)]
        best = [max(r[i][j] for i in range(1, upto)) for j in range(upto - 1)]
        expected = {
            "average_accuracy": sum(last) / upto,
            "average_incremental_accuracy": sum(sum(r[i][:i]) / i for i in range(1, upto + 1))
            / upto,
            "learning_accuracy": sum(learned) / upto,
            "forgetting": sum(b - a for a, b in zip(last, best, strict=False)) / (upto - 1)
            if upto > 1
            else math.nan,
            "backward_transfer": sum(a - b for a, b in zip(last[:-1], learned, strict=False))
            / (upto - 1)
            if upto > 1
            else math.nan,
            "first_task_retention": last[0] / learned[0],
        }
        found = {name: metrics[prefix + name] for name in expected}
        assert found == pytest.approx(expected, nan_ok=True), prefix
    different = {round(v, 6) for v in metrics.values() if v == v}
    assert len(different) > (2 if upto == 1 else 5), "numbers that tell apart"


def test_a_part_of_a_run_writes_states_and_no_more(
    tmp_path: Path, whole: tuple[Plan, list[Any]]
) -> None:
    plan, _ = whole
    advance(plan, StateStore(tmp_path), 2)
    assert {path.stem for path in tmp_path.glob("*/*.pt")} == set(plan.keys[1:3])
    assert {path.stem for path in tmp_path.glob("*/*.json")} == set(plan.keys[:3])


def test_a_run_goes_on_from_its_part_with_the_same_bits(
    tmp_path: Path, whole: tuple[Plan, list[Any]]
) -> None:
    plan, records = whole
    advance(plan, StateStore(tmp_path), 2)
    fold = Fold(plan, StateStore(tmp_path), Trackers())
    rows = [record.rows for record in fold.run()]
    assert rows == [record.rows for record in records]
    assert fold.trained == 1


def test_nothing_of_a_run_has_no_metrics(tmp_path: Path, whole: tuple[Plan, list[Any]]) -> None:
    assert advance(whole[0], StateStore(tmp_path), 0) == {}


def test_more_than_all_of_a_run_is_all_of_it(whole: tuple[Plan, list[Any]]) -> None:
    plan, _ = whole
    assert advance(plan, StateStore(None), 9) == pytest.approx(
        advance(plan, StateStore(None), 3), nan_ok=True
    )


# --- states where runs part


def kept(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*/*.pt")}


def carry_out(segment: Segment, store: StateStore, trained: list[str]) -> None:
    """What a worker does with a segment and all below it."""
    store.branches = segment.branches
    fold = Fold(PLANNER(segment.run.config, segment.run.order), store, Trackers())
    fold.run(segment.end)
    trained += segment.run.keys[fold.position - fold.trained + 1 : fold.position + 1]
    for child in segment.children:
        carry_out(child, store, trained)


def assert_same_rows(run: Run, store: StateStore, alone: StateStore) -> None:
    plan = PLANNER(run.config, run.order)
    identities = [e.identity for e in plan.stream.experiences]
    rows = [record.rows for record in Fold(plan, alone, Trackers()).run()]
    assert [store.record(key, identities).rows for key in run.keys] == rows


def test_the_states_that_are_kept_are_those_where_runs_part(tmp_path: Path) -> None:
    stream = {**BLOBS, "experiences": 4}
    runs = planned({"curriculum": ["all"]}, base={"stream": stream})
    (root,) = grow(runs)
    trained: list[str] = []
    carry_out(root, StateStore(tmp_path, "branches"), trained)
    assert sorted(trained) == sorted(tree.states(runs)), "each state is trained exactly once"
    # After one experience three ways go on, after two two; after three there is no choice left.
    assert kept(tmp_path) == {run.keys[k] for run in runs for k in (1, 2)}
    alone = StateStore(None)
    for run in (runs[0], runs[17]):
        assert_same_rows(run, StateStore(tmp_path), alone)


def test_held_states_are_shared_and_never_written(tmp_path: Path) -> None:
    stream = {**BLOBS, "experiences": 4}
    runs = planned({"curriculum": ["all"]}, base={"stream": stream})
    (root,) = grow(runs)
    store = StateStore(tmp_path, "branches")
    held = {run.keys[2] for run in runs}
    store.keep_in_memory(held)
    trained: list[str] = []
    carry_out(root, store, trained)
    # Two runs go on from each held state: one that was not found again would be trained twice.
    assert sorted(trained) == sorted(tree.states(runs)), "each state is trained exactly once"
    assert kept(tmp_path) == {run.keys[1] for run in runs}
    assert all(store.load(key) is not None for key in held)
    alone = StateStore(None)
    for run in runs[:2]:  # they share their first two experiences, and so a held state
        assert_same_rows(run, StateStore(tmp_path), alone)
    store.keep_in_memory(())
    assert all(store.load(key) is None for key in held)


def test_a_passing_state_is_kept_until_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "cl_platform.storage.state_store.CHEAP_SECONDS", -1.0
    )  # every state is worth a file
    (run,) = planned()
    store = StateStore(tmp_path, "branches", branches={run.keys[2]})
    fold = Fold(PLANNER(run.config, run.order), store, Trackers())
    seen = []
    for _ in range(5):
        fold.train()
        seen.append({run.keys.index(key) for key in kept(tmp_path)})
    assert seen == [{1}, {2}, {2, 3}, {2, 4}, {2, 5}]


@pytest.mark.parametrize(
    ("keep", "key", "seconds", "wanted"),
    [
        ("branches", "b", 0.0, True),
        ("branches", "x", 0.0, False),
        ("branches", "x", 99.0, True),
        ("all", "x", 0.0, True),
        ("last", "x", 0.0, True),
        ("none", "b", 99.0, False),
    ],
)
def test_which_states_are_worth_a_file(
    tmp_path: Path, keep: Any, key: str, seconds: float, wanted: bool
) -> None:
    assert StateStore(tmp_path, keep, branches={"b"}).should_save(key, seconds) is wanted


def test_without_a_folder_no_state_is_wanted() -> None:
    assert not StateStore(None, "branches", branches={"b"}).should_save("b", 99.0)


def test_a_branch_outlives_the_run_that_passes_it(tmp_path: Path) -> None:
    store = StateStore(tmp_path, "branches", branches={"b"})
    state = State({"w": torch.zeros(3)})
    for key, previous in [("a", None), ("b", "a"), ("c", "b"), ("d", "c")]:
        store.save(key, state, previous)
    assert kept(tmp_path) == {"b", "d"}
