"""Specifications of sweeps: axes to points, what is drawn, and every fault in a line of its own."""

from __future__ import annotations

import itertools
import math
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from cl_platform.config.documents import parse
from cl_platform.config.run_config import RunConfig, parse_config, read_file
from cl_platform.engine.planner import Planner
from cl_platform.errors import BadInput, ClpError, ConfigError
from sweeps.planning import config_of, plan_runs
from sweeps.space import Random, fill, label, points, settings as settings_of, templates
from sweeps.spec import SweepSpec, parse_spec, read_spec

PLANNER = Planner()  # holds the streams of all tests


def spec(axes: dict[str, Any] | None = None, **more: Any) -> SweepSpec:
    return parse_spec({"base": {"stream": "blobs"}, "axes": axes or {}, **more})


def values(axis: Any, **more: Any) -> list[Any]:
    """The values of a single axis, point by point."""
    return [point["lr"] for point in points(spec({"lr": axis}, **more))]


def faults(data: dict[str, Any], planner: Planner = PLANNER) -> list[str]:
    """The lines in which a specification, or one of its runs, is refused."""
    with pytest.raises(BadInput) as caught:
        plan_runs(
            parse_spec({"base": {"stream": "blobs", "strategy": "finetune"}, **data}), planner
        )
    return str(caught.value).splitlines()


ALLOWED = "tune.method={}: input should be 'all', 'asha', 'optuna', 'mcts', 'halving' or 'policy'"

# --- forms of axes


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        ([3, 1, 2], [3, 1, 2]),
        ([0.5], [0.5]),
        ([None, "a", True], [None, "a", True]),
        ({"grid": [3, 1]}, [3, 1]),
        ({"range": 3}, [0, 1, 2]),
        ({"range": [2, 5]}, [2, 3, 4]),
        ([{"range": 2}, 7], [0, 1, 7]),
        ({"grid": [{"range": [1, 3]}, {"grid": [8, 9]}]}, [1, 2, 8, 9]),
        ([[2, 0, 1], [0, 1, 2]], [[2, 0, 1], [0, 1, 2]]),
        ([{"name": "er", "grid": 3}], [{"name": "er", "grid": 3}]),
    ],
    ids=str,
)
def test_listed_values_are_taken_in_their_order(axis: Any, expected: list[Any]) -> None:
    assert values(axis) == expected


def test_forms_inside_a_listed_item_are_multiplied_out() -> None:
    strategies = [
        "finetune",
        {"name": "er", "memory_size": {"grid": [100, 200]}, "memory": {"grid": ["a", "b"]}},
        {"name": "refresh", "inner": {"name": "er", "memory_size": {"range": [1, 3]}}},
    ]
    assert [p["strategy"] for p in points(spec({"strategy": strategies}))] == [
        "finetune",
        {"name": "er", "memory_size": 100, "memory": "a"},
        {"name": "er", "memory_size": 100, "memory": "b"},
        {"name": "er", "memory_size": 200, "memory": "a"},
        {"name": "er", "memory_size": 200, "memory": "b"},
        {"name": "refresh", "inner": {"name": "er", "memory_size": 1}},
        {"name": "refresh", "inner": {"name": "er", "memory_size": 2}},
    ]


def test_a_list_inside_an_item_is_a_value() -> None:
    schedule = [[], [1.0]]
    item = {"name": "scheduled-replay", "schedule": schedule}
    assert points(spec({"strategy": [item]})) == [{"strategy": item}]


def test_without_axes_there_is_one_point() -> None:
    assert points(spec()) == [{}]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), min_size=1, max_size=4))
def test_the_grid_is_every_combination_the_last_axis_fastest(lists: list[list[int]]) -> None:
    keys = ["seed", "epochs", "batch_size", "lr"][: len(lists)]
    found = points(spec(dict(zip(keys, lists, strict=True))))
    assert [tuple(p.values()) for p in found] == list(itertools.product(*lists))
    assert all(list(p) == keys for p in found)


# --- what is drawn


def test_a_random_axis_is_drawn_as_often_as_samples_say() -> None:
    assert len(values({"uniform": [0, 1]}, samples=7)) == 7
    assert len(set(values({"uniform": [0, 1]}, samples=7))) == 7


