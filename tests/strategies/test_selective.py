"""Where experiences start, by rules and by scores."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import cl_platform as clp
from cl_platform.config.run_config import parse_config
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.errors import BadInput
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers

STREAM = {"name": "related", "relation": "mixed", "datasets": ["digits", "digits"], "classes": 3}
BLOBS = {"name": "blobs", "experiences": 3, "samples_per_class": 20, "scenario": "task"}
NETWORKS = {"model": {"name": "mlp", "hidden": [16]}, "epochs": 2, "batch_size": 32}
ADAPTERS = {"model": "tiny-transformer", "optimizer": {"name": "adam", "lr": 0.01}}
KINDS = {
    "selective": ("finetune", NETWORKS | {"stream": {**STREAM, "samples": 60}}),
    "selective-lora": ("lora", ADAPTERS | {"stream": BLOBS}),
}


def learned(strategy: Any, upto: int = 3, **settings: Any) -> Fold:
    kind = strategy["name"] if isinstance(strategy, dict) else strategy
    given = next((s for name, (plain, s) in KINDS.items() if kind in (name, plain)), {})
    data = {**given, "strategy": strategy, **settings}
    fold = Fold(make_plan(parse_config(data)), StateStore(None), Trackers())
    fold.run(upto)
    return fold


def starting(kind: str, start: Any, **settings: Any) -> Fold:
    return learned({"name": kind, "start_from": start, **settings.pop("more", {})}, **settings)


def assert_same(first: torch.nn.Module, second: torch.nn.Module) -> None:
    both = first.state_dict(), second.state_dict()
    assert both[0].keys() == both[1].keys()
    for name, value in both[0].items():
        assert torch.equal(value, both[1][name]), name


def test_from_the_last_is_fine_tuning_to_the_bit() -> None:
    networks = starting("selective", "last").strategy.networks
    for k in (1, 2, 3):
        assert_same(networks[k - 1], learned("finetune", k).strategy.model)


def test_from_the_base_is_lora_to_the_bit() -> None:
    first, second = starting("selective-lora", "base").strategy, learned("lora").strategy
    assert_same(first.heads, second.heads)
    assert_same(first.adapters, second.adapters)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", ["base", "last", "logme", "accuracy", "oracle"])
def test_where_there_is_one_candidate_there_is_no_choice(kind: str, rule: str) -> None:
    strategy = starting(kind, rule, upto=1).strategy
    plain = learned(KINDS[kind][0], 1).strategy
    present = plain.model if kind == "selective" else torch.nn.ModuleList(
        [plain.heads[0], plain.adapters[0]]
    )  # fmt: skip
    assert_same(strategy.parts(0), present)
    assert strategy.diagnostics() == {"start": [-1]}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", ["logme", "accuracy", "oracle"])
def test_choosing_leaves_no_trace_but_the_choice(kind: str, rule: str) -> None:
    chosen = starting(kind, rule)
    starts, scores = (chosen.strategy.diagnostics()[name] for name in ("start", "start_scores"))
    assert len(scores) == 3
    assert starts[2] == max(range(3), key=lambda i: scores[i]) - 1
    given = starting(kind, ["base" if start < 0 else int(start) for start in starts])
    assert_same(chosen.strategy, given.strategy)
    assert [record.rows for record in chosen.records] == [record.rows for record in given.records]


def test_the_oracle_knows_what_training_leads_to() -> None:
    settings = {"augmentation": None, "optimizer": {"name": "adam", "lr": 0.01}}
    oracle = starting("selective", ["base", "last", "oracle"], **settings)
    task, name = 2, oracle.plan.stream[2].identity
    reached = []
    for start in ("base", 0, 1):
        fold = starting("selective", ["base", "last", start], **settings)
        reached.append(fold.records[3].rows["validation"]["task"][name])
    assert oracle.strategy.scores == pytest.approx(reached)
    assert len(set(reached)) > 1
    assert oracle.records[3].rows["validation"]["task"][name] == max(reached)
    assert oracle.strategy.learned[task] == task


def test_rotated_labels_mislead_and_a_few_steps_show_it() -> None:
    adam = {"name": "adam", "lr": 0.001}
    stream = {**STREAM, "relation": "negative", "classes": 5, "samples": 100}
    settings = {"stream": stream, "epochs": 5, "optimizer": adam, "batch_size": 10}
    settings["model"] = {"name": "mlp", "hidden": [64]}
    ends = {}
    for rule in ("base", "last", "accuracy"):
        fold = starting("selective", rule, **settings)
        rows = fold.records[3].rows["validation"]["task"]
        ends[rule] = sum(rows.values())
    assert ends["last"] < ends["base"] == ends["accuracy"]
    assert fold.strategy.diagnostics()["start"] == [-1, -1, -1]


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        (
            ["base", 1, "base"],
            "item 1 is 1: experience 1 starts from base or the number of one before it, at most 0",
        ),
        ([0, 0, 0], "item 0 is 0: experience 0 starts from base"),
        (["base", 0], "has 2 items, but the stream has 3 experiences"),
        (["base", -1, 0], "greater than or equal to 0"),
        ("first", "base"),
        (0, "base"),
    ],
)
def test_impossible_starts_are_refused_at_planning(starts: Any, message: str) -> None:
    data = {"stream": BLOBS, "strategy": {"name": "selective", "start_from": starts}}
    with pytest.raises(clp.ClpError, match=message) as caught:
        make_plan(parse_config(data))
    assert len(str(caught.value)) < 500


class Plain(torch.nn.Module):
    """A model that shows no features."""

    def __init__(self, input_shape: tuple[int, ...], n_classes: int) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(input_shape[0], n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(x)
        return logits


def test_logme_needs_features() -> None:
    data = {"stream": BLOBS, "model": f"{__name__}:Plain", "strategy": "selective"}
    Fold(make_plan(parse_config(data)), StateStore(None), Trackers()).run(1)
    data["strategy"] = {"name": "selective", "start_from": "logme"}
    with pytest.raises(BadInput, match="needs the features of a model, and Plain shows none"):
        Fold(make_plan(parse_config(data)), StateStore(None), Trackers())


def test_one_model_per_task_is_not_refreshed() -> None:
    with pytest.raises(BadInput, match="Selective has a model per task"):
        learned({"name": "refresh", "inner": "selective"}, 0, **NETWORKS, stream=BLOBS)
