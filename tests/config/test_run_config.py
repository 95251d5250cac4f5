"""Configurations: every fault at once, in one line each, and nothing but ConfigError."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from cl_platform.config import signatures
from cl_platform.config.run_config import (
    SHORTHANDS,
    RunConfig,
    apply_settings,
    flag_fields,
    parse_config,
    read_file,
    with_flags,
)
from cl_platform.config.signatures import instantiate
from cl_platform.engine.planner import make_plan
from cl_platform.errors import ClpError, ConfigError


def faults(data: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        make_plan(parse_config(data))  # which tries what only torch can say
    return str(caught.value).splitlines()


def test_defaults_are_complete() -> None:
    config = parse_config({})
    assert config.stream["name"] == "split-digits"
    assert config.stream["experiences"] == 5
    assert config.strategy == {
        "name": "er",
        "memory_size": 200,
        "memory_batch_size": None,
        "memory": "reservoir",
        "offer": "once",
    }
    assert parse_config(config.model_dump()) == config


def test_all_faults_are_reported_at_once() -> None:
    lines = faults(
        {
            "stream": {"name": "split-digits", "experiences": -1, "validation": 2},
            "strategy": {"name": "er", "memory_size": "many", "memorysize": 3},
            "model": "mlpp",
            "curriculum": "rverse",
            "seed": -1,
            "epochs": 0,
            "batch_size": 1.5,
            "sede": 3,
            "optimizer": {"lr": 0},
        }
    )
    reported = "\n".join(lines)
    for part in (
        "seed=-1: input should be greater than or equal to 0",
        "epochs=0: input should be greater than 0",
        "batch_size=1.5: input should be a valid integer",
        "sede is unknown. Did you mean 'seed'?",
        "optimizer.lr=0: input should be greater than 0",
        "stream.experiences=-1: ",
        "stream.validation=2: input should be less than 1",
        "strategy.memory_size=many: ",
        "strategy.memorysize is unknown. Did you mean 'memory_size'?",
        "unknown model 'mlpp'. Did you mean 'mlp'?",
        "unknown curriculum 'rverse'. Did you mean 'reverse'?",
    ):
        assert part in reported
    assert len(lines) == 11


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"strategy": "e-r"},
            "unknown strategy 'e-r'. Did you mean 'er'? `clp list strategies` lists the ",
        ),
        ({"strategy": "nowhere:Class"}, "strategy 'nowhere:Class' cannot be imported (ModuleNotFo"),
        ({"strategy": "strategies.er:Er"}, "has no attribute 'Er'"),
        ({"strategy": 5}, "strategy=5: 5 names nothing: give a name"),
        ({"optimizer": {"name": "sdg"}}, "unknown optimizer 'sdg'. Did you mean 'sgd'?"),
        ({"optimizer": {"momentun": 1}}, "optimizer.momentun is unknown. Did you mean 'momentum'?"),
        (
            {"optimizer": {"momentum": -1}},
            "optimizer SGD with momentum=-1: Invalid momentum value: -1",
        ),
        ({"schedule": {"name": "cosine"}}, "unknown schedule 'cosine'."),
        ({"schedule": {}}, "schedule={}: it has no name"),
        ({"schedule": {"name": "StepLR"}}, "schedule.step_size is missing"),
        ({"threads": "many"}, "threads=many: "),
        ({"threads": 0}, "threads=0: "),
        ({"device": "gpu"}, "device=gpu: string should match pattern"),
        ({"device": "cuda:7"}, "device=cuda:7 cannot be used here"),
        ({"curriculum": "1,2,x"}, "unknown curriculum '1,2,x'"),
        (
            {"model": {"name": "mlp", "hidden": [10, -1]}},
            "model.hidden=-1: input should be greater",
        ),
    ],
    ids=str,
)
def test_faults_say_what_is_allowed(data: dict, message: str) -> None:
    lines = faults(data)
    assert len(lines) == 1
    assert message in lines[0]


def test_every_setting_but_models_is_a_flag_with_a_help_text() -> None:
    fields = flag_fields()
    assert set(fields) == {*RunConfig.model_fields, *SHORTHANDS} - {
        *("optimizer", "schedule", "early_stopping", "budget", "probe")
    }
    for name, field in fields.items():
        assert field.description, name
        assert "\n\n" not in field.description


def test_a_section_is_checked_once_on_the_way_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse_config({"stream": "blobs", "strategy": {"name": "refresh", "inner": "er"}})
    checked: list[Any] = []
    monkeypatch.setattr(signatures, "check_section", lambda *call: checked.append(call))
    plan = make_plan(config)
    assert plan.make_strategy().hyperparameters() == {
        k: v for k, v in config.strategy.items() if k != "name"
    }
    assert not checked


def test_a_plugin_cannot_change_the_configuration_it_was_built_from() -> None:
    config = parse_config(
        {"model": {"name": "mlp", "hidden": [3]}, "strategy": {"name": "lwf", "alpha": [1.0]}}
    )
    strategy = instantiate("strategy", config.strategy)
    strategy.alpha.append(2.0)
    assert config.strategy["alpha"] == [1.0]


def test_settings_are_dotted_and_typed() -> None:
    data = with_flags({}, {"strategy": "er", "lr": "1e-3", "seed": None, "scenario": "task"})
    data = apply_settings(data, ["strategy.memory_size=7", "model.hidden=[3,4]", "seed=5"])
    config = parse_config(data)
    assert config.strategy["memory_size"] == 7
    assert config.optimizer.lr == 1e-3
    assert config.model["hidden"] == [3, 4]
    assert config.seed == 5
    assert config.stream["scenario"] == "task"


def test_inner_strategies_are_set_by_dotted_keys() -> None:
    data = apply_settings(
        {}, ["strategy=refresh", "strategy.inner=der", "strategy.inner.alpha=0.1"]
    )
    assert data["strategy"] == {"name": "refresh", "inner": {"name": "der", "alpha": 0.1}}


@pytest.mark.parametrize(
    "settings",
    [
        ["optimizer.weight_decay=1e-4", "optimizer.momentum=9E-1"],
        ["optimizer={name: adam, eps: 1e-8, betas: [9e-1, 0.99]}"],
        ["schedule={name: OneCycleLR, max_lr: 1e-1, interval: step}"],
        ["schedule.name=StepLR", "schedule.step_size=1", "schedule.gamma=1e-1"],
    ],
    ids=str,
)
def test_scientific_notation_is_a_number_in_every_section(settings: list[str]) -> None:
    config = make_plan(parse_config(apply_settings({}, settings))).config
    values = {**(config.optimizer.model_extra or {}), **vars(config.schedule or config.optimizer)}
    assert not [v for v in values.values() if isinstance(v, str) and v[0].isdigit()]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"optimizer": {"nesterov": "no"}}, "optimizer.nesterov='no' is text: give it without quotes"),
        ({"optimizer": {"weight_decay": "1e-4"}}, "optimizer.weight_decay='1e-4' is text: "),
        ({"optimizer": {"name": "adam", "betas": ["0.9", 0.9]}}, "optimizer.betas=['0.9', 0.9] is text"),
        ({"optimizer": {"name": "adam", "betas": [0.9]}}, "optimizer.betas=[0.9]: too few items"),
        ({"optimizer": {"weight_decay": None}}, "optimizer.weight_decay=None: input should be a valid number"),
        ({"optimizer": {"name": "muon"}}, "unknown optimizer 'muon'."),
        ({"optimizer": {"lr": float("inf")}}, "optimizer.lr=inf: give a finite number"),
        ({"optimizer": {"name": "adam", "eps": float("inf")}}, "optimizer.eps=inf: give a finite number"),
        ({"strategy": {"name": "ewc", "strength": float("inf")}}, "strategy.strength=inf: give a finite number"),
        ({"seed": 10**399}, "seed is an integer of 1327 bits: give one of 64 bits at most"),
        ({"schedule": {"name": "StepLR", "step_size": 0}}, "schedule StepLR with step_size=0: integer modulo by zero"),
        ({"schedule": {"name": "MultiStepLR", "milestones": 3}}, "schedule.milestones=3: input should be iterable"),
        ({"schedule": {"name": "LambdaLR"}}, "unknown schedule 'LambdaLR'"),
    ],
    ids=str,
)  # fmt: skip
def test_what_torch_would_take_amiss_or_no_record_holds_is_one_line(data: dict, line: str) -> None:
    (found,) = faults(data)
    assert found.startswith(line)


@pytest.mark.parametrize(
    "setting",
    [
        "seed",
        "=3",
        "seed.deeper=[",
        "a={",
        "a={b: 1, b: 2}",
        "a." * 60 + "=1",
        "seed=" + "9" * 5000,
    ],
)
def test_settings_that_cannot_be_read(setting: str) -> None:
    with pytest.raises(ConfigError, match="setting"):
        apply_settings({"seed": 3}, [setting])


def test_flags_win_over_files_and_keep_the_parameters_of_the_same_plugin(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("strategy: {name: er, memory_size: 9}\nepochs: 2\n")
    data = with_flags(read_file(file), {"strategy": "er", "epochs": 3})
    assert data == {"strategy": {"name": "er", "memory_size": 9}, "epochs": 3}
    assert with_flags(read_file(file), {"strategy": "joint"})["strategy"] == "joint"


@pytest.mark.parametrize("content", ["[1, 2]", "a: [", "\x00", "just text"])
def test_files_that_are_no_configuration(tmp_path: Path, content: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError) as caught:
        read_file(file)
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(ConfigError, match="cannot be read"):
        read_file(tmp_path / "absent.yaml")


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 20)
    | st.floats(allow_nan=True)
    | st.sampled_from(["er", "mlp", "blobs", "task", "", "x:y", "a.b", "1e-3", "cuda"])
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "lr", "hidden", "experiences", "memory_size", "order", "zz"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
keys = st.sampled_from([*RunConfig.model_fields, "sede", "Stream", ""])


@given(st.dictionaries(keys, values, max_size=5))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_configuration_is_complete_or_refused_in_clear_lines(data: dict[str, Any]) -> None:
    try:
        config = parse_config(data)
    except ClpError as error:
        lines = str(error).splitlines()
        assert lines
        assert all(line.strip() and "Traceback" not in line for line in lines)
    else:
        assert parse_config(config.model_dump()) == config


@pytest.mark.parametrize("text", ["\x1b[31mred", "\u202eabc", "\ud800", "a\x00b"])
def test_characters_that_nothing_can_show_are_refused(text: str) -> None:
    """As a value of an axis they would reach every table, page and terminal."""
    with pytest.raises(ConfigError) as caught:
        parse_config({"strategy": {"name": "refresh", "inner": {"name": text}}})
    assert str(caught.value).isprintable()
    with pytest.raises(ConfigError, match="holds characters that cannot be shown"):
        parse_config({"optimizer": {"name": "sgd", "note": text}})
