"""The command of a run: read again it is the same configuration, to the last digit."""

from __future__ import annotations

import json
import shlex
import subprocess
from dataclasses import field
from pathlib import Path
from typing import Any

import pytest

from cl_platform import Strategy
from cl_platform.cli.app import overridden
from cl_platform.config.command import command_of
from cl_platform.config.registry import Kind, plugins
from cl_platform.config.run_config import SECTIONS, flag_fields, parse_config, with_flags
from cl_platform.engine.optimization import OPTIMIZERS
from cl_platform.errors import ConfigError
from tests.cli.test_cli import Clp

NEEDED = {
    "stream": {
        "folder": {"path": "pictures"},
        "arrays": {"path": "mine.npz"},
        "table": {"path": "mine.csv"},
        "hub": {"path": "someone/petals"},
        "extended": {"base": "blobs", "more": ["blobs"]},
        "with-held-out": {"inner": "blobs", "held_out": ["blobs"]},
        **{
            name: {"inner": "blobs"}
            for name in ("blurry", "repeating", "gaussian-schedule", "time")
        },
    },
    "strategy": {},
    "curriculum": {"explicit": {"order": [2, 0, 1, 4, 3]}, "towards": {"target": 2}},
    "model": {},
}
ODD_TEXTS = ["1e-5", "007", "true", "null", "~", "", " a ", "a: b", "# c", "it's \"q\"", "a\nb",
             "$HOME `ls` !x *", "--lr", "=", "é", "...", "2,0,1", "[1", "-", "1_000", "0x1F",
             "12:30:45", "2020-01-01", "yes", ".inf", "a" * 300]  # fmt: skip


class Odd(Strategy):
    """A strategy of all kinds of parameters."""

    number: float = 0.5
    text: str = "text"
    maybe: int | None = 3
    flag: bool = True
    many: list[Any] = field(default_factory=list)
    table: dict[str, Any] = field(default_factory=dict)


ODD = f"{__name__}:Odd"


def complete(**given: Any) -> dict[str, Any]:
    """A complete configuration, as `result.json` holds it."""
    found: dict[str, Any] = json.loads(json.dumps(parse_config(given).model_dump(mode="json")))
    return found


def read_again(command: str) -> dict[str, Any]:
    """What `clp run` makes of the words of a command."""
    words = shlex.split(command)
    assert words[:2] == ["clp", "run"]
    flags: dict[str, Any] = dict.fromkeys(flag_fields())
    settings = []
    rest = iter(words[2:])
    for flag in rest:
        key = flag.removeprefix("--").replace("-", "_")
        name = key.removeprefix("no_")
        if flag == "--set":
            settings.append(next(rest))
            continue
        assert flags[name] is None, "given once"
        is_switch = flag_fields()[name].annotation is bool
        flags[name] = key == name if is_switch else next(rest)
    return complete(**overridden([], flags, settings))


def strict(config: dict[str, Any]) -> str:
    """As text, in which 1, 1.0 and true differ; the order of keys decides nothing."""
    return json.dumps(config, sort_keys=True)


def names(kind: Kind) -> list[tuple[Kind, str]]:
    return [(kind, name) for name in plugins(kind)]


@pytest.mark.parametrize(
    ("kind", "name"), [each for kind in SECTIONS for each in names(kind)], ids=lambda v: str(v)
)
def test_every_plugin_comes_back(kind: Kind, name: str) -> None:
    given = {kind: {"name": name, **NEEDED[kind].get(name, {})}}
    config = complete(**given)
    command = command_of(config)
    assert read_again(command) == config
    assert f"--{kind} " in command
    written = name == "explicit"  # as the order alone
    needed = 0 if written else len(NEEDED[kind].get(name, {}))
    assert command.count("--set") == needed, "nothing but defaults"


@pytest.mark.parametrize(
    ("kind", "name"), [each for kind in SECTIONS for each in names(kind)], ids=lambda v: str(v)
)
def test_every_parameter_that_is_no_default_comes_back(kind: Kind, name: str) -> None:
    config = complete(**{kind: {"name": name, **NEEDED[kind].get(name, {})}})
    tried = 0
    for key, value in config[kind].items():
        other = another(value)
        if key == "name" or other is None:
            continue
        try:
            changed = complete(**{kind: {**config[kind], key: other}})
        except ConfigError:
            continue  # not every value goes with every plugin
        if changed != config:
            tried += 1
            command = command_of(changed)
            assert read_again(command) == changed
            words = shlex.split(command)
            # A setting that fills in others beside itself may take more than one word.
            assert words.count("--set") <= 2, command
    assert tried or len(config[kind]) <= 3