def test_draws_are_reproducible_and_follow_the_seed() -> None:
    axis = {"loguniform": [0.001, 1]}
    assert values(axis) == values(axis)
    assert not set(values(axis)) & set(values(axis, seed=1))


@pytest.mark.parametrize(
    "axis", [{"uniform": [0, 1]}, {"loguniform": [1, 9]}, {"integers": [0, 99]}], ids=str
)
def test_more_samples_keep_the_first_ones(axis: dict[str, Any]) -> None:
    assert values(axis, samples=30)[:8] == values(axis, samples=8)


def test_draws_do_not_depend_on_the_other_axes() -> None:
    alone = values({"uniform": [0, 1]}, samples=3)
    axes = {"seed": [0, 1], "epochs": {"integers": [1, 5]}, "lr": {"uniform": [0, 1]}}
    found = points(spec(axes, samples=3))
    assert [p["lr"] for p in found] == alone * 2, "each seed tries the same points"
    assert [p["seed"] for p in found] == [0, 0, 0, 1, 1, 1]


def test_axes_are_drawn_independently() -> None:
    same = {"uniform": [0, 1]}
    found = points(spec({"lr": same, "strategy.beta": same, "stream.x": same}, samples=200))
    columns = np.array([list(p.values()) for p in found]).T
    assert np.abs(np.corrcoef(columns) - np.eye(3)).max() < 0.25


def test_only_points_with_something_random_are_multiplied() -> None:
    strategies = ["finetune", {"name": "er", "memory_size": {"integers": [10, 1000]}}]
    found = [p["strategy"] for p in points(spec({"strategy": strategies}, samples=4))]
    assert found[0] == "finetune"
    assert len(found) == 5
    assert len({s["memory_size"] for s in found[1:]}) == 4
    assert all(type(s["memory_size"]) is int for s in found[1:])


def test_a_template_keeps_what_is_random_until_it_is_filled() -> None:
    (template,) = templates(spec({"lr": {"uniform": [0.25, 0.5]}, "seed": [3]}))
    assert template == {"lr": Random("uniform", (0.25, 0.5)), "seed": 3}
    assert fill(template, 0, 5) == points(spec({"lr": {"uniform": [0.25, 0.5]}, "seed": [3]}))[5]


def test_uniform_values_are_even_and_within_their_bounds() -> None:
    found = values({"uniform": [2, 6]}, samples=800)
    assert all(2 <= v < 6 for v in found)
    assert np.abs(np.quantile(found, [0.25, 0.5, 0.75]) - [3, 4, 5]).max() < 0.25


def test_loguniform_values_are_even_in_the_logarithm() -> None:
    found = values({"loguniform": [1.0e-4, 1.0]}, samples=800)
    assert all(1e-4 <= v <= 1 for v in found)
    quartiles = np.quantile([math.log10(v) for v in found], [0.25, 0.5, 0.75])
    assert np.abs(quartiles - [-3, -2, -1]).max() < 0.25


def drawn(form: dict[str, Any], samples: int) -> list[Any]:
    """What each of so many draws gives, equal ones as often as they come."""
    (template,) = templates(spec({"lr": form}))
    return [fill(template, 0, i)["lr"] for i in range(samples)]


def test_integers_include_both_ends() -> None:
    counts = Counter(drawn({"integers": [3, 6]}, samples=800))
    assert sorted(counts) == [3, 4, 5, 6]
    assert all(150 < n < 250 for n in counts.values())
    assert sorted(values({"integers": [3, 6]}, samples=800)) == [3, 4, 5, 6]  # each is one point
    assert all(type(v) is int for v in counts)


def test_a_choice_is_one_of_its_items() -> None:
    counts = Counter(map(str, drawn({"choice": ["a", 2, [3]]}, samples=600)))
    assert counts.keys() == {"a", "2", "[3]"}
    assert all(150 < n < 250 for n in counts.values())


def test_the_mean_of_a_choice_is_that_of_its_items() -> None:
    assert fmean(drawn({"choice": [0, 10]}, samples=400)) == pytest.approx(5, abs=1)


# --- points to configurations


