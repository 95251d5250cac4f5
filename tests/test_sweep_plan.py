"""From a specification to runs, their tree, what tuning chooses, and what is said of the results."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cl_platform import Curriculum, Stream
from cl_platform.config import parse_config
from cl_platform.errors import BadInput, ClpError, ConfigError, CurriculumError
from cl_platform.execution import advance, execute
from cl_platform.fold import Fold
from cl_platform.plan import Plan, Planner, make_plan
from cl_platform.store import State, StateStore
from cl_platform.tracking import Trackers
from sweeps import analysis, estimate, record, tree, tuning
from sweeps.plan import Run, plan_runs
from sweeps.record import Phase
from sweeps.spec import Final, SweepSpec, Tune, parse_spec
from sweeps.tree import Segment, grow

PLANNER = Planner()  # holds the streams of all tests
BLOBS = {"name": "blobs", "samples_per_class": 6, "dimensions": 4}
VALIDATED = {"name": "split-digits", "experiences": 3, "validation": 0.15}


def spec(axes: dict[str, Any] | None = None, **more: Any) -> SweepSpec:
    base = {"stream": BLOBS, "strategy": "finetune", **more.pop("base", {})}
    return parse_spec({"base": base, "axes": axes or {}, **more})


def planned(axes: dict[str, Any] | None = None, **more: Any) -> list[Run]:
    return plan_runs(spec(axes, **more), PLANNER)


# --- runs


def test_all_stands_for_every_order_once() -> None:
    runs = planned({"curriculum": ["all"]})
    assert [run.order for run in runs] == list(itertools.permutations(range(5)))
    assert [run.point["curriculum"] for run in runs][:2] == ["0 1 2 3 4", "0 1 2 4 3"]
    assert len({run.run_id for run in runs}) == 120
    assert all(run.config.curriculum["order"] == list(run.order) for run in runs)


def test_all_is_the_same_run_as_the_order_written_down() -> None:
    one = next(r for r in planned({"curriculum": ["all"]}) if r.order == (2, 0, 1, 4, 3))
    config = parse_config({"stream": BLOBS, "strategy": "finetune", "curriculum": [2, 0, 1, 4, 3]})
    assert make_plan(config).run_id == one.run_id


def test_all_orders_of_five_are_325_steps() -> None:
    runs = planned({"curriculum": ["all"]})
    (root,) = grow(runs)
    assert sum(len(segment.keys) for segment in root.walk()) == 325
    assert len(tree.states(runs)) == 325
    assert sum(len(segment.runs) for segment in root.walk()) == 120


@pytest.mark.parametrize(("strategy", "steps"), [("joint", 1), ("cumulative", 325)])
def test_what_strategies_train_on_decides_what_orders_share(strategy: str, steps: int) -> None:
    runs = planned({"curriculum": ["all"]}, base={"strategy": strategy})
    assert len(runs) == 120
    assert len(tree.states(runs)) == steps
    assert sum(len(s.keys) for root in grow(runs) for s in root.walk()) == steps


def test_all_orders_of_classes() -> None:
    stream = {**BLOBS, "experiences": 2}
    runs = planned({"curriculum": [{"name": "all", "level": "classes"}]}, base={"stream": stream})
    assert len(runs) == 24
    assert {run.config.curriculum["level"] for run in runs} == {"classes"}
    # Which two of four classes come first; their order within an experience is no matter.
    assert len({run.keys for run in runs}) == 6
    assert len(tree.states(runs)) == 6 + 6


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "all", "limit": 119}, "120 orders of 5 experiences: more than its limit of 119;"),
        ({"name": "all", "level": "classes"}, "3628800 orders of 10 classes: more than .* of 720;"),
    ],
    ids=str,
)
def test_all_is_refused_above_its_limit(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^curriculum 'all' stands for {message}[^\n]*$"):
        planned({"curriculum": [section, "reverse"]})


def test_all_is_refused_in_a_single_run(clp: Callable[..., tuple[int, str, str]]) -> None:
    code, _, error = clp("run", "--stream", "blobs", "--curriculum", "all")
    assert code == 2
    assert error == (
        "error: curriculum 'all' stands for 120 orders: give it as an axis of a sweep, or one order "
        "such as 2,0,1\n"
    )


class Halves(Curriculum):
    """Stands for two orders."""

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        return range(len(stream))

    def variants(self, stream: Stream) -> Sequence[Mapping[str, Any]]:
        assert not any(len(e.test) for e in stream.experiences)
        return [{"name": "reverse"}, {"name": "random", "seed": 3}]


class Unfinished(Curriculum):
    """Fails when asked what it stands for."""

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        return range(len(stream))

    def variants(self, stream: Stream) -> Sequence[Mapping[str, Any]]:
        raise KeyError("easy")


def test_a_curriculum_of_ones_own_may_stand_for_several() -> None:
    runs = planned({"curriculum": ["as_given", f"{__name__}:Halves"]})
    assert [r.point["curriculum"] for r in runs] == ["as_given", "reverse", "random seed=3"]
    assert [r.order for r in runs][1] == (4, 3, 2, 1, 0)


def test_whatever_a_curriculum_of_ones_own_raises_is_a_line() -> None:
    with pytest.raises(ClpError, match=r"Unfinished.*easy"):
        planned({"curriculum": [f"{__name__}:Unfinished"]})


def test_a_run_is_what_the_single_command_runs() -> None:
    axes = {"strategy": ["finetune", {"name": "er", "memory_size": 7}], "lr": [0.3], "seed": [0, 4]}
    for run in planned({**axes, "curriculum": ["random"]}):
        alone = make_plan(run.config)
        assert (run.run_id, run.keys, run.order) == (alone.run_id, alone.keys, alone.order)
        assert run.whole
    assert run.point == {
        "strategy": "er memory_size=7",
        "lr": "0.3",
        "seed": "4",
        "curriculum": "random",
    }


@pytest.mark.parametrize(("experiences", "upto"), [(1, 1), (2, 2), (5, 5), (9, 5), ("all", 5)])
def test_tuning_may_see_the_first_experiences_only(experiences: Any, upto: int) -> None:
    (run,) = planned(tune={"experiences": experiences})
    assert run.upto == upto
    assert run.whole == (upto == 5)


def test_a_sweep_without_runs_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^the sweep has no runs: [^\n]*$"):
        plan_runs(spec(), PLANNER, [])


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


# --- plans of many runs

SCHEDULE = [[], [1], [0.25, 0.75]]
ONE_CLASS_EACH = {**BLOBS, "experiences": 3, "classes_per_experience": 1}
CONFIGS: dict[str, dict[str, Any]] = {
    "joint": {"strategy": "joint"},
    "joint, reverse": {"strategy": "joint", "curriculum": "reverse"},
    "joint of classes": {
        "strategy": "joint",
        "curriculum": {"name": "reverse", "level": "classes"},
    },
    "cumulative": {"strategy": "cumulative"},
    "cumulative, reverse": {"strategy": "cumulative", "curriculum": "reverse"},
    "finetune": {"strategy": "finetune"},
    "finetune, reverse": {"strategy": "finetune", "curriculum": "reverse"},
    "finetune, as given": {"strategy": "finetune", "curriculum": [0, 1, 2]},
    "classes": {"strategy": "finetune", "curriculum": {"name": "reverse", "level": "classes"}},
    "classes at random": {"curriculum": {"name": "random", "level": "classes"}},
    "random": {"curriculum": "random"},
    "random, seed 1": {"curriculum": "random", "seed": 1},
    "random, seed of its own": {"curriculum": {"name": "random", "seed": 5}, "seed": 1},
    "equal schedule": {"strategy": "scheduled-replay"},
    "schedule": {"strategy": {"name": "scheduled-replay", "schedule": SCHEDULE}},
    "schedule, reverse": {
        "strategy": {"name": "scheduled-replay", "schedule": SCHEDULE},
        "curriculum": "reverse",
    },
    "schedule inside": {
        "strategy": {"name": "refresh", "inner": {"name": "scheduled-replay", "schedule": SCHEDULE}}
    },
    "refresh": {"strategy": "refresh"},
    "refresh of er": {"strategy": {"name": "refresh", "inner": {"name": "er", "memory_size": 9}}},
    "weights": {"strategy": {"name": "lwf", "alpha": [0, 1, 2]}},
    "task": {"stream": {**VALIDATED, "scenario": "task"}},
    "no validation": {"stream": {"name": "split-digits", "experiences": 3}},
    "domains": {"stream": {"name": "permuted-digits", "experiences": 3}, "strategy": "cumulative"},
    "one class each": {"stream": ONE_CLASS_EACH, "curriculum": [2, 0, 1]},
    "one class each, by class": {
        "stream": ONE_CLASS_EACH,
        "curriculum": {"name": "explicit", "order": [2, 0, 1], "level": "classes"},
    },
    "model": {"model": {"name": "mlp", "hidden": [8]}},
    "cnn": {"model": "cnn"},
    "adam": {"optimizer": {"name": "adam", "lr": 0.001, "reset": False}, "epochs": 2},
}


def configured(name: str) -> Any:
    return parse_config({"stream": VALIDATED, **CONFIGS[name]})


def address(plan: Plan) -> tuple[Any, ...]:
    """All that says what a plan will do."""
    stream = [(e.identity, e.name) for e in plan.stream.experiences]
    steps = [(s.identity, [e.identity for e in s.sources]) for s in plan.steps]
    return plan.keys, plan.run_id, plan.order, plan.code, stream, steps


@pytest.fixture(scope="module")
def one_by_one() -> dict[str, tuple[Any, ...]]:
    return {name: address(make_plan(configured(name))) for name in CONFIGS}


def test_a_planner_of_many_says_what_is_said_one_by_one(
    one_by_one: dict[str, tuple[Any, ...]],
) -> None:
    planner = Planner()
    assert {name: address(planner(configured(name))) for name in CONFIGS} == one_by_one
    again = {name: address(planner(configured(name))) for name in CONFIGS}
    assert again == one_by_one, "asked once more, from what it has kept"


def test_it_does_not_matter_what_a_planner_was_asked_before(
    one_by_one: dict[str, tuple[Any, ...]],
) -> None:
    planner = Planner()
    for name in reversed(CONFIGS):
        assert address(planner(configured(name))) == one_by_one[name], name


def test_a_planner_that_is_told_the_order_says_the_same(
    one_by_one: dict[str, tuple[Any, ...]],
) -> None:
    planner = Planner()
    for name in CONFIGS:
        order = one_by_one[name][2]
        assert address(planner(configured(name), order)) == one_by_one[name], name
        assert address(planner(configured(name), list(order))) == one_by_one[name], name


def test_these_configurations_are_different_runs(one_by_one: dict[str, tuple[Any, ...]]) -> None:
    run_ids = [a[1] for a in one_by_one.values()]
    assert len(set(run_ids)) == len(CONFIGS)


def rows(plan: Plan) -> Any:
    """What is scored before any training and after one step."""
    fold = Fold(plan, StateStore(None), Trackers())
    fold.evaluate()
    fold.train()
    fold.evaluate()
    return [fold.records[k].rows for k in (0, 1)]


def test_plans_of_one_planner_score_what_each_of_them_scores_alone() -> None:
    planner = Planner()
    for name in (*CONFIGS, "classes", "finetune"):
        if "cnn" in name or "refresh" in name:
            continue  # slow, and nothing new
        config = configured(name)
        assert rows(planner(config)) == rows(make_plan(config)), name


class Asked(Curriculum):
    """Counts how often it is asked."""

    def __call__(self, stream: Stream, rng: np.random.Generator) -> Sequence[int]:
        ASKED.append(len(stream))
        return range(len(stream))


ASKED: list[int] = []


def test_a_curriculum_is_asked_once_per_seed_and_not_where_the_order_is_told() -> None:
    ASKED.clear()
    planner = Planner()
    data = {"stream": BLOBS, "curriculum": f"{__name__}:Asked"}
    for seed in (0, 0, 1):
        for strategy in ("finetune", "er"):
            planner(parse_config({**data, "seed": seed, "strategy": strategy}))
    assert len(ASKED) == 2
    told = Planner()(parse_config(data), (4, 3, 2, 1, 0))
    assert told.order == (4, 3, 2, 1, 0)
    assert len(ASKED) == 2


@pytest.mark.parametrize("level", ["experiences", "classes"])
def test_an_order_that_is_no_permutation_is_refused_even_if_it_is_told(level: str) -> None:
    config = parse_config({"stream": BLOBS, "curriculum": {"name": "reverse", "level": level}})
    with pytest.raises(CurriculumError, match="expected a permutation"):
        Planner()(config, [0, 0, 1, 2, 3])


def test_a_stream_that_is_adopted_takes_the_place_of_the_one_to_be_made() -> None:
    config = parse_config({"stream": VALIDATED})
    made = PLANNER.stream(config)
    planner = Planner()
    planner.adopt(config, made)
    assert planner.stream(config) is made
    assert address(planner(config)) == address(make_plan(config))


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
        rows = [r.rows for r in Fold(PLANNER(run.config, run.order), alone, Trackers()).run()]
        assert [StateStore(tmp_path).record(key).rows for key in run.keys] == rows


def test_a_passing_state_is_kept_until_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cl_platform.store.PASSING_SECONDS", -1.0)  # every state is worth a file
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
    assert StateStore(tmp_path, keep, branches={"b"}).wants(key, seconds) is wanted


def test_without_a_folder_no_state_is_wanted() -> None:
    assert not StateStore(None, "branches", branches={"b"}).wants("b", 99.0)


def test_a_branch_outlives_the_run_that_passes_it(tmp_path: Path) -> None:
    store = StateStore(tmp_path, "branches", branches={"b"})
    state = State({"w": torch.zeros(3)})
    for key, previous in [("a", None), ("b", "a"), ("c", "b"), ("d", "c")]:
        store.save(key, state, previous)
    assert kept(tmp_path) == {"b", "d"}


# --- tuning


class Tuned:
    """Runs that were tuned, with numbers made up for them."""

    def __init__(self, axes: dict[str, Any], score: Callable[[Run], float | None], **tune: Any):
        self.spec = spec(axes, tune=tune)
        runs = plan_runs(self.spec, PLANNER)
        self.phase = Phase("tune", runs)
        for run in runs:
            value = score(run)
            if value is None:
                self.phase.errors[run.run_id] = f"loss is nan with {run.point}"
            else:
                metrics = {"validation/average_accuracy": value, "average_accuracy": 1 - value}
                self.phase.metrics[run.run_id] = metrics
                self.phase.done.add(run.run_id)

    def choose(self) -> list[tuning.Choice]:
        assert self.spec.tune is not None
        return tuning.choose(self.spec.tune, self.phase, Path("nowhere"))


LRS, SEEDS = {"lr": [0.1, 0.2, 0.3]}, {"seed": [0, 1]}


def by_lr(*scores: Any) -> Callable[[Run], Any]:
    """Scores by learning rate and seed."""
    return lambda run: scores[LRS["lr"].index(run.config.optimizer.lr)][run.config.seed]


def test_the_best_point_is_that_of_the_best_mean_over_seeds() -> None:
    (choice,) = Tuned({**LRS, **SEEDS}, by_lr((0.9, 0.1), (0.6, 0.7), (0.5, 0.7))).choose()
    assert choice.point == {"lr": "0.2"}
    assert choice.objective == pytest.approx(0.65)
    assert choice.seeds == 2
    assert choice.config.optimizer.lr == 0.2
    assert choice.group == {"strategy": "finetune"}


def test_the_smallest_mean_is_best_with_mode_min() -> None:
    scores = by_lr((0.9, 0.1), (0.6, 0.7), (0.3, 0.2))
    (choice,) = Tuned({**LRS, **SEEDS}, scores, mode="min").choose()
    assert (choice.point, choice.objective) == ({"lr": "0.3"}, pytest.approx(0.25))


@pytest.mark.parametrize("bad", [math.nan, None], ids=["nan", "failed"])
def test_a_point_that_went_wrong_with_any_seed_is_not_chosen(bad: float | None) -> None:
    (choice,) = Tuned({**LRS, **SEEDS}, by_lr((0.9, bad), (0.2, 0.2), (bad, bad))).choose()
    assert choice.point == {"lr": "0.2"}


def test_each_strategy_has_a_best_point_of_its_own() -> None:
    axes = {"strategy": ["finetune", {"name": "er", "memory_size": {"grid": [5, 6]}}], **LRS}

    def score(run: Run) -> float:
        if run.config.strategy["name"] == "finetune":
            return run.config.optimizer.lr
        return run.config.strategy["memory_size"] - run.config.optimizer.lr

    first, second = Tuned(axes, score).choose()
    assert first.group == {"strategy": "finetune"}
    assert first.point == {"strategy": "finetune", "lr": "0.3"}
    assert second.group == {"strategy": "er"}
    assert second.point == {"strategy": "er memory_size=6", "lr": "0.1"}


@pytest.mark.parametrize(
    ("axis", "groups"),
    [
        ({"scenario": ["class", "task"]}, 2),
        ({"stream.scenario": ["class", "task"]}, 2),
        ({"curriculum": ["as_given", "reverse"]}, 2),
        ({"stream": [BLOBS, {**BLOBS, "data_seed": 1}]}, 2),
        ({"epochs": [1, 2]}, 1),
        ({"model.hidden": [[4], [5]]}, 1),
    ],
    ids=str,
)
def test_what_is_compared_is_not_chosen(axis: dict[str, Any], groups: int) -> None:
    choices = Tuned({**axis, **LRS}, lambda run: run.config.optimizer.lr).choose()
    assert len(choices) == groups
    assert all(choice.config.optimizer.lr == 0.3 for choice in choices)


@pytest.mark.parametrize(("per", "groups"), [([], 1), (["epochs"], 2), (["strategy", "epochs"], 4)])
def test_groups_are_the_users_where_they_are_given(per: list[str], groups: int) -> None:
    axes = {"strategy": ["finetune", "er"], "epochs": [1, 2], **LRS}
    assert len(Tuned(axes, lambda run: 0.5, per=per).choose()) == groups


def test_where_nothing_can_be_chosen_the_first_error_is_told() -> None:
    tuned = Tuned({"strategy": ["finetune", "er"], **LRS}, lambda run: None)
    message = r"^tune: nothing to choose for finetune: every run failed, .*'lr': '0\.1'"
    with pytest.raises(ClpError, match=message):
        tuned.choose()


def test_a_metric_that_is_nowhere_is_named() -> None:
    with pytest.raises(ClpError, match=r"^tune.metric=forgeting: Did you mean 'forgetting'\?"):
        Tuned(LRS, lambda run: 0.5, metric="forgeting")


def test_what_trains_on_the_whole_stream_is_not_tuned_on_a_part() -> None:
    with pytest.raises(ClpError, match="strategy 'joint' trains on the whole stream at once"):
        planned({"strategy": ["joint"]}, tune={"experiences": 2})


def test_points_that_are_nearly_equal_are_chosen_apart() -> None:
    axes = {"lr": [0.99991, 0.99993], **SEEDS}
    (choice,) = Tuned(axes, lambda run: run.config.optimizer.lr).choose()
    assert choice.seeds == 2
    assert choice.config.optimizer.lr == 0.99993
    assert choice.objective == pytest.approx(0.99993, abs=1e-7)


def test_the_objective_of_a_whole_run_is_read_from_its_result(tmp_path: Path) -> None:
    (run,) = planned(base={"stream": VALIDATED}, tune={})
    result = execute(PLANNER(run.config, run.order), tmp_path)
    phase = Phase("tune", [run])
    name = "average_accuracy"
    assert math.isnan(tuning.objective(name, phase, run, tmp_path)), "it has not ended"
    phase.done.add(run.run_id)
    found = tuning.objective(name, phase, run, tmp_path)
    assert found == result.metrics["validation/average_accuracy"]
    assert found != result.metrics["average_accuracy"]


def searches(axes: dict[str, Any], **tune: Any) -> list[tuning.Group]:
    """The searches of an adaptive method."""
    return tuning.groups(spec(axes, tune={"method": "asha", **tune}), PLANNER)


def test_an_adaptive_method_searches_once_for_each_group() -> None:
    memory = {"name": "er", "memory_size": {"integers": [5, 50]}}
    axes = {"strategy": ["finetune", memory], "lr": {"uniform": [0.1, 0.2]}, "seed": [3, 1]}
    first, second = searches(axes, experiences=2)
    assert (first.names, second.names) == ({"strategy": "finetune"}, {"strategy": "er"})
    assert first.seeds == second.seeds == (1, 3)
    assert (len(first.grid), first.experiences) == (1, 2)
    assert sorted(tuning.drawn(first)) == ["lr"]
    assert sorted(tuning.drawn(second)) == ["lr", "strategy.memory_size"]
    point = tuning.point_of(second, {"lr": 0.15, "strategy.memory_size": 7})
    assert point["strategy"] == {"name": "er", "memory_size": 7}
    assert point["lr"] == 0.15


def test_what_is_listed_and_not_compared_is_the_grid_of_a_search() -> None:
    (group,) = searches({"epochs": [1, 2], "lr": [0.1, 0.2], "seed": [0, 1]})
    points = [tuning.point_of(group, {tuning.TEMPLATE: i}) for i in range(4)]
    found = [(point["epochs"], point["lr"]) for point in points]
    assert found == [(1, 0.1), (1, 0.2), (2, 0.1), (2, 0.2)]
    assert len(group.grid) == 4
    assert tuning.planned(Tune(trials=7), [group]).experiences == 7 * 5 * 2


@pytest.mark.parametrize(
    ("axes", "tune", "message"),
    [
        ({"seed": [0, 1]}, {}, "tune.method=asha: nothing to choose for finetune; give it an axis"),
        ({"lr": [0.1, 0.2]}, {"method": "pbt"}, "tune.method=pbt: it changes uniform and loguni"),
    ],
    ids=str,
)
def test_a_search_for_nothing_is_refused(
    axes: dict[str, Any], tune: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{message}[^\n]*$"):
        searches(axes, **tune)


def test_listed_values_that_are_nearly_equal_are_all_searched() -> None:
    (group,) = searches({"lr": [0.99991, 0.99993]})
    assert [point["lr"] for point in group.grid] == [0.99991, 0.99993]


def test_each_listed_item_is_drawn_from_its_own_range() -> None:
    small = {"name": "er", "memory_size": {"integers": [5, 9]}, "memory": "reservoir"}
    large = {"name": "er", "memory_size": {"integers": [500, 900]}, "memory": "ring"}
    (group,) = searches({"strategy": [small, large]})
    assert len(group.grid) == 2
    assert {r.arguments for r in tuning.drawn(group).values()} == {(5, 9), (500, 900)}


def test_items_that_differ_in_their_range_only_are_all_searched() -> None:
    ranges = [[5, 9], [500, 900]]
    items = [{"name": "er", "memory_size": {"integers": r}} for r in ranges]
    (group,) = searches({"strategy": items})
    assert len(group.grid) == 2


def test_an_adaptive_method_may_compare_all_orders() -> None:
    stream = {**BLOBS, "experiences": 2}
    axes = {"stream": [stream], "curriculum": ["all"], "lr": {"uniform": [0.1, 0.2]}}
    assert [group.names["curriculum"] for group in searches(axes)] == ["0 1", "1 0"]


def test_tuning_needs_validation_data() -> None:
    tuning.check_validation(planned(base={"stream": VALIDATED}), PLANNER)
    with pytest.raises(BadInput, match=r"^tune: stream 'blobs' has no validation data, [^\n]*$"):
        tuning.check_validation(planned(), PLANNER)


def finals(seeds: Any, tuned: Tuned) -> list[Run]:
    return tuning.final_runs(Final(seeds=seeds), tuned.choose(), tuned.phase.runs, PLANNER)


@pytest.mark.parametrize(
    ("seeds", "expected"), [(3, [0, 2, 4]), (1, [0]), ([3, 8], [3, 8]), ([1], [1])]
)
def test_final_seeds_are_given_or_unused(seeds: Any, expected: list[int]) -> None:
    tuned = Tuned({**LRS, "seed": [1, 3]}, lambda run: run.config.optimizer.lr)
    runs = finals(seeds, tuned)
    assert [run.config.seed for run in runs] == expected
    assert [run.point for run in runs] == [{"lr": "0.3", "seed": str(s)} for s in expected]
    assert all(run.config.optimizer.lr == 0.3 for run in runs)


def test_final_runs_are_whole_and_what_the_single_command_runs() -> None:
    axes = {"strategy": ["finetune", "er"], "curriculum": ["random"], **LRS}
    tuned = Tuned(axes, lambda run: -run.config.optimizer.lr, experiences=2)
    assert {run.upto for run in tuned.phase.runs} == {2}
    runs = finals(2, tuned)
    assert [(r.config.strategy["name"], r.config.seed) for r in runs] == [
        ("finetune", 1),
        ("finetune", 2),
        ("er", 1),
        ("er", 2),
    ]
    for run in runs:
        assert run.whole
        assert run.upto == 5
        alone = make_plan(run.config)
        assert (alone.run_id, alone.order) == (run.run_id, run.order), "its seed's own order"


# --- the record


def test_a_run_is_done_failed_or_missing() -> None:
    done, failed, missing = planned({"seed": [0, 1, 2]})
    phase = Phase("runs", [done, failed, missing])
    phase.done.add(done.run_id)
    phase.errors[failed.run_id] = "it broke"
    assert [run["status"] for run in phase.to_json()["runs"]] == ["done", "failed", "missing"]
    assert [run.get("error") for run in phase.to_json()["runs"]] == [None, "it broke", None]


def test_a_failure_is_on_record_until_it_is_forgotten(tmp_path: Path) -> None:
    run, other = planned({"seed": [0, 1]})
    assert record.failure(tmp_path, run) is None
    record.write_failure(tmp_path, run, "it broke", "Traceback ...")
    assert record.failure(tmp_path, run) == "it broke"
    assert record.failure(tmp_path, other) is None
    assert not record.is_done(tmp_path, run)
    record.forget_failure(tmp_path, run)
    record.forget_failure(tmp_path, run)
    assert record.failure(tmp_path, run) is None


def test_the_table_of_results_has_the_axes_and_the_runs_order(tmp_path: Path) -> None:
    runs = planned({"strategy": ["finetune", "joint"], "seed": [1, 0]})
    assert record.results(tmp_path, runs).empty
    for run in (runs[3], runs[0]):
        execute(PLANNER(run.config, run.order), tmp_path)
    assert [record.is_done(tmp_path, run) for run in runs] == [True, False, False, True]
    frame = record.results(tmp_path, runs)
    assert frame["run_id"].tolist() == [runs[0].run_id, runs[3].run_id]
    assert frame["axis.strategy"].tolist() == ["finetune", "joint"]
    assert frame["axis.seed"].tolist() == ["1", "0"]
    assert frame["strategy.name"].tolist() == ["finetune", "joint"]


def strict(text: str) -> Any:
    """JSON as other programs read it: without nan."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_the_record_of_a_sweep_is_json_with_all_that_was_chosen(tmp_path: Path) -> None:
    tuned = Tuned({**LRS, **SEEDS}, by_lr((0.9, 0.1), (0.6, 0.7), (0.5, None)))
    choices = tuned.choose()
    record.write_sweep(tmp_path, tuned.spec, [tuned.phase], "done", choices)
    data = strict((tmp_path / "sweep.json").read_text())
    assert parse_spec(data["spec"]) == tuned.spec
    assert data["chosen"][0]["point"] == {"lr": "0.2"}
    assert [run["status"] for run in data["phases"][0]["runs"]] == ["done"] * 5 + ["failed"]


