"""Pools of prompts: what is selected, what learns, and what a batch must not give away."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

import cl_platform as clp
from cl_platform import Batch
from cl_platform.config.run_config import parse_config
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.errors import ClpError
from cl_platform.models.backbone import Backbone, Projection, Tokens
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.l2p import L2P, L2PBatchVote

STREAM = {"name": "split-digits", "samples": 60}
SETTINGS: dict[str, Any] = {
    "model": "tiny-transformer",
    "optimizer": {"name": "adam", "lr": 0.01},
    "epochs": 3,
}


class Events:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def emit(self, event: dict[str, Any]) -> None:
        self.seen.append(event)

    def close(self) -> None:
        pass


def fold_of(strategy: L2P, steps: int = 1, **settings: Any) -> Fold:
    config = parse_config({"stream": STREAM, **SETTINGS, **settings}, ("strategy",))
    events = Events()
    fold = Fold(make_plan(config, {"strategy": strategy}), StateStore(None), Trackers([events]))
    fold.events = events.seen  # type: ignore[attr-defined]
    for _ in range(steps):
        fold.train()
    fold.strategy.eval()
    return fold


def a_batch(fold: Fold, size: int = 64) -> Batch:
    batch = next(fold.strategy.batches(fold.plan.steps[0].experience, size))
    noise = torch.randn(batch.x.shape, generator=torch.Generator().manual_seed(3))
    return Batch(3 * noise, batch.y, None, batch.raw)


def spread(strategy: L2P) -> None:
    """Prompts and keys as different as after long training."""
    for values in (strategy.prompts, strategy.keys):
        nn.init.normal_(values, generator=torch.Generator().manual_seed(0))


class Wide(Backbone):
    """As wide as a ViT-B, and nothing else."""

    width, depth = 768, 12

    def __init__(self, input_shape: tuple[int, ...], n_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(768, n_classes)

    def embed(self, x: Tensor) -> Tokens:
        return Tokens(x.new_zeros(len(x), 1, 768))

    def blocks(self, tokens: Tokens) -> Tensor:
        return tokens.values

    def pool(self, tokens: Tokens) -> Tensor:
        return tokens.values[:, 0]

    def projections(self) -> dict[str, Projection]:
        return {}


@pytest.mark.parametrize(("size", "expected"), [(10, 46_080), (20, 92_160)])
def test_prompts_and_keys_are_as_many_as_published(size: int, expected: int) -> None:
    config = parse_config({"stream": STREAM}, ("strategy", "model"))
    plan = make_plan(config, {"strategy": L2P(pool_size=size, length=5), "model": Wide})
    strategy = Fold(plan, StateStore(None), Trackers()).strategy
    assert isinstance(strategy, L2P)
    assert strategy.prompts.numel() + strategy.keys.numel() == expected


def test_the_loss_is_the_papers() -> None:
    fold = fold_of(L2P(pool_size=6, selected=2, length=3, pull=0.7))
    strategy, batch = fold.strategy, a_batch(fold, 8)
    assert isinstance(strategy, L2P)
    total = 0.0
    for x, y in zip(batch.x, batch.y, strict=True):
        query = strategy.model.features(x[None])[0]
        cosines = normalize(strategy.keys, dim=1) @ (query / query.norm())
        chosen = cosines.argsort(descending=True)[:2]
        tokens = strategy.model.embed(x[None])
        tokens = tokens.prepend(torch.cat([strategy.prompts[i] for i in chosen]))
        seen = strategy.model.encode(tokens).values[0, :6].mean(0)
        logits = strategy.head(seen)
        assert set(batch.y.tolist()) <= {0, 1}
        total += (cross_entropy(logits[:2], y) - 0.7 * cosines[chosen].sum()).item()
    assert math.isclose(strategy.loss(batch).item(), total / 8, rel_tol=1e-4)


def test_only_what_was_selected_has_a_gradient() -> None:
    fold = fold_of(L2P(pool_size=12, selected=2))
    strategy, batch = fold.strategy, a_batch(fold)
    assert isinstance(strategy, L2P)
    spread(strategy)
    chosen = strategy.choose(strategy.similarity(strategy.query(batch.x, None))).unique()
    assert 2 < len(chosen) < 12
    strategy.zero_grad()
    strategy.loss(batch).backward()
    others = [i for i in range(12) if i not in chosen.tolist()]
    for values in (strategy.prompts, strategy.keys):
        assert values.grad is not None
        assert torch.equal(values.grad[others], torch.zeros_like(values.grad[others]))
        assert all(values.grad[i].abs().sum() > 0 for i in chosen)


def test_a_sample_is_predicted_alike_in_every_batch() -> None:
    fold = fold_of(L2P(pool_size=12, selected=2), steps=2)
    assert isinstance(fold.strategy, L2P)
    spread(fold.strategy)
    x = a_batch(fold).x
    with torch.no_grad():
        whole = fold.strategy(x)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        assert torch.allclose(fold.strategy(x[order]), whole[order], atol=1e-5)
        for size in (1, 7):
            parts = torch.cat([fold.strategy(part) for part in x.split(size)])
            assert torch.equal(parts.argmax(1), whole.argmax(1))
            assert torch.allclose(parts, whole, atol=1e-5)


def test_the_vote_of_a_batch_depends_on_it_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    fold = fold_of(L2PBatchVote(pool_size=12, selected=2), steps=2)
    assert "l2p-batch-vote: predictions depend on the other" in capsys.readouterr().err
    strategy, x = fold.strategy, a_batch(fold).x
    assert isinstance(strategy, L2PBatchVote)
    spread(strategy)
    similarity = strategy.similarity(strategy.query(x, None))
    elected = strategy.choose(similarity)
    assert len(elected.unique(dim=0)) == 1
    counts = similarity.topk(2, dim=1).indices.flatten().bincount(minlength=12)
    assert sorted(counts[elected[0]].tolist()) == sorted(counts.tolist())[-2:]
    with torch.no_grad():
        alone = torch.cat([strategy(part) for part in x.split(1)])
        assert not torch.allclose(alone, strategy(x), atol=1e-3)


def test_under_the_mask_an_experience_trains_its_own_items() -> None:
    fold = fold_of(L2P(pool_size=4, selected=2, item_mask=True), steps=0)
    strategy = fold.strategy
    assert isinstance(strategy, L2P)
    before = strategy.prompts.detach().clone()
    for own in ([0, 1], [2, 3], None):
        fold.train()
        moved = (strategy.prompts.detach() - before).flatten(1).abs().sum(1) > 0
        if own is not None:
            assert moved.nonzero().flatten().tolist() == own
        else:  # there are none left: queries decide
            assert moved.any()
        before = strategy.prompts.detach().clone()


def test_items_may_start_as_those_of_the_experience_before() -> None:
    fold = fold_of(L2P(pool_size=6, selected=2, item_mask=True, copy_items=True), steps=1)
    strategy = fold.strategy
    assert isinstance(strategy, L2P)
    learned = strategy.prompts[:2].detach().clone()
    fold.rng.restart(2)
    strategy.begin_experience(fold.plan.steps[1].experience)
    assert torch.equal(strategy.prompts[2:4], learned)
    assert torch.equal(strategy.prompts[:2], learned)


def test_how_often_items_are_used_is_told_and_kept() -> None:
    fold = fold_of(L2P(pool_size=7, selected=3), steps=2)
    strategy = fold.strategy
    assert isinstance(strategy, L2P)
    told = [e for e in fold.events if e["event"] == "diagnosed"]  # type: ignore[attr-defined]
    assert [e["step"] for e in told] == [1, 2]
    for k, event in enumerate(told):
        batches = strategy.batches(fold.plan.steps[k].experience)
        assert int(strategy.usage[k].sum()) == 3 * sum(map(len, batches))
        shares = event["values"]["pool_usage"]
        assert np.allclose(shares, strategy.usage[k] / strategy.usage[k].sum())
    assert not strategy.usage[2:].any()


def test_classes_compete_within_their_experience_unless_told_otherwise() -> None:
    for mask, free in ((True, False), (False, True)):
        fold = fold_of(L2P(train_mask=mask), steps=1)
        assert bool(fold.strategy.head.weight[2:].any()) is free  # type: ignore[union-attr]


def test_the_gradient_is_clipped() -> None:
    assert L2P.clip_norm == 1.0  # as in the authors' code
    fold = fold_of(L2P(), steps=1, clip_norm=0.001)
    strategy = fold.strategy
    strategy.training_step(a_batch(fold))
    total = sum(p.grad.square().sum() for p in strategy.parameters() if p.grad is not None)
    assert math.isclose(math.sqrt(total), 0.001, rel_tol=1e-3)


@pytest.mark.parametrize(
    ("strategy", "model", "said"),
    [
        (L2P(selected=11), "tiny-transformer", "strategy.selected=11 of pool_size=10"),
        (L2P(), "mlp", "l2p needs a transformer; MLP is none: give --model minilm"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(strategy: L2P, model: str, said: str) -> None:
    with pytest.raises(ClpError, match=said):
        clp.run(STREAM, strategy, model=model, out=None)