def test_dotted_keys_and_shorthands_reach_their_settings() -> None:
    axes = {
        "lr": [0.3],
        "scenario": ["task"],
        "strategy.memory_size": [7],
        "optimizer.momentum": [0.9],
        "seed": [4],
    }
    one = spec(axes)
    config = config_of(one, points(one)[0])
    assert config.optimizer.lr == 0.3
    assert config.optimizer.model_dump()["momentum"] == 0.9
    assert config.stream["scenario"] == "task"
    assert config.stream["name"] == "blobs"
    assert config.strategy["memory_size"] == 7
    assert config.seed == 4


@pytest.mark.parametrize(
    "axes",
    [
        {"strategy": ["der"], "strategy.memory_size": [7], "strategy.alpha": [0.2]},
        {"strategy.alpha": [0.2], "strategy.memory_size": [7], "strategy": ["der"]},
        {"strategy.alpha": [0.2], "strategy": [{"name": "der", "memory_size": 7}]},
    ],
    ids=["section first", "section last", "section with parameters"],
)
def test_a_section_comes_before_its_parameters_wherever_they_stand(axes: dict[str, Any]) -> None:
    data = settings_of({"strategy": "er"}, points(spec(axes))[0])
    assert data["strategy"] == {"name": "der", "memory_size": 7, "alpha": 0.2}


def test_points_leave_the_base_and_each_other_alone() -> None:
    base = {"strategy": {"name": "er", "memory_size": 1}}
    item = {"name": "der", "memory_size": 2}
    one = settings_of(base, {"strategy": item, "strategy.alpha": 0.5})
    assert one == {"strategy": {"name": "der", "memory_size": 2, "alpha": 0.5}}
    other = settings_of(base, {"strategy.memory_size": 3})
    assert other == {"strategy": {"name": "er", "memory_size": 3}}
    assert base == {"strategy": {"name": "er", "memory_size": 1}}
    assert item == {"name": "der", "memory_size": 2}


def test_a_gpu_makes_cuda_the_default_device() -> None:
    with_gpu = spec(resources={"gpus": 0.5})
    assert config_of(with_gpu, {}).device == "cuda"
    assert config_of(spec(), {}).device == "cpu"
    assert config_of(spec(resources={"gpus": 1}, base={"device": "cpu"}), {}).device == "cpu"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("er", "er"),
        (3, "3"),
        (0.1, "0.1"),
        ({"name": "er", "memory_size": 100}, "er memory_size=100"),
        ({"name": "refresh", "inner": {"name": "er"}}, "refresh inner=er"),
        ({"name": "explicit", "order": [2, 0, 1]}, "2 0 1"),
        ([1, 2], "[1 2]"),
        (None, "None"),
    ],
    ids=str,
)
def test_values_as_people_read_them(value: Any, text: str) -> None:
    assert label(value) == text


@pytest.mark.parametrize("lrs", [[0.10001, 0.1], [0.99991, 0.99993], [0.99999, 1.0]], ids=str)
def test_points_that_differ_are_read_differently(lrs: list[float]) -> None:
    """Tuning and tables tell points apart by what people read."""
    one, other = plan_runs(spec({"lr": lrs}), PLANNER)
    assert one.point != other.point


# --- the document


def test_a_specification_survives_its_own_record() -> None:
    one = spec({"lr": {"uniform": [0, 1]}}, tune={"trials": 3}, final={"seeds": [4]}, samples=3)
    assert parse_spec(one.model_dump(mode="json")) == one


def test_a_file_names_its_sweep(tmp_path: Path) -> None:
    path = tmp_path / "orders.yaml"
    path.write_text("axes: {seed: [0, 1]}\n")
    assert parse_spec(read_spec(path)).name == "orders"
    path.write_text("name: other\naxes: {seed: [0, 1]}\n")
    assert parse_spec(read_spec(path)).name == "other"
    path.write_text("")
    assert points(parse_spec(read_spec(path))) == [{}]


@pytest.mark.parametrize("text", ["- a\n", "axes: [1,\n", "3\n"])
def test_a_file_that_is_no_specification_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"^[^\n]*bad\.yaml[^\n]*$"):
        read_spec(path)