def test_the_record_of_a_sweep_is_json_with_metrics_that_are_undefined(tmp_path: Path) -> None:
    phase = Phase("tune", planned(tune={"experiences": 1}))
    phase.metrics[phase.runs[0].run_id] = {"validation/forgetting": math.nan}
    record.write_sweep(tmp_path, spec(), [phase], "done")
    strict((tmp_path / "sweep.json").read_text())


# --- what is said of results


def frame(rows: Sequence[tuple[str, str, int, float]]) -> pd.DataFrame:
    columns = ["axis.strategy", "axis.curriculum", "axis.seed", "average_accuracy"]
    made = pd.DataFrame(rows, columns=columns)
    made["strategy.name"] = made["axis.strategy"]
    return made


FRAME = frame(
    [
        ("er", "0 1", 0, 0.5),
        ("er", "0 1", 1, 0.7),
        ("er", "1 0", 0, 0.85),
        ("er", "1 0", 1, 0.75),
        ("joint", "0 1", 0, 0.8),
        ("joint", "0 1", 1, 0.9),
        ("joint", "1 0", 0, 0.8),
        ("joint", "1 0", 1, 0.9),
    ]
)


def test_runs_stand_by_point_best_first() -> None:
    groups = analysis.by_point(FRAME)
    assert [point for point, _ in groups] == [
        ("joint", "0 1"),
        ("joint", "1 0"),
        ("er", "1 0"),
        ("er", "0 1"),
    ]
    assert [len(group) for _, group in groups] == [2, 2, 2, 2]
    assert [point for point, _ in analysis.by_point(FRAME, "curriculum")] == [("joint",), ("er",)]


