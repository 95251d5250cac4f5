"""OnePrompt and virtual outliers: what is drawn, what is learned from it, and what must not be."""

from __future__ import annotations

import math
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

import cl_platform as clp
from cl_platform import Batch
from cl_platform.config.run_config import parse_config
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.errors import ClpError
from cl_platform.models.backbone import Backbone, Prefix, Projection, Tokens
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.oneprompt import OnePrompt
from strategies.ovor import OVOR
from strategies.parts.outliers import OutlierSampler, distance
from tests.helpers.hand_made import stream_of

STREAM = {"name": "split-digits", "samples": 60}
SETTINGS: dict[str, Any] = {
    "model": "tiny-transformer",
    "optimizer": {"name": "adam", "lr": 0.01},
    "epochs": 2,
}
PLACES: dict[str, Any] = {"general_blocks": (0,), "expert_blocks": (1,)}


class Plain(Backbone):
    """Its feature is its input; attention is called so that prefixes are taken, to no effect."""

    width, depth = 2, 1

    def __init__(self, input_shape: tuple[int, ...], n_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(self.width, n_classes)

    def embed(self, x: Tensor) -> Tokens:
        return Tokens(x[:, None])

    def blocks(self, tokens: Tokens) -> Tensor:
        heads = tokens.values[:, None]
        for _ in range(self.depth):
            scaled_dot_product_attention(heads, heads, heads)
        return tokens.values

    def pool(self, tokens: Tokens) -> Tensor:
        return tokens.values[:, 0]

    def projections(self) -> dict[str, Projection]:
        return {}


class Wide(Plain):
    """As wide and deep as a ViT-B."""

    width, depth = 768, 12

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x), self.classifier.out_features)


def fold_of(strategy: OnePrompt, steps: int = 1, **settings: Any) -> Fold:
    config = parse_config({"stream": STREAM, **SETTINGS, **settings}, ("strategy",))
    fold = Fold(make_plan(config, {"strategy": strategy}), StateStore(None), Trackers())
    for _ in range(steps):
        fold.train()
    fold.strategy.eval()
    return fold


def ovor(**parameters: Any) -> OVOR:
    small = {"draws": 20, "boundary": 5, "kept": 10, "neighbour": 3}
    return OVOR(**{**PLACES, **small, **parameters})


def data(fold: Fold, step: int = 0) -> Batch:
    return next(fold.strategy.batches(fold.plan.steps[step].experience))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_prompts_are_as_many_as_published() -> None:
    config = parse_config({"stream": STREAM}, ("strategy", "model"))
    plan = make_plan(config, {"strategy": OnePrompt(), "model": Wide})
    strategy = Fold(plan, StateStore(None), Trackers()).strategy
    assert isinstance(strategy, OnePrompt)
    assert strategy.general.numel() + strategy.expert.numel() == 107_520


def test_every_experience_trains_the_same_prompts() -> None:
    fold = fold_of(OnePrompt(**PLACES), steps=0)
    size = fold.state.nbytes()
    strategy = fold.strategy
    assert isinstance(strategy, OnePrompt)
    for _ in range(2):
        before = strategy.general.detach().clone(), strategy.expert.detach().clone()
        fold.train()
        assert not torch.equal(strategy.general, before[0])
        assert not torch.equal(strategy.expert, before[1])
    assert fold.state.nbytes() == size
    assert not strategy.takes_features


def test_the_head_sees_the_feature_under_both_prompts() -> None:
    fold = fold_of(OnePrompt(general_length=4, expert_length=6, **PLACES))
    strategy, x = fold.strategy, data(fold).x
    assert isinstance(strategy, OnePrompt)
    general, expert = strategy.general[0], strategy.expert[0]
    by_hand = {0: Prefix(general[:2], general[2:]), 1: Prefix(expert[:3], expert[3:])}
    model = strategy.model
    feature = model.pool(model.encode(model.embed(x), by_hand))
    assert torch.equal(strategy(x), strategy.head(feature))


@pytest.mark.parametrize("strategy", [OnePrompt(**PLACES), ovor()])
def test_a_sample_is_predicted_alike_in_every_batch(strategy: OnePrompt) -> None:
    fold = fold_of(strategy, steps=2)
    x = data(fold).x
    with torch.no_grad():
        whole = fold.strategy(x)
        order = torch.randperm(len(x), generator=generator())
        assert torch.allclose(fold.strategy(x[order]), whole[order], atol=1e-5)
        for size in (1, 7, 64):
            parts = torch.cat([fold.strategy(part) for part in x.split(size)])
            assert torch.equal(parts.argmax(1), whole.argmax(1))
            assert torch.allclose(parts, whole, atol=1e-5)


