"""Our own side of the comparisons: plans, and runs that write nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.measure import NotMeasured
from cl_platform.config.run_config import parse_config
from cl_platform.core.strategy import Strategy
from cl_platform.core.stream import Stream
from cl_platform.engine.execution import execute
from cl_platform.engine.fold import Fold
from cl_platform.engine.plan import Plan
from cl_platform.engine.planner import Planner, make_plan
from cl_platform.errors import DataError
from cl_platform.models.vision import SmallViT
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers


def plan(
    settings: dict[str, Any], planner: Planner | None = None, **objects: Strategy | Stream
) -> Plan:
    """Return the plan of a configuration, some of whose sections may be objects.

    Args:
        planner: which several plans share, as in a sweep.

    Raises:
        NotMeasured: its data are not here.
    """
    try:
        config = parse_config(settings, tuple(objects))
        return make_plan(config, objects) if planner is None else planner(config)
    except DataError as error:
        raise NotMeasured(str(error)) from error


def thinned(settings: dict[str, Any]) -> Stream:
    """Return the stream of a configuration with a copy of the rows that it uses, and no others.

    Features of a frozen model are computed for all rows of a data set.
    """
    stream = plan(settings).stream
    own = [replace(e, train=e.train.own(), test=e.test.own()) for e in stream.experiences]
    return replace(stream, experiences=tuple(own))


@contextmanager
def vit(shape: tuple[int, int, int]) -> Iterator[dict[str, str]]:
    """Give the section of `small-vit` with weights of a file, for images of a shape.

    So it counts as pretrained. The weights are random, which costs the same.
    """
    torch.manual_seed(0)
    with TemporaryDirectory() as folder:
        path = Path(folder, "vit.pt")
        torch.save(SmallViT(shape, 1).body.state_dict(), path)
        yield {"name": "small-vit", "weights": str(path)}


def run(made: Plan) -> None:
    """Carry out a plan in memory: training, and an evaluation before it and after each experience.

    The plan keeps its prepared test data, so that from the second time on none are prepared.
    """
    execute(made, None)


def fold(made: Plan) -> Fold:
    """Return the fold of a plan, which has not begun to learn and stores nothing."""
    return Fold(made, StateStore(None), Trackers())


def train(begun: Fold) -> None:
    """Learn all experiences of a fold, without evaluations."""
    for _ in begun.plan.steps:
        begun.train()


def inputs(made: Plan, part: str = "train") -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return normalised inputs and labels of each experience, as a loop by hand takes them."""
    parts = [getattr(e, part) for e in made.stream.experiences]
    return [(made.stream.preprocess(p.x), p.y) for p in parts]