def test_without_axes_there_is_one_point_of_all_runs() -> None:
    (group,) = analysis.by_point(FRAME[["axis.seed", "average_accuracy"]])
    assert group[0] == ()
    assert len(group[1]) == 8


def test_the_axes_of_a_frame_are_all_but_the_seed() -> None:
    assert analysis.axes_of(FRAME) == ["axis.strategy", "axis.curriculum"]
    assert analysis.axes_of(FRAME, "strategy") == ["axis.curriculum"]


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([0.812], "81.2"), ([0.5, 0.7], "60.0 ± 14.1"), ([0.1, 0.2, 0.3], "20.0 ± 10.0")],
)
def test_spread_is_mean_and_standard_deviation(numbers: list[float], text: str) -> None:
    assert analysis.spread(pd.Series(numbers)) == text


def test_the_effect_of_the_order_by_hand() -> None:
    joint, er = analysis.order_effects(FRAME)
    assert (joint.point, er.point) == ("joint", "er")
    assert joint.between == pytest.approx(0)
    assert list(er.means.items()) == [("1 0", pytest.approx(0.8)), ("0 1", pytest.approx(0.6))]
    noise = (0.02 + 0.005) / 2 / 2  # of a mean of two seeds
    assert er.between == pytest.approx(math.sqrt(0.02 - noise))  # the variance of 0.8 and 0.6
    assert er.within == pytest.approx(math.sqrt((0.02 + 0.005) / 2))  # two are 0.2 apart, and 0.1
    assert er.deviations["0 1"] == pytest.approx(math.sqrt(0.02))
    assert str(er) == (
        "er: the order moves accuracy by 11.7 points (sd over 2 orders, less what seeds explain), the "
        "seed by 11.2; from 60.0 (0 1) to 80.0 (1 0)"
    )