def test_energies_and_their_penalties_are_the_papers() -> None:
    strategy = OVOR()
    strategy.present = torch.ones(10, dtype=torch.bool)
    zeros = torch.zeros(4, 10)
    assert strategy.energy(zeros).tolist() == pytest.approx([-2.302585] * 4)
    # huber(-2.302585 + 15) = 12.697415 - 0.5 for samples; relu(-3 + 2.302585) = 0 for outliers
    assert strategy.energy_loss(zeros, zeros).item() == pytest.approx(12.197415, abs=1e-5)
    # outliers of energy -3.3, and samples that are sure enough
    outliers = zeros + 3.3 - math.log(10)
    expected = 0.5 * 0.3**2
    assert strategy.energy_loss(zeros + 20, outliers).item() == pytest.approx(expected, abs=1e-5)


def test_there_is_no_gradient_where_thresholds_are_met() -> None:
    strategy = OVOR()
    strategy.present = torch.ones(10, dtype=torch.bool)
    sure, unsure = torch.full((3, 10), 13.0), torch.full((3, 10), 0.6)
    logits, outliers = (t.requires_grad_() for t in (sure, unsure))
    strategy.energy_loss(logits, outliers).backward()
    assert torch.equal(logits.grad, torch.zeros(3, 10))
    assert torch.equal(outliers.grad, torch.zeros(3, 10))
    strategy.energy_loss(outliers, logits).backward()  # and there is one where they are not
    assert (logits.grad > 0).all()
    assert (outliers.grad < 0).all()


def test_the_energy_is_over_the_classes_of_the_experience() -> None:
    strategy = OVOR()
    strategy.present = torch.tensor([True, False, True])
    logits = torch.tensor([[1.0, 50.0, 2.0], [0.0, -torch.inf, 0.0]])
    expected = [-math.log(math.exp(1) + math.exp(2)), -math.log(2)]
    assert strategy.energy(logits).tolist() == pytest.approx(expected)


def test_how_far_a_point_is_says_its_kth_neighbour_or_the_last() -> None:
    line = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    points = torch.tensor([[0.0], [8.0]])
    assert distance(points, line, 2).tolist() == [1.0, 5.0]
    assert distance(points, line, 9).tolist() == [7.0, 8.0]


def test_outliers_at_the_boundary_are_those_of_a_slow_search() -> None:
    sampler = OutlierSampler(boundary=3, draws=7, kept=4, k=2, noise=0.5)
    features, y = torch.randn(20, 3, generator=generator(1)), torch.arange(20) % 2
    found = sampler.at_boundary(features, y, generator(2))
    draws = generator(2)
    expected = []
    for c in (0, 1):
        own = [f for f, label in zip(features.numpy(), y.tolist(), strict=True) if label == c]
        alone = [sorted(np.linalg.norm(a - b) for b in own)[2] for a in own]  # [0] is itself
        candidates = []
        for i in sorted(range(len(own)), key=lambda i: -alone[i])[:3]:
            candidates += list(own[i] + 0.5 * torch.randn(7, 3, generator=draws).numpy())
        gaps = [sorted(np.linalg.norm(p - f) for f in features.numpy())[1] for p in candidates]
        expected += [candidates[i] for i in sorted(range(21), key=lambda i: -gaps[i])[:4]]
    assert np.allclose(found.numpy(), np.stack(expected), atol=1e-5)


def test_outliers_at_the_origin_are_copies_of_the_same_draws() -> None:
    sampler = OutlierSampler(boundary=3, draws=7, kept=4, k=2, noise=0.1)
    features = 100 + torch.randn(20, 3, generator=generator(1))
    found = sampler.at_origin(features, 2, generator(2))
    points = 0.1 * torch.randn(7, 3, generator=generator(2))
    units = features / features.norm(dim=1, keepdim=True)
    gaps = [sorted((p - u).norm().item() for u in units)[1] for p in points]
    order = sorted(range(7), key=lambda i: -gaps[i])
    assert torch.equal(found, points[[i for i in order for _ in range(3)][:8]])
    assert found.norm(dim=1).max() < 1  # wherever the features are


@pytest.mark.parametrize("n", [1, 2, 30])
def test_few_samples_are_enough(n: int) -> None:
    sampler = OutlierSampler(boundary=50, draws=3, kept=40, k=50, noise=0.1)
    features, y = torch.randn(n, 4, generator=generator()), torch.zeros(n, dtype=torch.int64)
    assert len(sampler.at_boundary(features, y, generator())) == min(40, 3 * n)
    assert len(sampler.at_origin(features, 1, generator())) == min(40, 3 * n)