def test_the_example_is_sound() -> None:
    path = Path(__file__).parents[2] / "examples" / "sweep.yaml"
    assert len(plan_runs(parse_spec(read_spec(path)), PLANNER)) == 36


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("my sweep.yaml", "my-sweep"),
        (".hidden.yaml", "hidden"),
        ("größe (2).yaml", "gr-e-2-"),
        ("...yaml", "sweep"),
        ("x" * 240 + ".yaml", "x" * 100),
    ],
)
def test_a_file_of_any_name_gives_a_name_that_is_accepted(
    tmp_path: Path, file: str, name: str
) -> None:
    (tmp_path / file).write_text("axes: {seed: [0]}")
    assert parse_spec(read_spec(tmp_path / file)).name == name.strip("-")


def test_values_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text("axes: {optimizer.weight_decay: [1e-4, 5e-4], lr: {loguniform: [1e-3, 1E-1]}}")
    spec = parse_spec(read_spec(path, ["wandb.mode=off", "axes.batch_size=[1e1]"]))
    assert spec.wandb.mode == "off"  # what `clp sweep --wandb off` sets
    assert spec.axes["optimizer.weight_decay"] == [0.0001, 0.0005]
    assert spec.axes["lr"] == {"loguniform": [0.001, 0.1]}
    assert spec.axes["batch_size"] == [10.0]


# --- faults


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("axs: {}", ["axs is unknown. Did you mean 'axes'? Known: name, base, axes"]),
        ("budget: {run: 1}", ["budget.run is unknown."]),
        ("axes: {sed: [0]}", ["axes: 'sed' is no setting of a run. Did you mean 'seed'? Known: "]),
        ("axes: {resources.gpus: [1]}", ["axes: 'resources.gpus' is no setting of a run. Known: "]),
        ("axes: 3", ["axes=3: "]),
        ("axes: {seed: []}", ["axes.seed=[]: expected a list with at least one value"]),
        ("axes: {seed: 3}", ["axes.seed=3: expected a list"]),
        ("axes: {seed: null}", ["axes.seed=None: expected a list"]),
        ("axes: {strategy: er}", ["axes.strategy='er': expected a list"]),
        ("axes: {seed: {grid: {range: 3}}}", ["axes.seed={'range': 3}: expected a list"]),
        ("axes: {seed: {gird: [0]}}", ["axes.seed={'gird': [0]}: expected a list"]),
        ("axes: {seed: {range: 0}}", ["axes.seed=[]: expected a list with at least one value"]),
        ("axes: {seed: {range: x}}", ["axes.seed: range='x': expected n or [from, to]"]),
        ("axes: {seed: {range: [1, 2, 3]}}", ["axes.seed: range=[1, 2, 3]: expected n or "]),
        ("axes: {seed: {range: true}}", ["axes.seed: range=True: expected n or [from, to]"]),
        ("axes: {lr: {uniform: 1}}", ["axes.lr: uniform=1: expected a list"]),
        ("axes: {lr: {uniform: [1]}}", ["axes.lr: uniform=[1]: expected two numbers, [low, high]"]),
        ("axes: {lr: {uniform: ['1e-3', 1]}}", ["axes.lr: uniform=['1e-3', 1]: expected two numbers, [low, high]"]),
        ("axes: {seed: {range: 100000000000}}", ["axes.seed has 100,000,000,000 points, above 100,000; give fewer values"]),
        ("axes: {seed: {range: 1000}, epochs: {range: [1, 1001]}}", ["axes has 1,000,000 points, above 100,000"]),
        ("axes: {strategy: [{name: er, memory_size: {range: 400}, seed: {range: 400}}]}", ["axes.strategy has 160,000 points"]),
        ("samples: 2147483648", ["samples=2147483648: input should be less than or equal to 100000"]),
        ("samples: 60000\naxes: {lr: {uniform: [0.1, 1]}, seed: [0, 1]}", ["axes with samples=60000 has 120,000 points"]),
        ("tune: {}\nfinal: {seeds: 2147483648}", ["final.seeds=2147483648: "]),
        ("axes: {lr: {uniform: [2, 1]}}", ["axes.lr: uniform=[2, 1]: low must be below high"]),
        ("axes: {lr: {uniform: [.nan, 1]}}", ["axes.lr: uniform=[nan, 1]: expected finite numbers"]),
        ("axes: {lr: {loguniform: [0, 1]}}", ["axes.lr: loguniform=[0, 1]: low must be positive"]),
        ("axes: {lr: {integers: [0, 1.5]}}", ["axes.lr: integers=[0, 1.5]: expected whole numbers"]),
        ("axes: {lr: {choice: []}}", ["axes.lr: choice=[]: expected a list"]),
        ("axes: {strategy: [{name: er, memory_size: {range: x}}]}", ["axes.strategy.memory_size: range='x': expected n or"]),
        ("final: {seeds: 3}", ["final without tune: "]),
        ("tune: {per: [lr]}\naxes: {seed: [0]}", ["tune.per: 'lr' is no axis. Axes: seed"]),
        ("tune: {method: bayes}", ["tune.method=bayes: input should be 'all', "]),
        ("tune: {method: pbt}", [ALLOWED.format("pbt")]),
        ("tune: {method: hyperband}", [ALLOWED.format("hyperband")]),
        ("tune: {experiences: 0}", ["tune.experiences=0: input should be greater than 0"]),
        ("samples: 0", ["samples=0: input should be greater than 0"]),
        ("workers: 0", ["workers=0: input should be greater than 0"]),
        ("name: a/b", ["name=a/b: "]),
        ("keep_states: some", ["keep_states=some: input should be 'all', 'branches', "]),
        ("resources: {gpus: 1.5}", ["resources.gpus=1.5: give a fraction of one GPU or a whole number"]),
        ("resources: {gpus: -1}", ["resources.gpus=-1: input should be greater than or equal to 0"]),
        ("resources: {gpus: many}", ["resources.gpus=many: input should be a valid number"]),
        ("base: {device: cuda}", ["base.device=cuda without a GPU: give resources.gpus"]),
        ("base: {device: 'cuda:1'}\nresources: {gpus: 1}", ["base.device=cuda:1: give cuda; Ray chooses"]),
        ("base: {curriculum: [1, 0]}\naxes: {curriculum.level: [classes]}", ["curriculum is [1, 0] and takes no parameters"]),
        ("axes: {curriculum: [[0, 1, 2]]}", ["curriculum 'explicit' returned (0, 1, 2): expected a permutation of 0..4"]),
        ("axes: {strategy: [null]}", ["strategy=None: "]),
        ("axes: {seed: [-1]}", ["seed=-1: input should be greater than or equal to 0"]),
    ],
)  # fmt: skip
def test_a_fault_is_one_line_with_what_was_given(text: str, lines: Sequence[str]) -> None:
    found = faults(parse(text))
    assert len(found) == len(lines)
    assert all(f.startswith(line) for f, line in zip(found, lines, strict=True)), found