def test_the_spread_over_seeds_is_pooled_by_degrees_of_freedom() -> None:
    rows = [("er", "0 1", s, v) for s, v in enumerate([0.1, 0.3, 0.5])]  # variance 0.04 of three
    rows += [("er", "1 0", 0, 0.5), ("er", "1 0", 1, 0.7)]  # variance 0.02 of two
    (effect,) = analysis.order_effects(frame(rows))
    assert effect.within == pytest.approx(math.sqrt((2 * 0.04 + 1 * 0.02) / 3))


def test_with_a_single_seed_nothing_is_said_of_seeds() -> None:
    single = FRAME[FRAME["axis.seed"] == 0]
    effect = analysis.order_effects(single)[0]
    assert math.isnan(effect.within)
    assert "seed" not in str(effect)


@pytest.mark.parametrize(
    "some",
    [FRAME[FRAME["axis.curriculum"] == "0 1"], FRAME.drop(columns="axis.curriculum"), FRAME[:0]],
    ids=["one order", "no axis", "empty"],
)
def test_one_order_has_no_effect(some: pd.DataFrame) -> None:
    assert analysis.order_effects(some) == []


def test_the_figure_has_a_line_for_each_point_over_the_orders_of_the_best() -> None:
    partial = FRAME.drop(index=4)
    effects = analysis.order_effects(partial)
    figure = analysis.order_figure(effects)
    (axes,) = figure.axes
    assert len(axes.containers) == 2
    drawn = {c.get_label(): c.lines[0].get_ydata().tolist() for c in axes.containers}
    names = [text.get_text() for text in axes.get_xticklabels()]
    assert names == list(effects[0].means.index)
    assert drawn["er"] == pytest.approx([100 * effects[1].means[name] for name in names])


