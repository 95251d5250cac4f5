"""What memories hold after several epochs."""

from __future__ import annotations

import pytest

from cl_platform import Batch, Chunk
from cl_platform.config.run_config import parse_config
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers

BLOBS = {"name": "blobs", "experiences": 2, "samples_per_class": 20}  # 40 samples in each
MEMORIES = [{"name": "er", "memory": kind} for kind in ("reservoir", "balanced", "ring")]
OTHERS = ["er-ace", "mir", "gss", "gdumb", "a-gem", "gem"]


def held_after(epochs: int, strategy: dict) -> tuple[int, int]:
    """How many samples a memory with room for all and more holds, and how many different ones."""
    data = {"stream": BLOBS, "model": {"name": "mlp", "hidden": [8]}, "epochs": epochs}
    config = parse_config({**data, "strategy": {**strategy, "memory_size": 100}})
    fold = Fold(make_plan(config), StateStore(None), Trackers())
    fold.train()
    fold.train()
    buffer = fold.strategy.buffer
    return len(buffer), len(buffer.x[buffer.rows()].unique(dim=0))


@pytest.mark.parametrize("strategy", [*MEMORIES, *({"name": name} for name in OTHERS)], ids=str)
def test_a_memory_with_room_for_all_holds_each_sample_once(strategy: dict) -> None:
    assert held_after(3, strategy) == (80, 80)


def test_every_epoch_may_offer_its_samples_again() -> None:
    assert held_after(3, {"name": "er", "offer": "every-epoch"})[0] == 100


@pytest.mark.parametrize("name", ["der", "der++"])
def test_logits_are_stored_anew_in_every_epoch_by_default(name: str) -> None:
    assert held_after(3, {"name": name})[0] == 100
    assert held_after(3, {"name": name, "offer": "once"}) == (80, 80)


def test_offered_at_the_end_a_memory_replays_past_experiences_only() -> None:
    settings = {"name": "er", "memory_size": 30, "offer": "experience-end"}
    stream = {"name": "blobs", "experiences": 3, "samples_per_class": 20}
    fold = Fold(
        make_plan(parse_config({"stream": stream, "strategy": settings})),
        StateStore(None),
        Trackers(),
    )
    replayed: list[set[int]] = []
    prepare = fold.strategy.prepare_batches

    def watched(chunk: Chunk) -> list[Batch]:
        batches = list(prepare(chunk))
        replayed.append({int(y) for batch in batches for y in batch.old.y})
        return batches

    fold.strategy.prepare_batches = watched  # type: ignore[method-assign]
    for classes in ([], [0, 1], [0, 1, 2, 3]):
        replayed.clear()
        fold.train()
        assert set().union(*replayed) == {*classes}
    assert fold.strategy.buffer.seen == 120