def test_all_faults_of_the_document_are_told_together() -> None:
    found = faults({"samples": 0, "axs": {}, "tune": {"trials": 0}, "resources": {"cpus": "many"}})
    assert len(found) == 4
    assert {line.partition("=")[0].partition(" ")[0] for line in found} == {
        "samples",
        "axs",
        "tune.trials",
        "resources.cpus",
    }


def test_all_faults_of_what_does_not_fit_together_are_told_together() -> None:
    found = faults(
        {"axes": {"sed": [0], "lrr": [1]}, "final": {}, "base": {"device": "cuda:1"}},
    )
    assert len(found) == 4


def test_all_malformed_axes_are_told_together() -> None:
    axes = {"seed": [], "lr": {"uniform": [1]}, "epochs": {"range": "x"}, "batch_size": [1]}
    found = faults({"axes": axes})
    assert [line.partition(":")[0].partition("=")[0] for line in found] == [
        "axes.seed",
        "axes.lr",
        "axes.epochs",
    ]


def test_an_unknown_strategy_in_one_of_many_runs_is_placed() -> None:
    (line,) = faults({"axes": {"strategy": ["finetune", "err", "joint"], "seed": {"range": 4}}})
    assert line.startswith("unknown strategy 'err'. Did you mean 'er'? `clp list strategies` ")
    assert line.endswith("(in 4 of 12 runs: strategy=err, seed=0)")


