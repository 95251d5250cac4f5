"""The mask of frozen transformers over the classes of an experience, where that has a single one."""

from __future__ import annotations

from typing import Any

import pytest

from cl_platform.config.run_config import parse_config
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.errors import ConfigError
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers

BLOCKS = {"general_blocks": [0], "expert_blocks": [1]}
STRATEGIES: tuple[dict[str, Any], ...] = (
    {"name": "l2p"},
    {"name": "l2p-lora"},
    {"name": "seq-lora"},
    {"name": "o-lora"},
    {"name": "dualprompt", **BLOCKS},
    {"name": "oneprompt", **BLOCKS},
    {"name": "coda-prompt", "blocks": [0, 1], "components": 6},
    {"name": "s-prompts", "shared_head": True},
)
each = pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: s["name"])


def config(strategy: dict[str, Any], classes: int) -> Any:
    stream = {"name": "blobs", "experiences": 3, "classes_per_experience": classes}
    stream["samples_per_class"] = 32
    settings = {"model": "tiny-transformer", "optimizer": {"name": "adam", "lr": 0.01}, "epochs": 1}
    return parse_config({"strategy": strategy, "stream": stream, **settings})


@each
def test_a_single_class_is_learned_by_default(strategy: dict[str, Any]) -> None:
    fold = Fold(make_plan(config(strategy, 1)), StateStore(None), Trackers())
    fold.train()
    head = fold.strategy.head
    assert head.weight.abs().max() > 0  # the head starts at zero, and stayed there
    assert head.bias.argmax() == 0


@each
def test_a_mask_that_leaves_nothing_to_learn_is_refused_when_planned(
    strategy: dict[str, Any],
) -> None:
    with pytest.raises(ConfigError, match=r"train_mask=true.*single class.*give false"):
        make_plan(config({**strategy, "train_mask": True}, 1))
    make_plan(config({**strategy, "train_mask": True}, 2))


def test_otherwise_the_mask_is_on_by_default() -> None:
    masks = {}
    for given in (None, True, False):
        strategy = {**STRATEGIES[0], "train_mask": given}
        fold = Fold(make_plan(config(strategy, 2)), StateStore(None), Trackers())
        masks[given] = fold.strategy.masks
    assert masks == {None: True, True: True, False: False}