def another(value: Any) -> Any:
    """A value of the same kind that is no default."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 0.9371e-3
    if isinstance(value, list):
        return [*value, len(value)]
    if value is None:
        return "given"
    return {"experiences": "classes", "class": "task", "mean": "first"}.get(str(value))


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_odd_texts_come_back(text: str) -> None:
    strategy = {"name": ODD, "text": text, "many": [text, {text: [text, None]}], "table": {text: 1}}
    config = complete(strategy=strategy)
    assert config["strategy"]["text"] == text
    assert read_again(command_of(config)) == config


@pytest.mark.parametrize(
    "parameters",
    [
        {"number": 1e-5},
        {"number": 1e300, "maybe": None, "flag": False},
        {"number": -0.0, "many": [1, 1.0, True, "1", "true", None, "null"]},
        {"number": 0.1 + 0.2, "maybe": 10**15},
        {"many": [[], {}, [[]]], "table": {"a": {"b": [1e-5, "1e-5"]}}},
        {"table": {"z.b": 1, "c=d": 2, "": 3}},
    ],
    ids=str,
)
def test_odd_values_come_back(parameters: dict[str, Any]) -> None:
    config = complete(strategy={"name": ODD, **parameters})
    again = read_again(command_of(config))
    assert strict(again) == strict(config)  # 1, 1.0 and True are different things


@pytest.mark.parametrize(
    "given",
    [
        {"curriculum": [2, 0, 1]},
        {"curriculum": [0]},
        {"curriculum": {"name": "explicit", "order": [1, 0], "level": "classes"}},
        {"curriculum": {"name": "explicit", "order": [3], "level": "classes"}},
        {"curriculum": {"name": "random", "seed": 0}},
        {"curriculum": {"name": "random", "seed": None, "level": "classes"}},
        {"lr": 1e-5},
        {"optimizer": {"name": "AdamW", "betas": [0.8, 0.99], "weight_decay": 1e-05}},
        {"optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": True, "reset": False}},
        {"optimizer": {"name": "sgd", "lr": 1}},
        {"schedule": {"name": "steplr", "step_size": 1, "gamma": 1e-1}},
        {"schedule": {"name": "MultiStepLR", "milestones": [1, 2], "interval": "step"}},
        {"schedule": {"name": "cosineannealinglr", "eta_min": 1e-7}},
        {"seed": 7, "epochs": 3, "batch_size": 64, "permute_labels": True},
        {"evaluate_every": 5, "count_flops": True},
        {"evaluate_every": 0, "count_flops": False, "permute_labels": False},
        {"stream": {"name": "blobs", "scenario": "task", "separation": 1e-3}},
        {"model": {"name": "mlp", "hidden": []}},
        {"model": {"name": "mlp", "hidden": [5, 6, 7], "activation": "tanh"}},
        {"strategy": {"name": "refresh", "inner": {"name": "er", "memory_size": 1}}},
        {"strategy": {"name": "refresh", "inner": "finetune"}},
        {"strategy": {"name": "refresh", "inner": {"name": "refresh", "inner": {"name": "lwf", "alpha": [0.1, 2]}}}},
        {"strategy": {"name": "lwf", "alpha": [0.1, 1, 1e-5]}},
        {"pacing": {"name": "reweighted", "until": 2, "shuffled": True}, "epochs": 3},
        {"augmentation": []},
        {"augmentation": ["crop", {"name": "colour-jitter", "hue": 1e-3}]},
        {"optimizer": {"groups": [{"match": "*.bias", "lr": 1e-4}], "no_decay": ["norm"]}},
        {"schedule": {"warmup": 0.1}, "accumulate": 2, "ema": 0.99, "clip_norm": 0},
        {"early_stopping": {"patience": 2, "metric": "loss"}, "epochs": 9},
        {"strategy": {"name": "scheduled-replay", "schedule": [[], [1.0], [0.25, 0.75]]}},
    ],
    ids=str,
)  # fmt: skip
def test_settings_come_back(given: dict[str, Any]) -> None:
    lr = given.pop("lr", None)
    if lr is not None:
        given["optimizer"] = {"lr": lr}
    try:
        config = complete(**given)
    except ConfigError as error:
        pytest.fail(f"the test gives what is not allowed: {error}")
    assert strict(read_again(command_of(config))) == strict(config)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_comes_back(name: str) -> None:
    config = complete(optimizer={"name": name, "lr": 3e-4, "reset": False})
    assert read_again(command_of(config)) == config


@pytest.mark.parametrize("name", flag_fields())
def test_every_flag_is_in_the_command(name: str) -> None:
    others: dict[str, Any] = {
        "precision": "bf16",
        "device": "mps",
        "scenario": "task",
        "loss_classes": "seen",
        "boundaries": "hidden",
        "threads": 2,
        "compile": "auto",
        "pacing": "cyclical",
    }
    if name in ("clip_norm", "clip_value", "label_smoothing", "ema"):
        others[name] = 0.25
    others["augmentation"] = [{"name": "crop", "padding": 2}, {"name": "mixup"}]
    value = others.get(name) or another(flag_fields()[name].default)
    if name in SECTIONS:
        value = {"stream": "blobs", "strategy": "ewc", "curriculum": "random", "model": "cnn"}[name]
    config = complete(**with_flags({}, {name: value}))
    assert config != complete()
    flag = f"--{name.replace('_', '-')}"
    assert shlex.split(command_of(config)).count(flag) == 1
    assert read_again(command_of(config)) == config


def test_a_device_that_is_not_here_is_in_the_command() -> None:
    config = {**complete(), "device": "cuda:3"}
    assert "--device cuda:3" in command_of(config)


def test_defaults_are_left_out() -> None:
    assert shlex.split(command_of(complete())) == [
        *("clp", "run", "--stream", "split-digits", "--strategy", "er"),
        *("--curriculum", "as_given", "--model", "mlp", "--seed", "0"),
    ]
    config = complete(strategy={"name": "er", "memory_size": 5}, optimizer={"lr": 1e-5})
    words = shlex.split(command_of(config))
    assert words.count("--set") == 1
    assert "strategy.memory_size=5" in words
    assert float(words[words.index("--lr") + 1]) == 1e-5


def test_a_plugin_that_is_not_here_has_a_command_all_the_same() -> None:
    config = complete(strategy={"name": "er", "memory_size": 77})
    for section in ("strategy", "stream", "model", "curriculum"):
        gone = {**config, section: {"name": "gone.module:Gone", "size": 5, "odd": [1e-5, "1"]}}
        words = shlex.split(command_of(gone))
        assert words[words.index(f"--{section}") + 1] == "gone.module:Gone"
        settings = words[2:]
        assert f"{section}.size=5" in settings
        data = overridden([], {}, [w for w in words if w.startswith(f"{section}.")])
        assert data[section] == {"size": 5, "odd": [1e-5, "1"]}


RUNS: list[dict[str, Any]] = [
    {"strategy": {"name": "refresh", "inner": {"name": "er", "memory_size": 4}}, "curriculum": [2, 0, 1]},
    {
        "strategy": {"name": "lwf", "alpha": [0.1, 1e-5, 2]},
        "optimizer": {"name": "adamw", "lr": 1e-3, "betas": [0.8, 0.99], "reset": False},
        "schedule": {"name": "steplr", "step_size": 1},
        "curriculum": {"name": "explicit", "level": "classes", "order": [5, 0, 1, 4, 3, 2]},
        "epochs": 2,
        "permute_labels": True,
    },
]  # fmt: skip


@pytest.mark.parametrize("settings", RUNS, ids=["inner", "lists"])
def test_the_command_is_the_same_run(clp: Clp, tmp_path: Path, settings: dict[str, Any]) -> None:
    from cl_platform import run

    stream = {"name": "blobs", "experiences": 3, "samples_per_class": 6}
    made = run(stream, out=tmp_path / "o", seed=3, model={"name": "mlp", "hidden": [4]}, **settings)
    words = shlex.split(command_of(made.config))
    code, out, err = clp(*words[1:], "--out", "o", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == made.to_json()
    assert len(list((tmp_path / "o" / "runs").iterdir())) == 1


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_a_shell_reads_the_words_as_they_are_meant(text: str) -> None:
    command = command_of(complete(strategy={"name": ODD, "text": text, "table": {text: [text]}}))
    script = f"printf '%s\\0' {command}"
    read = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert read.split("\0")[:-1] == shlex.split(command)