def test_a_fault_of_every_run_is_told_once_and_not_placed() -> None:
    (line,) = faults({"base": {"stream": "blobs", "epochs": 0}, "axes": {"seed": {"range": 5}}})
    assert line == "epochs=0: input should be greater than 0"


def test_faults_of_different_runs_are_told_together() -> None:
    axes = {"strategy": ["er"], "strategy.memory_size": [1, "x"], "epochs": [1, 0], "seed": [0, -1]}
    found = faults({"axes": axes})
    assert len(found) == 3
    assert all("(in 4 of 8 runs: strategy=er, " in line for line in found)


def test_a_parameter_of_another_strategy_is_placed() -> None:
    axes = {"strategy": ["er", "finetune"], "strategy.memory_size": [100, 200]}
    (line,) = faults({"axes": axes})
    assert line.startswith("strategy.memory_size is unknown.")
    assert "in 2 of 4 runs: strategy=finetune" in line


def test_very_many_faults_are_cut() -> None:
    found = faults({"axes": {"epochs": {"range": [-29, 1]}}})
    assert len(found) == 21
    assert found[-1] == "and 10 more"


@pytest.mark.parametrize(
    "axes",
    [
        {"seed": [0, 1, 0]},
        {"strategy": ["er", {"name": "er", "memory_size": 200}]},
        {"lr": [0.001, "1e-3"]},
        {"curriculum": ["2,0,1,3,4", [2, 0, 1, 3, 4]]},
        {"curriculum": ["all", [2, 0, 1, 3, 4]]},
    ],
    ids=str,
)
def test_a_run_that_is_given_twice_is_refused(axes: dict[str, Any]) -> None:
    (line,) = faults({"axes": axes})
    assert line.startswith("the axes give this run more than once: ")
    assert line.endswith("; drop the repeated value")


@pytest.mark.parametrize(
    "axes",
    [
        {"lr": {"choice": [0.1, 0.2]}},
        {"batch_size": {"integers": [5, 6]}},
        {"strategy": ["er", {"name": "er", "memory_size": {"choice": [200, 300]}}]},
    ],
    ids=str,
)
def test_a_value_that_is_drawn_twice_is_one_run(axes: dict[str, Any]) -> None:
    assert len(plan_runs(spec(axes, samples=20), PLANNER)) == 2


@pytest.mark.parametrize(
    "data",
    [
        {"resources": {"gpus": "two"}},
        {"resources": {"gpus": math.inf}},
        {"axes": {"lr": {"uniform": [0.1, math.inf]}}},
        {"axes": {"lr": {"loguniform": [0.1, math.inf]}}},
        {"axes": {"batch_size": {"integers": [1, 2**70]}}},
    ],
    ids=str,
)
def test_what_is_out_of_bounds_is_a_fault_and_no_traceback(data: dict[str, Any]) -> None:
    assert len(faults(data)) == 1


@pytest.mark.parametrize("device", ["cuda:1", "cuda"])
def test_a_device_on_an_axis_is_checked_like_the_one_of_the_base(device: str) -> None:
    resources = {"gpus": 1} if device == "cuda:1" else {}
    given = {"axes": {"device": ["cpu", device]}, "resources": resources}
    (line,) = faults(given, Planner(check_device=False))
    assert device in line


strange = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("aer.", max_size=3) | st.just(1.5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["grid", "range", "uniform", "choice", "integers", "name", "er"]),
            inner,
            max_size=2,
        )
    ),
    max_leaves=6,
)
KEYS = ["seed", "strategy", "strategy.memory_size", "lr", "curriculum", "schedule", "model"]


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), strange, min_size=1, max_size=2))
def test_whatever_is_written_as_axes_gives_runs_or_faults(axes: dict[str, Any]) -> None:
    try:
        found: Sequence[Any] = plan_runs(spec(axes, samples=2), PLANNER)
    except ClpError as error:
        found = str(error).splitlines()
    assert found
    assert all(found)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"tune": {"metod": "asha"}}, "tune.metod is unknown. Did you mean 'method'?"),
        ({"resources": {"cpu": 2}}, "resources.cpu is unknown. Did you mean 'cpus'?"),
        ({"axes": {"curriculum": [2, 0, 1]}}, "for this one order give [[2, 0, 1]]"),
        ({"axes": {"seed": {"gird": [1]}}}, "Forms: grid, range, uniform"),
    ],
)
def test_what_may_have_been_meant_is_said(data: dict[str, Any], line: str) -> None:
    (found,) = faults(data)
    assert line in found


