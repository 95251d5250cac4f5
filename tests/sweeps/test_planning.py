"""From a specification to runs: what stands for several orders, and what a planner says of many."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from cl_platform import Curriculum, Stream
from cl_platform.config.run_config import parse_config
from cl_platform.engine.fold import Fold
from cl_platform.engine.plan import Plan
from cl_platform.engine.planner import Planner, make_plan
from cl_platform.errors import ClpError, ConfigError, CurriculumError
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from sweeps.executor import tree
from sweeps.executor.tree import grow
from sweeps.planning import config_of, plan_runs
from sweeps.spec import parse_spec
from tests.helpers.sweep_runs import BLOBS, PLANNER, VALIDATED, planned, spec

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


def test_a_run_has_a_process_for_each_of_its_gpus() -> None:
    def processes(gpus: object, **base: object) -> int:
        return config_of(parse_spec({"resources": {"gpus": gpus}, "base": base}), {}).processes

    assert [processes(gpus) for gpus in (0, 0.5, 1, 2, "auto")] == [1, 1, 1, 2, 1]
    with pytest.raises(
        ConfigError, match=r"processes=3 with resources.gpus=2\.0: a run takes a GPU"
    ):
        processes(2, processes=3)
