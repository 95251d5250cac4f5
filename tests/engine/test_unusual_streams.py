"""Every registered strategy on streams that real data make and benchmarks do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import cl_platform as clp
from cl_platform import Experience, Samples, Stream
from cl_platform.config.registry import load, plugins
from cl_platform.errors import BadInput
from tests.engine.test_contract import NEEDS

pytestmark = pytest.mark.slow
NAMES = [name for name in plugins("strategy") if name != "l2p-batch-vote"]


def points(c: int, n: int, shift: float = 0.0) -> torch.Tensor:
    """Samples (n, 8) around a corner of their own."""
    generator = torch.Generator().manual_seed(1000 * c + n)
    noise = 0.3 * torch.randn(n, 8, generator=generator)
    return noise + 3 * torch.eye(8)[c] + shift * torch.eye(8)[7 - c]


@cache
def stream(name: str, groups: tuple[tuple[int, ...], ...], sizes: tuple[int, ...] = ()) -> Stream:
    """A stream of given classes per experience, with so many samples of each in training."""
    scenario = name if name in ("task", "domain") else "class"
    experiences = []
    for i, classes in enumerate(groups):
        splits = []
        for n in (sizes[i] if sizes else 20, 0, 6):
            x = torch.cat([points(c, n, shift=i / 4) for c in classes])
            splits.append(Samples.of(x, torch.tensor(classes).repeat_interleave(n)))
        experiences.append(Experience(f"{name} {i}", classes, i, *splits))
    names = tuple("abcdef"[: 1 + max(c for group in groups for c in group)])
    return Stream(name, scenario, tuple(experiences), names)  # type: ignore[arg-type]


PAIRS = ((0, 1), (2, 3), (4, 5))
KINDS: dict[str, Callable[[], Stream]] = {
    "one class each": lambda: stream("single", ((0,), (1,), (2,))),
    "tasks that share classes": lambda: stream("task", ((0, 1),) * 3),
    "domains": lambda: stream("domain", ((0, 1),) * 3),
    "classes that return": lambda: stream("returning", ((0, 1), (2, 3), (0, 2))),
    "uneven and tiny": lambda: stream("uneven", PAIRS, (40, 1, 7)),
}
REFUSED = {
    "icarl": dict.fromkeys(
        ("tasks that share classes", "domains", "classes that return"),
        "icarl needs new classes in every experience",
    ),
    **{
        name: {"domains": "needs the task label at test time"}
        for name in ("lora", "rank-update", "selective", "selective-lora")
    },
}


def learned(name: str, given: Stream, **settings: Any) -> list[float]:
    """Return the accuracy on each of three experiences right after a strategy has learned it."""
    needs = NEEDS.get(name, {})
    if load("strategy", name).needs_task and given.scenario == "class":
        given = replace(given, scenario="task")
    strategy = needs.get("strategy", {"name": name})
    model = needs.get("model", {"name": "mlp", "hidden": [32]})
    lr = {"lr": 0.001 if name == "tag" else 0.1}
    optimizer = {**lr, **settings.get("optimizer", needs.get("optimizer", {}))}
    merged = {"epochs": 8, "model": model, **settings, "optimizer": optimizer}
    matrix = clp.run(given, strategy, out=None, **merged).matrix
    return [matrix[j + 1, j] for j in range(3)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_it_learns_or_says_why_not(name: str, kind: str) -> None:
    given = KINDS[kind]()
    if reason := REFUSED.get(name, {}).get(kind):
        with pytest.raises(BadInput, match=reason):
            learned(name, given)
        return
    found = learned(name, given)
    # Of a single sample nobody knows what can be learned.
    found = found[: 1 if kind.startswith("uneven") else 3]
    assert sum(found) / len(found) > 0.6


@pytest.mark.parametrize("name", ["er", "lwf", "ncm"])
def test_streams_of_300_experiences(name: str, tmp_path: Path) -> None:
    """The search for missing rows took 2.5 s of them, and a heat map 20 GB."""
    x = torch.eye(8)[torch.arange(600) % 8]
    experiences = []
    for i in range(300):
        part = Samples.of(x[2 * i : 2 * i + 2], torch.tensor([0, 1]))
        experiences.append(Experience(str(i), (0, 1), i, part, part.emptied(), part))
    long = Stream("long", "domain", tuple(experiences), ("a", "b"))
    result = clp.run(long, name, model={"name": "mlp", "hidden": [8]}, out=tmp_path)
    assert result.matrix.values.shape == (301, 300)
    assert clp.load_results(tmp_path)["average_accuracy"].notna().all()
