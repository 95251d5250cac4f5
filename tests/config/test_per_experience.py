"""Settings that are lists over the experiences: how they are written, and what a step has of them."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from cl_platform.config.command import command_of
from cl_platform.config.per_experience import at, distinct, series
from cl_platform.config.run_config import RunConfig, apply_settings, parse_config, with_flags
from cl_platform.errors import ConfigError


def parsed(**settings: Any) -> RunConfig:
    return parse_config({"stream": "blobs", **settings})


def steps(config: RunConfig, n: int = 4) -> list[tuple[int, str, float]]:
    settings = [at(config, k) for k in range(1, n + 1)]
    return [(s.epochs, s.optimizer.name, s.optimizer.lr) for s in settings]


@pytest.mark.parametrize("epochs", [[20, 5], "20,5", "[20, 5]", (20, 5)])
def test_the_last_item_holds_for_all_that_follow(epochs: Any) -> None:
    config = parsed(epochs=epochs)
    assert config.epochs == [20, 5]
    assert steps(config) == [(20, "sgd", 0.05), *[(5, "sgd", 0.05)] * 3]
    assert at(config, 0) == at(config, 1)  # before the first step
    assert [c.epochs for c in distinct(config)] == [20, 5]


def test_one_value_is_that_of_every_step() -> None:
    config = parsed(epochs="7")
    assert series(config) == {}
    assert steps(config, 2) == [(7, "sgd", 0.05)] * 2
    assert at(config, 3).model_dump() == config.model_dump()


def test_learning_rates_and_whole_optimizers_are_lists() -> None:
    config = parsed(optimizer={"lr": [0.1, 0.01], "momentum": 0.9})
    assert list(series(config)) == ["optimizer.lr"]
    assert steps(config, 3) == [(1, "sgd", 0.1), (1, "sgd", 0.01), (1, "sgd", 0.01)]
    assert at(config, 2).optimizer.model_extra == {"momentum": 0.9}
    config = parsed(optimizer=[{"name": "adam", "lr": 0.001}, {"momentum": 0.9}])
    assert list(series(config)) == ["optimizer"]
    assert steps(config, 2) == [(1, "adam", 0.001), (1, "sgd", 0.05)]


def test_flags_and_settings_of_the_command_line_take_lists() -> None:
    data = apply_settings(with_flags({}, {"epochs": "20,5", "lr": "0.1,0.01"}), ["batch_size=4"])
    assert steps(parsed(**data), 2) == [(20, "sgd", 0.1), (5, "sgd", 0.01)]
    data = apply_settings({}, ["optimizer.lr=[0.1, 0.01]", "epochs=[20, 5]"])
    assert steps(parsed(**data), 2) == [(20, "sgd", 0.1), (5, "sgd", 0.01)]


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": [20, 5]},
        {"epochs": [5]},
        {"optimizer": {"lr": [0.1, 0.01], "momentum": 0.9}},
        {"optimizer": [{"name": "adam", "betas": [0.9, 0.99]}, {"lr": 0.1}]},
    ],
    ids=str,
)
def test_the_command_of_a_run_gives_its_lists_again(settings: dict[str, Any]) -> None:
    config = parsed(**settings)
    words = shlex.split(command_of(config.model_dump(mode="json")))[2:]
    given = dict(zip(words[::2], words[1::2], strict=True))
    changes = [
        value for word, value in zip(words[::2], words[1::2], strict=True) if word == "--set"
    ]
    flags = {word[2:]: value for word, value in given.items() if word != "--set"}
    again = parse_config(apply_settings(with_flags({}, flags), changes))
    assert again.model_dump() == config.model_dump()


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"epochs": [3, 0]}, "epochs=0: input should be greater than 0"),
        ({"epochs": []}, "epochs=[]: list should have at least 1 item"),
        ({"epochs": "a,b"}, "epochs=a: input should be a valid integer"),
        ({"optimizer": {"lr": [0.1, -1]}}, "optimizer.lr=-1: input should be greater than 0"),
        ({"optimizer": [{}, {"lr": -1}]}, "optimizer.1.lr=-1: input should be greater than 0"),
        ({"optimizer": [{"lr": [0.1]}]}, "optimizer.0.lr=[0.1]: input should be a valid number"),
        ({"optimizer": []}, "optimizer=[]: list should have at least 1 item"),
    ],
    ids=str,
)
def test_a_fault_in_a_list_is_one_line(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(**settings)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)