def test_one_setting_under_two_keys_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^axes: 'optimizer.lr' is there twice; drop one$"):
        spec({"lr": [0.1, 0.2], "optimizer.lr": [0.3]})


def test_states_that_are_not_kept_cannot_be_shared() -> None:
    with pytest.raises(ConfigError, match="keep_states=none with share=true"):
        spec({"seed": [0]}, keep_states="none")
    assert not spec({"seed": [0]}, keep_states="none", share=False).share


def test_a_section_on_an_axis_keeps_the_parameters_of_the_base() -> None:
    base = {"strategy": {"name": "er", "memory_size": 50}, "stream": {"validation": 0.2}}
    axes = {"strategy": ["er", "finetune"], "stream": ["split-digits"]}
    er, finetune = (config_of(s, p) for s in [spec(axes, base=base)] for p in points(s))
    assert er.strategy["memory_size"] == 50
    assert finetune.strategy == {"name": "finetune"}
    assert er.stream["validation"] == finetune.stream["validation"] == 0.2


def test_settings_reach_axes_with_dotted_keys(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text("base: {epochs: 2}\naxes: {seed: [0]}\n")
    data = read_spec(path, ["axes.optimizer.momentum=[0, 0.9]", "base.epochs=3", "axes.seed=[1]"])
    assert data == {
        "name": "some",
        "base": {"epochs": 3},
        "axes": {"seed": [1], "optimizer.momentum": [0, 0.9]},
    }


def test_a_plan_above_its_budget_is_refused(tmp_path: Path) -> None:
    from sweeps.api import preview  # imports Ray, and starts none

    def plan(budget: dict[str, int], **more: Any) -> Any:
        return preview(spec({"curriculum": ["all"]}, budget=budget, **more), tmp_path)

    assert plan({"runs": 120, "experiences": 325}).tally.runs == 120
    with pytest.raises(BadInput, match=r"^the sweep has 120 runs, above budget\.runs=119; raise"):
        plan({"runs": 119})
    with pytest.raises(BadInput, match=r"^the sweep has 325 experiences, above budget\.exper"):
        plan({"experiences": 324})


def test_the_budget_of_a_sweep_that_shares_nothing_counts_every_experience(tmp_path: Path) -> None:
    from sweeps.api import preview  # imports Ray, and starts none

    one = spec({"curriculum": ["all"]}, budget={"experiences": 325}, share=False)
    with pytest.raises(BadInput, match=r"600 experiences"):
        preview(one, tmp_path)


VALUES = [
    *("1e-4", "off", "2024-13-45", "!!int x", "!!binary =", "9" * 5000, "[" * 60, "&a [*a]", "*b"),
    *("!!python/name:os.system", ".nan", "1e400", "{range: 100000000000}", "{range: [5, 0]}"),
    *("{uniform: [1e-3, .inf]}", "{integers: [0, 9223372036854775807]}", "{grid: [{range: 3}]}"),
    *("[er, {name: ewc, strength: {uniform: [0, 1]}}]", "[]", "{}", "er", "-1", "null", "true"),
    *("{x: 1, x: 2}", "{<<: {a: 1}}", "{<<: 1}", "? a", "a: b: c", "'\\0'", '"\\ud800"', "|", "%"),
]
KEYS = [*SweepSpec.model_fields, *RunConfig.model_fields, "lr", "a.b", "strategy.memory_size", "<<"]


@given(
    st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES)), max_size=4),
    st.sampled_from(["axes.lr", "axes", "base.lr", "base", "samples", "name", "a." * 60]),
    st.sampled_from(VALUES),
)
def test_whatever_is_written_is_read_or_refused_in_lines(
    lines: list[tuple[str, str]], key: str, value: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sweep.yaml")
        path.write_text("".join(f"{k}: {v}\n" for k, v in lines))
        with suppress(ClpError):  # and nothing else
            points(parse_spec(read_spec(path, [f"{key}={value}"])))
        with suppress(ClpError):
            parse_config(read_file(path))