# --- estimates


def test_an_estimate_counts_distinct_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "pace", lambda plan: (1.0, 100.0))
    # 12 samples in batches of 5, five and seven, or as many as there are: 2 or 3, twice.
    runs = planned({"curriculum": ["all"]}, base={"batch_size": 6, "epochs": 2})
    assert estimate.estimate(runs[:1], PLANNER) == 5 * (2 * 2 * 1 + 100)
    assert estimate.estimate(runs, PLANNER) == 325 * (2 * 2 * 1 + 100)
    assert estimate.estimate(planned(tune={"experiences": 2}), PLANNER) == 2 * (2 + 100)
    assert estimate.estimate([], PLANNER) == 0


def test_an_estimate_knows_what_a_step_trains_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "pace", lambda plan: (1.0, 0.0))
    base = {"batch_size": 6, "strategy": "cumulative"}
    assert estimate.estimate(planned(base=base), PLANNER) == 2 * (1 + 2 + 3 + 4 + 5)


def test_each_kind_of_run_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def pace(plan: Plan) -> tuple[float, float]:
        tried.append(plan.config.strategy["name"])
        return 1.0, 1.0

    monkeypatch.setattr(estimate, "pace", pace)
    axes = {"strategy": ["er", "finetune"], "curriculum": ["as_given", "reverse"], "seed": [0, 1]}
    estimate.estimate(planned(axes), PLANNER)
    assert sorted(tried) == ["er", "finetune"]


@pytest.mark.parametrize("strategy", ["finetune", "joint", "cumulative", "er"])
def test_a_trial_is_short_and_leaves_no_trace(strategy: str) -> None:
    threads = torch.get_num_threads()
    plan = make_plan(parse_config({"stream": "split-digits", "strategy": strategy, "epochs": 50}))
    per_batch, per_evaluation = estimate.pace(plan)
    assert 0 < per_batch < 1
    assert 0 < per_evaluation < 1
    assert plan.config.epochs == 50
    assert len(plan.steps[0].experience.train) > 120
    assert torch.get_num_threads() == threads


def test_an_estimate_for_a_gpu_that_is_elsewhere_is_no_traceback() -> None:
    assert estimate.estimate(planned(resources={"gpus": 1}), PLANNER) is None
