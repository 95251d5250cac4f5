"""S-Prompts: experiences that leave each other alone, and inputs that find theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

import cl_platform as clp
from cl_platform import Batch
from cl_platform.config.run_config import parse_config
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.parts.centroids import Centroids
from strategies.s_prompts import SPrompts
from tests.helpers.hand_made import stream_of

STREAM = {"name": "split-digits", "samples": 60}
TINY: dict[str, Any] = {
    "model": "tiny-transformer",
    "optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.1},  # would move what has no loss
    "epochs": 3,
}


def fold_of(strategy: SPrompts, steps: int = 1, stream: Any = STREAM, **settings: Any) -> Fold:
    config = parse_config({"stream": stream, **TINY, **settings}, ("strategy",))
    fold = Fold(make_plan(config, {"strategy": strategy}), StateStore(None), Trackers())
    for _ in range(steps):
        fold.train()
    fold.strategy.eval()
    return fold


def data(fold: Fold, step: int) -> Batch:
    return next(fold.strategy.batches(fold.shown(fold.plan.steps[step].experience)))


def cloud(centre: list[float], n: int = 30, seed: int = 0) -> Tensor:
    noise = torch.randn(n, len(centre), generator=torch.Generator().manual_seed(seed))
    return torch.tensor(centre) + 0.1 * noise


def test_an_input_is_of_the_experience_whose_centroid_is_nearest() -> None:
    clouds = {2: cloud([5, 0, 0]), 0: torch.cat([cloud([0, 1, 0]), cloud([0, 0, -9])])}
    centroids = Centroids(3, 3, k=2)
    for place, features in clouds.items():
        centroids.add(place, features)
    for place, features in clouds.items():
        assert centroids.nearest(3 * features).tolist() == [place] * len(features)
    points, owners = cloud([1, 1, 1], seed=1), [0, 0, 2, 2]
    stored = centroids.means[[0, 2]].flatten(0, 1)
    distances = [[float((normalize(p, dim=0) - c).norm()) for c in stored] for p in points]
    expected = [owners[int(np.argmin(row))] for row in distances]
    assert centroids.nearest(points).tolist() == expected
    assert set(expected) == {0, 2}


def test_two_tight_clouds_have_their_means_as_centroids() -> None:
    parts = [cloud([4, 0, 0]), cloud([0, 4, 0])]
    centroids = Centroids(1, 3, k=2)
    centroids.add(0, torch.cat(parts))
    means = torch.stack([normalize(part, dim=1).mean(0) for part in parts])
    found = centroids.means[0]
    found = found[found[:, 0].argsort(descending=True)]
    assert torch.allclose(found, means, atol=1e-6)


def test_what_was_not_added_is_no_candidate() -> None:
    centroids = Centroids(3, 3)
    assert centroids.nearest(cloud([0, 0, 0])).tolist() == [0] * 30
    centroids.add(1, cloud([1, 0, 0]))
    assert centroids.nearest(cloud([0, 0, 0])).tolist() == [1] * 30


@pytest.mark.parametrize("features", [cloud([1, 2, 3], n=3), torch.ones(20, 3)])
def test_fewer_points_than_centroids_are_enough(features: Tensor) -> None:
    centroids = Centroids(2, 3, k=5)
    centroids.add(0, features)
    centroids.add(1, -features)
    assert set(centroids.nearest(features).tolist()) == {0}
    assert torch.isfinite(centroids.means).all()


def test_an_experience_changes_only_what_is_its_own() -> None:
    fold = fold_of(SPrompts())
    before = {k: v.clone() for k, v in fold.strategy.state_dict().items()}
    fold.train()
    after = fold.strategy.state_dict()
    changed = {k for k, v in after.items() if not torch.equal(v, before[k])}
    own = {"prompts.1", "heads.1.weight", "heads.1.bias", "classes", "recognised"}
    assert changed == own | {"selector.means", "selector.known"}
    for name in ("classes", "recognised", "selector.means", "selector.known"):
        others = [0, 2, 3, 4]
        assert torch.equal(after[name][others], before[name][others])


def test_the_loss_is_that_of_its_own_prompt_and_classifier() -> None:
    fold = fold_of(SPrompts(length=3), steps=2)
    strategy, batch = fold.strategy, data(fold, 1)
    assert isinstance(strategy, SPrompts)
    model, classes = strategy.model, list(fold.plan.steps[1].experience.classes)
    tokens = model.embed(batch.x).values
    prompts = strategy.prompts[1].expand(len(tokens), -1, -1)
    # The class token comes first again if the prompt comes last.
    feature = model.blocks(type(model.embed(batch.x))(torch.cat([tokens, prompts], 1)))[:, 0]
    logits = feature @ strategy.heads[1].weight[classes].T + strategy.heads[1].bias[classes]
    expected = cross_entropy(logits, torch.searchsorted(torch.tensor(classes), batch.y))
    assert torch.allclose(strategy.loss(batch), expected, atol=1e-5)


@pytest.mark.parametrize("shared_head", [False, True])
def test_a_batch_is_answered_sample_by_sample(shared_head: bool) -> None:
    fold = fold_of(SPrompts(shared_head=shared_head), steps=3)
    strategy = fold.strategy
    assert isinstance(strategy, SPrompts)
    x = torch.cat([data(fold, step).x[:22] for step in range(3)])
    with torch.no_grad():
        places = strategy.selector.nearest(strategy.model.features(x))
        assert len(set(places.tolist())) == 3
        whole = strategy(x)
        for i, place in enumerate(places.tolist()):
            feature = strategy.represent(x[i : i + 1], strategy.prompts[place])
            head = strategy.head if shared_head else strategy.heads[place]
            expected, allowed = head(feature)[0], slice(None)
            if not shared_head:
                allowed = strategy.classes[place]
                assert whole[i].argsort(descending=True)[:2].sort().values.tolist() == (
                    allowed.nonzero()[:, 0].tolist()
                )
            assert torch.allclose(whole[i, allowed], expected[allowed], atol=1e-4)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        assert torch.allclose(strategy(x[order]), whole[order], atol=1e-4)
        for size in (1, 7, 64):
            parts = torch.cat([strategy(part) for part in x.split(size)])
            assert torch.equal(parts.argmax(1), whole.argmax(1))


@pytest.mark.parametrize("order", [[2, 0, 1], [0, 1, 2]])
def test_places_are_those_of_the_order(order: list[int]) -> None:
    stream = stream_of(
        [[0, 9], [1, 9], [9, 0], [9, 1], [-9, 0], [-9, 1]], [[0, 1], [2, 3], [4, 5]], n=50
    )
    config = parse_config(
        {**TINY, "curriculum": {"name": "explicit", "order": order}}, ("strategy", "stream")
    )
    plan = make_plan(config, {"strategy": SPrompts(), "stream": stream})
    fold = Fold(plan, StateStore(None), Trackers())
    for _ in order:
        fold.train()
    strategy = fold.strategy
    assert isinstance(strategy, SPrompts)
    found = [row.nonzero()[:, 0].tolist() for row in strategy.classes]
    assert found == [[2 * task, 2 * task + 1] for task in order]
    assert strategy.diagnostics()["recognised"] == 1.0


def test_experiences_apart_are_remembered_in_full() -> None:
    """What is learned later changes an answer only if the input is taken for the later one's."""
    stream = stream_of(
        [[0, 9], [3, 9], [9, 0], [9, 3], [-9, 0], [-9, 3]], [[0, 1], [2, 3], [4, 5]], n=100
    )
    result = clp.run(stream, SPrompts(), out=None, **{**TINY, "epochs": 10})
    values = result.matrix.values
    assert [values[j + 1, j] for j in range(3)] == values[-1].tolist()
    assert values[-1].mean() > 0.9


@pytest.mark.parametrize("scenario", ["class", "task"])
def test_a_run_that_goes_on_from_a_state_has_the_centroids_of_all(
    tmp_path: Path, scenario: str
) -> None:
    stream = {**STREAM, "scenario": scenario}
    undisturbed = fold_of(SPrompts(), steps=5, stream=stream).strategy.state_dict()
    plan = make_plan(parse_config({"stream": stream, **TINY, "strategy": "s-prompts"}))
    store = StateStore(tmp_path)
    first = Fold(plan, store, Trackers())
    for _ in range(3):
        first.train()
    again = Fold(plan, store, Trackers())
    again.run()
    assert again.trained == 2
    found = again.strategy.state_dict()
    assert all(torch.equal(found[name], undisturbed[name]) for name in undisturbed)


def test_domains_have_classifiers_of_their_own() -> None:
    stream = {"name": "rotated-digits", "experiences": 3}
    fold = fold_of(SPrompts(), steps=3, stream=stream, epochs=1)
    strategy = fold.strategy
    assert isinstance(strategy, SPrompts)
    assert strategy.classes.all()
    logits = strategy(data(fold, 0).x)
    assert logits.min() > torch.finfo(logits.dtype).min