@pytest.mark.parametrize("outliers", ["npos", "code"])
def test_the_regularised_epochs_change_the_head_alone(outliers: Any) -> None:
    plain, regularised = (
        fold_of(ovor(regularised_epochs=n, outliers=outliers)).strategy for n in (0, 2)
    )
    assert isinstance(plain, OVOR)
    states = plain.state_dict(), regularised.state_dict()
    changed = {name for name in states[0] if not torch.equal(states[0][name], states[1][name])}
    assert changed == {"head.weight", "head.bias"}
    others = ~plain.present
    for name in changed:  # energies and cross-entropy are over the present classes
        assert torch.equal(states[0][name][others], states[1][name][others])


def test_without_strength_the_head_learns_by_cross_entropy_alone() -> None:
    fold = fold_of(ovor(regularised_epochs=0))
    strategy, batch = fold.strategy, data(fold)
    assert isinstance(strategy, OVOR)
    classes = list(fold.plan.steps[0].experience.classes)
    features, labels = strategy.represent(batch.x).detach(), batch.y
    head = nn.Linear(16, 10)
    head.load_state_dict(strategy.head.state_dict())
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    target = torch.searchsorted(torch.tensor(classes), labels)
    for _ in range(3):
        optimizer.zero_grad()
        cross_entropy(head(features)[:, classes], target).backward()
        optimizer.step()
    strategy.regularised_epochs, strategy.strength, strategy.regularised_lr = 3, 0.0, 0.02
    strategy.end_experience(fold.plan.steps[0].experience)
    assert torch.allclose(strategy.head.weight, head.weight, atol=1e-5)
    assert torch.allclose(strategy.head.bias, head.bias, atol=1e-5)


@pytest.mark.parametrize("kept", [1, 10])
def test_every_step_has_samples_and_outliers_of_its_own(kept: int) -> None:
    fold = fold_of(ovor(regularised_epochs=0, kept=kept, regularised_batch_size=7))
    strategy = fold.strategy
    assert isinstance(strategy, OVOR)
    features, y = strategy.trained_features(fold.plan.steps[0].experience)
    steps = list(strategy.regularised_steps(features, y))
    rows = torch.cat([rows for rows, _ in steps])
    assert torch.equal(rows.sort().values, torch.arange(len(y)))
    assert all(len(outliers) for _, outliers in steps)
    n_used = sum(len(outliers) for _, outliers in steps)
    assert n_used == 2 * kept * math.ceil(len(steps) / (2 * kept))


@pytest.mark.parametrize("scenario", ["class", "task"])
def test_the_task_scenario_is_regularised_as_well(scenario: str) -> None:
    stream = {**STREAM, "scenario": scenario}
    strategy = fold_of(ovor(train_mask=False), steps=2, stream=stream).strategy
    assert all(torch.isfinite(p).all() for p in strategy.parameters())


@pytest.mark.system
@pytest.mark.parametrize("outliers", ["npos", "code"])
def test_outliers_lower_the_confusion_of_experiences(outliers: Any) -> None:
    """Against as many epochs of cross-entropy alone, where features are the inputs."""

    def accuracy(seed: int, strength: float) -> float:
        angles = torch.arange(6) * math.tau / 6
        means = 5 * torch.stack([angles.cos(), angles.sin()], 1)
        classes = torch.randperm(6, generator=generator(seed)).tolist()
        groups = [classes[:2], classes[2:4], classes[4:]]
        strategy = ovor(
            general_blocks=(0,),
            expert_blocks=(),
            outliers=outliers,
            strength=strength,
            regularised_lr=0.01,
            noise=1.0,
        )
        stream = stream_of(means.tolist(), groups, n=60, spread=0.7, seed=seed)
        settings = {**SETTINGS, "epochs": 10, "model": Plain}
        result = clp.run(stream, strategy, out=None, seed=seed, **settings)
        return result.metrics["average_accuracy"]

    gains = [accuracy(seed, 0.1) - accuracy(seed, 0.0) for seed in range(6)]
    assert fmean(gains) > 0.05
    assert sum(gain > 0 for gain in gains) >= 4


@pytest.mark.parametrize(
    "places",
    [{}, {"general_blocks": (0,), "expert_blocks": (0, 1)}],
)
def test_blocks_that_do_not_fit_are_refused_in_one_line(places: dict[str, Any]) -> None:
    with pytest.raises(ClpError, match="TinyTransformer has blocks 0 to 1; give some of them") as e:
        clp.run(STREAM, OnePrompt(**places), out=None, **SETTINGS)
    assert len(str(e.value).splitlines()) == 1
