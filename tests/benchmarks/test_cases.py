"""Every case at its smallest size: that it can be measured, and that rivals do the work they claim."""

from __future__ import annotations

import ast
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import benchmarks.cases
from benchmarks import ours
from benchmarks.cases import CASES, evaluation, lanes, long, split_mnist, states, steps
from benchmarks.measure import Effort
from benchmarks.rivals import by_hand
from benchmarks.rivals.by_hand import Problem
from benchmarks.rivals.images import augmented
from benchmarks.rivals.passes import Recorded
from cl_platform.core.strategy import Batch
from strategies.l2p import L2P

TINY = Effort(1, "tiny")
FOLDER = Path(benchmarks.cases.__file__).parent


@pytest.fixture(scope="module")
def problem() -> Problem:
    """Six classes that are easy to tell apart, in three experiences."""
    generator = torch.Generator().manual_seed(0)
    centres = 3 * torch.randn(6, 10, generator=generator)

    def draw(classes: list[int], n: int) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.tensor(classes).repeat(n)
        return centres[y] + torch.randn(len(y), 10, generator=generator), y

    pairs = [[0, 1], [2, 3], [4, 5]]
    tests = [draw(pair, 20) for pair in pairs]
    whole = (torch.cat([x for x, _ in tests]), torch.cat([y for _, y in tests]))
    return Problem([draw(p, 150) for p in pairs], whole, [40] * 3, [16, 16], 10, 30, 0.1, 6)


LOOPS = {
    "plain": by_hand.loop,
    "fused": partial(by_hand.loop, stepper=by_hand.FusedStepper),
    "foreach": partial(by_hand.loop, stepper=by_hand.ForeachStepper),
    "gradients": partial(by_hand.loop, stepper=by_hand.GradientsByHand),
    "reservoir": partial(by_hand.loop, memory=by_hand.Reservoir),
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_by_hand_learns_and_remembers(name: str, problem: Problem) -> None:
    accuracies = LOOPS[name](problem)
    assert len(accuracies) == 3
    assert sum(accuracies[-1]) / 3 > 0.6  # without a memory 1 / 3 at most


def test_steps_by_hand_end_where_those_of_torch_do(problem: Problem) -> None:
    plain = by_hand.loop(problem)
    for name in ("fused", "foreach", "gradients"):  # of the same draws
        torch.testing.assert_close(torch.tensor(LOOPS[name](problem)), torch.tensor(plain))


def test_the_limit_evaluates_and_does_not_learn(problem: Problem) -> None:
    assert len({tuple(row) for row in by_hand.limit(problem)}) == 1


def test_a_memory_that_is_filled_at_the_end_is_balanced(problem: Problem) -> None:
    memory = by_hand.FilledAtTheEnd(problem)
    for x, y in problem.train:
        memory.end(x, y)
    assert memory.y.bincount().tolist() == [5] * 6


def test_augmented_images_are_shifted_or_mirrored_ones() -> None:
    torch.manual_seed(0)
    images = torch.arange(1, 26, dtype=torch.uint8).view(1, 1, 5, 5).repeat(50, 1, 1, 1)
    found = augmented(images)
    assert found.shape == images.shape
    assert len({tuple(image.flatten().tolist()) for image in found}) > 20
    rising = (found.diff(dim=3) == 1).sum((1, 2, 3)), (found.diff(dim=3) == 255).sum((1, 2, 3))
    assert all(count.max() > 0 for count in rising)  # columns in both directions


def test_recorded_passes_are_those_of_the_step() -> None:
    settings = {
        "stream": {"name": "split-digits", "samples": 8},
        "model": "tiny-transformer",
        "strategy": "l2p",
    }
    fold = ours.fold(ours.plan(settings, strategy=L2P(pool_size=5, selected=2, length=3)))
    fold.train()
    strategy = fold.strategy
    x, y = ours.inputs(fold.plan)[0]
    strategy.train()
    strategy.optimizer = torch.optim.SGD(strategy.parameters(), 0.1)
    features = strategy.model.features(x).detach()
    recorded = Recorded(strategy, [Batch(x, y, None, x, features=features)], 0.1)
    assert recorded.embedded == 1
    (call,) = recorded.calls
    assert call.gradient
    patches = strategy.model.embed(x).values.shape[1]
    assert call.tokens.values.shape[1] == patches + 2 * 3
    assert recorded.seconds() > 0


def test_the_smallest_run_compares_all_ways_but_avalanches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_mnist, "STREAM", "split-digits")
    monkeypatch.setattr(split_mnist, "COLUMNS", split_mnist.COLUMNS[2:])
    monkeypatch.setattr(split_mnist, "avalanche_ways", lambda *_: {})
    rows = split_mnist.measure(TINY)
    assert {row.what for row in rows} >= {"by hand", "ours, reservoir", "ours, balanced"}
    assert all(row.values[0] > 0 for row in rows)


@pytest.mark.parametrize("module", [evaluation, states])
def test_the_smallest_cases_can_be_measured(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STREAM", "split-digits")
    rows = module.measure(TINY)
    assert rows
    assert all(value > 0 for row in rows for value in row.values)


def test_a_long_stream_can_be_measured() -> None:
    rows = long.measure(TINY)
    assert {row.what for row in rows} == {"late slices", "more memory"}
    assert all(row.values for row in rows)


def test_lanes_are_compared_with_separate_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "STREAM", "split-digits")
    assert {row.setting for row in lanes.measure(TINY)} == {"1 seeds", "2 seeds"}


def test_every_strategy_has_figures_or_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "STREAM", "split-digits")
    found = list(steps.measured("mlp", "mlp", steps.COUNTED[:1], 1, 1))
    assert found[0].values[0] > 0
    assert not steps.forgotten()


def test_every_case_has_a_title_a_text_and_what_measures_it() -> None:
    for name in CASES:  # read, not imported: some need Ray
        path = FOLDER / f"{name.replace('-', '_')}.py"
        tree = ast.parse(path.read_text())
        title, _, text = (ast.get_docstring(tree) or "").partition("\n")
        assert title.endswith("."), path
        assert text.strip(), path
        assert "measure" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
