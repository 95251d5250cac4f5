"""Open streams: what arrives is numbered as it arrives, states grow, and keys know of nothing later."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cl_platform import ReplayBuffer, Stream, StreamInfo
from cl_platform.config.run_config import parse_config
from cl_platform.core.buffers import RingBuffer
from cl_platform.core.strategy import Batch
from cl_platform.engine.fold import Fold
from cl_platform.engine.plan import Plan
from cl_platform.engine.planner import Planner, make_plan
from cl_platform.errors import ConfigError, ContractError
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.er import ER

BLOBS = {"name": "blobs", "experiences": 3, "samples_per_class": 20, "open": True}
SMALL = {"name": "mlp", "hidden": [8]}


def plan_of(strategy: Any = "er", order: Any = "as_given", **stream: Any) -> Plan:
    config = {"stream": {**BLOBS, **stream}, "strategy": strategy, "model": SMALL}
    return make_plan(parse_config({**config, "curriculum": order}))


def trained(plan: Plan, upto: int | None = None) -> Fold:
    fold = Fold(plan, StateStore(None), Trackers())
    fold.run(upto)
    return fold


def test_classes_and_tasks_are_numbered_as_they_arrive() -> None:
    plan = plan_of(order=[2, 0, 1])
    assert [e.classes for e in plan.stream.experiences] == [(0, 1), (2, 3), (4, 5)]
    assert [e.task for e in plan.stream.experiences] == [0, 1, 2]
    assert plan.stream.class_names[:2] == ("blob 4", "blob 5")
    assert plan.labels == (2, 3, 4, 5, 0, 1)


def test_a_key_does_not_depend_on_what_comes_later() -> None:
    long, short = plan_of(), plan_of(experiences=2)
    different = plan_of(experiences=2, samples_per_class=21)
    assert long.keys[:3] != different.keys[:3]
    # The data of `blobs` depend on their number: take the same data, and leave the last out.
    stream = Planner().stream(long.config)
    less = Stream(
        "less",
        "class",
        stream.experiences[:2],
        stream.class_names[:4],
        stream.preprocess,
        open=True,
    )
    config = parse_config({"stream": {"name": "less"}, "model": SMALL}, given=("stream",))
    assert make_plan(config, {"stream": less}).keys == long.keys[:3]
    assert short.keys[0] == long.keys[0]  # of two classes in either


def test_an_open_run_shares_its_beginning_with_other_orders() -> None:
    one, other = plan_of(order=[1, 0, 2]), plan_of(order=[1, 2, 0])
    assert one.keys[:2] == other.keys[:2]
    assert one.keys[2] != other.keys[2]


def test_a_strategy_sees_no_more_than_has_arrived() -> None:
    seen = []

    class Looking(ER):
        def setup(self, info: StreamInfo) -> None:
            super().setup(info)
            seen.append((info.n_classes, info.n_experiences, tuple(info.task_classes.shape)))

    config = parse_config({"stream": BLOBS, "strategy": "er", "model": SMALL})
    trained(make_plan(config, {"strategy": Looking()}))
    assert seen == [(2, 1, (1, 2)), (4, 2, (2, 4)), (6, 3, (3, 6))]


@pytest.mark.parametrize("strategy", ["er", "ewc", "der++", "icarl", "lwf"])
def test_resuming_an_open_run_gives_the_same_bits(strategy: str, tmp_path: Any) -> None:
    plan = plan_of(strategy)
    whole = trained(plan).strategy.state_dict()
    store = StateStore(tmp_path)
    Fold(plan, store, Trackers()).run(upto=2)
    rest = Fold(plan, store, Trackers())
    rest.run()
    assert rest.trained == 1
    for key, value in rest.strategy.state_dict().items():
        assert torch.equal(value, whole[key]) if torch.is_tensor(value) else value == whole[key]


def test_flat_vectors_grow_weight_by_weight() -> None:
    fold = trained(plan_of("ewc"), upto=1)
    before = fold.strategy.penalty.importance.clone()  # type: ignore[operator, union-attr]
    rows = fold.strategy.model.classifier.weight.numel()  # type: ignore[operator, union-attr]
    fold.grow(2)
    after = fold.strategy.penalty.importance  # type: ignore[union-attr]
    hidden = len(before) - rows - 2
    width = rows // 2
    assert torch.equal(after[:hidden], before[:hidden])  # type: ignore[index]
    head = after[hidden : hidden + 4 * width].view(4, width)  # type: ignore[index]
    assert torch.equal(head[:2], before[hidden : hidden + rows].view(2, width))
    assert not head[2:].any()


def test_the_latest_samples_of_a_ring_stay_when_shares_shrink() -> None:
    info = plan_of().info(Fold(plan_of(), StateStore(None), Trackers()).rng, 3)
    before = RingBuffer(6, plan_of().info(info.rng, 2), by="experience")  # shares of 3
    for numbers in ([0, 1, 2, 3], [4]):
        before.make_room(())
        raw = torch.tensor(numbers, dtype=torch.float32)[:, None].expand(-1, *info.input_shape)
        before.add(Batch(raw, torch.zeros(len(numbers), dtype=torch.int64), None, raw))
    after = RingBuffer(6, info, by="experience")  # shares of 2
    after.load_state_dict(after.grow_state({**before.state_dict()}))

    def values(ring: RingBuffer, g: int) -> list[float]:
        return sorted(ring.x[ring.group(g)][:, 0].tolist())

    assert values(before, 0) == [1, 2, 3]
    assert values(after, 0) == [2, 3]
    assert values(after, 1) == [4]
    after.make_room(())
    raw = torch.full((1, *info.input_shape), 5.0)
    after.add(Batch(raw, torch.zeros(1, dtype=torch.int64), None, raw))
    assert values(after, 2) == [5]


class Keeper(ER):
    """Keeps a vector whose length has to do with neither classes nor experiences."""

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        self.odd = torch.nn.Buffer(torch.zeros(10 * info.n_classes + 1))


def test_a_shape_that_nothing_explains_is_refused() -> None:
    config = parse_config({"stream": BLOBS, "strategy": "er", "model": SMALL})
    with pytest.raises(ContractError, match=r"Keeper cannot grow 'odd' from \(21,\) to \(41,\)"):
        trained(make_plan(config, {"strategy": Keeper()}))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"strategy": "joint"}, "trains on the whole stream at once"),
        ({"strategy": "coda-prompt"}, "known number of experiences"),
        ({"permute_labels": True}, "numbers its classes as they arrive"),
    ],
)
def test_what_needs_an_end_is_refused_at_planning(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        make_plan(parse_config({"stream": BLOBS, "model": SMALL, **settings}))


def test_tasks_that_have_not_arrived_are_at_chance() -> None:
    fold = trained(plan_of("rank-update", scenario="task", samples_per_class=200))
    rows = [record.rows["test"]["task"] for record in fold.records]
    names = [e.identity for e in fold.plan.stream.experiences]
    assert rows[1][names[1]] == rows[1][names[2]] == 0.5
    assert rows[3][names[2]] > 0.5


def test_a_memory_knows_which_logits_are_missing() -> None:
    fold = trained(plan_of("der"), upto=1)
    fold.grow(2)
    buffer = fold.strategy.buffer
    assert isinstance(buffer, ReplayBuffer)
    stored = buffer.get_buffer("extra_logits")[: len(buffer)]
    assert stored[:, :2].isfinite().all()
    assert stored[:, 2:].isinf().all()
