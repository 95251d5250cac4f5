"""Closed forms on frozen features, against plain re-computations and other libraries."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.covariance import EmpiricalCovariance
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestCentroid
from torch import Tensor, nn
from torch.nn.functional import one_hot

import cl_platform as clp
from cl_platform.config.run_config import parse_config
from cl_platform.config.signatures import build
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.errors import say_once
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.prototypes import RIDGES, RanPAC, StreamingLDA, ridge_weights

# The classes overlap, so that predictions are wrong now and then.
CLOSE = {"name": "blobs", "experiences": 3, "samples_per_class": 30, "separation": 1.5}
NAMES = ["ncm", "slda", "ranpac"]
CASES: dict[str, dict[str, Any]] = {
    "euclidean": {"name": "ncm"},
    "cosine": {"name": "ncm", "metric": "cosine"},
    "slda": {"name": "slda"},
    "ranpac": {"name": "ranpac", "projections": 60, "ridge": 10.0},
}
closed_forms = pytest.mark.parametrize("strategy", CASES.values(), ids=CASES.keys())


class Raw(nn.Module):
    """Its features are its inputs; the layer is there to be left alone."""

    def __init__(self, input_shape: tuple[int, ...], n_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(input_shape[0], n_classes)

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


class Featureless(nn.Linear):
    """A model without features."""

    def __init__(self, input_shape: tuple[int, ...], n_classes: int) -> None:
        super().__init__(input_shape[0], n_classes)


RAW = f"{__name__}:Raw"


def fold_of(strategy: dict | str, steps: int = 3, model: object = RAW, **settings: object) -> Fold:
    data = {"stream": CLOSE, "strategy": strategy, "model": model, **settings}
    fold = Fold(make_plan(parse_config(data)), StateStore(None), Trackers())
    for _ in range(steps):
        fold.train()
    fold.strategy.eval()
    return fold


def data_of(fold: Fold, split: str = "train") -> tuple[Tensor, Tensor]:
    """All samples of the stream, in the order of class numbers: (N, D) float64, (N,)."""
    parts = [getattr(e, split) for e in fold.plan.stream.experiences]
    x = torch.cat([part.gather(torch.arange(len(part))) for part in parts])
    y = torch.cat([part.y for part in parts])
    order = y.argsort(stable=True)
    return x[order].double(), y[order]


def test_logits(fold: Fold) -> Tensor:
    return fold.strategy(data_of(fold, "test")[0].float())


test_logits.__test__ = False  # type: ignore[attr-defined]


# Closed forms


def test_ncm_is_sklearns_nearest_centroid() -> None:
    fold = fold_of("ncm")
    x, y = data_of(fold)
    centroids = NearestCentroid().fit(x.numpy(), y.numpy())
    assert np.allclose(fold.strategy.means, centroids.centroids_)
    at = data_of(fold, "test")[0]
    assert test_logits(fold).argmax(1).tolist() == centroids.predict(at.numpy()).tolist()
    by_hand = -((at[:, None] - torch.from_numpy(centroids.centroids_)) ** 2).sum(2)
    assert torch.allclose(test_logits(fold), by_hand)


def test_ncm_is_the_squared_distance_to_a_dozen_digits() -> None:
    """Far from the origin as well, where products lose the digits that distances are made of."""
    strategy = fold_of("ncm").strategy
    strategy.sums += 1000 * strategy.counts[:, None]
    features = strategy.means[:5] + torch.randn(5, strategy.means.shape[1], dtype=torch.float64)
    wanted = -(features[:, None] - strategy.means).square().sum(2)
    assert torch.allclose(strategy.scores(features), wanted, rtol=1e-12, atol=1e-12)


def test_by_cosine_ncm_ignores_lengths() -> None:
    fold = fold_of({"name": "ncm", "metric": "cosine"})
    x, y = data_of(fold)
    means = torch.stack([x[y == c].mean(0) for c in range(6)])
    at = data_of(fold, "test")[0]
    by_hand = torch.stack([(at @ m) / (at.norm(dim=1) * m.norm()) for m in means], dim=1)
    assert torch.allclose(test_logits(fold), by_hand)
    assert torch.allclose(fold.strategy(100 * at.float()), by_hand, atol=1e-6)


class Shrunk(EmpiricalCovariance):
    """Hayes and Kanan's shrinkage, towards the identity itself."""

    def fit(self, X: np.ndarray, y: object = None) -> Shrunk:  # noqa: N803
        super().fit(X)
        self.covariance_ = 0.7 * self.covariance_ + 0.3 * np.eye(X.shape[1])
        return self


def test_slda_is_sklearns_linear_discriminant_analysis() -> None:
    fold = fold_of({"name": "slda", "shrinkage": 0.3})
    x, y = data_of(fold)
    lda = LinearDiscriminantAnalysis("lsqr", covariance_estimator=Shrunk()).fit(x, y)
    theirs = lda.decision_function(data_of(fold, "test")[0]) - np.log(1 / 6)
    assert np.allclose(test_logits(fold), theirs, rtol=1e-8)


def test_slda_is_the_papers_recursion_with_samples_counted_within_classes() -> None:
    fold = fold_of("slda")
    assert isinstance(fold.strategy, StreamingLDA)
    x, y = data_of(fold)
    width = x.shape[1]
    means, counts = torch.zeros(6, width).double(), [0] * 6
    covariance = torch.zeros(width, width).double()
    for t, (z, c) in enumerate(zip(x, y.tolist(), strict=True)):
        deviation = (z - means[c])[:, None]
        n = counts[c]
        covariance = (t * covariance + n / (n + 1) * deviation @ deviation.T) / (t + 1)
        means[c] = (n * means[c] + z) / (n + 1)
        counts[c] += 1
    assert torch.allclose(fold.strategy.means, means)
    assert torch.allclose(fold.strategy.covariance, covariance, atol=1e-10)


def test_ranpac_is_sklearns_ridge_on_rectified_projections() -> None:
    fold = fold_of(CASES["ranpac"])
    assert isinstance(fold.strategy, RanPAC)
    x, y = data_of(fold)
    directions = fold.strategy.directions
    ridge = Ridge(10.0, fit_intercept=False, solver="svd")
    ridge.fit((x @ directions).clamp(min=0), one_hot(y).double())
    theirs = ridge.predict((data_of(fold, "test")[0] @ directions).clamp(min=0))
    assert np.allclose(test_logits(fold), theirs, rtol=1e-7, atol=1e-9)


def test_ranpacs_directions_are_normal_and_of_the_seed() -> None:
    first, same, other = (fold_of("ranpac", steps=0, seed=s).strategy.directions for s in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert first.mean().item() == pytest.approx(0, abs=0.05)
    assert first.std().item() == pytest.approx(1, abs=0.05)


def test_ranpac_chooses_the_ridge_on_a_fifth_of_every_experience_so_far() -> None:
    strategy = {"name": "ranpac", "projections": 60}
    fold = fold_of(strategy, steps=3)
    fitted_to, held_out = [], []
    for k in (1, 2, 3):
        fold.rng.restart(k)
        train = fold.plan.steps[k - 1].experience.train
        order = torch.randperm(60, generator=fold.rng.generator("ranpac/held-out"))
        x, y = train.gather(order).double(), one_hot(train.y[order], 6).double()
        h = (x @ fold.strategy.directions).clamp(min=0)
        held_out.append((h[:12], y[:12]))
        fitted_to.append((h[12:], y[12:]))
    (h, y), (held, labels) = (
        [torch.cat(parts).numpy() for parts in zip(*pairs, strict=True)]
        for pairs in (fitted_to, held_out)
    )
    errors = []
    for ridge in RIDGES:
        fitted = Ridge(ridge, fit_intercept=False, solver="svd").fit(h, y)
        errors.append(np.square(fitted.predict(held) - labels).sum())
    best = RIDGES[int(np.argmin(errors))]
    assert RIDGES[0] < best < RIDGES[-1]
    assert fold.strategy.best_ridge() == best
    assert {"held_gram", "held_sums"} <= fold.strategy.state_dict().keys()  # else lost on resuming
    fixed = fold_of({**strategy, "ridge": best})
    assert torch.allclose(fold.strategy.weights, fixed.strategy.weights)


@pytest.mark.parametrize("k", [1, 3])
def test_a_small_last_experience_does_not_harm_the_classes_before_it(k: int) -> None:
    """Of its own k samples a class, ranpac would choose no penalty and forget everything."""
    digits = build("stream", {"name": "split-digits"})
    last = digits[4]
    rows = torch.cat([torch.nonzero(last.train.y == c).flatten()[:k] for c in last.classes])
    stream = replace(digits, experiences=(*digits.experiences[:4], last.subset(rows)))
    matrix = clp.run(stream, {"name": "ranpac", "projections": 200}, out=None).matrix
    assert matrix.values[-1, :4].mean() > matrix.values[-2, :4].mean() - 0.02


def test_a_tiny_ridge_and_a_singular_gram_matrix_give_the_shortest_solution() -> None:
    x = torch.randn(5, 40, generator=torch.Generator().manual_seed(0)).double() * 1000
    y = torch.eye(5).double()
    (weights,) = ridge_weights(x.T @ x, y @ x, [1e-8])
    assert torch.allclose(weights, (torch.linalg.pinv(x) @ y).T, atol=1e-6)


# What holds for all three


def test_planning_says_where_features_are_random_ones(capsys: pytest.CaptureFixture[str]) -> None:
    def said(strategy: str, model: str) -> str:
        say_once.cache_clear()
        for seed in (0, 1):
            parts = {"stream": "blobs", "strategy": strategy, "model": model, "seed": seed}
            make_plan(parse_config(parts))
        return capsys.readouterr().err

    line = said("ncm", "mlp")
    assert line.count("\n") == 1
    assert "'ncm' leaves the model as it is, and 'mlp' has random weights" in line
    assert said("er", "mlp") == ""
    assert said("oneprompt", "tiny-transformer") == ""  # its weights count as pretrained ones


@closed_forms
def test_the_order_of_experiences_does_not_matter(strategy: dict) -> None:
    first, second = (fold_of(strategy, curriculum=c) for c in ("as_given", "reverse"))
    other = second.strategy.state_dict()
    for key, value in first.strategy.state_dict().items():
        assert torch.allclose(value, other[key], rtol=1e-6, atol=1e-9), key
    assert torch.equal(test_logits(first).argmax(1), test_logits(second).argmax(1))


@closed_forms
def test_learning_bit_by_bit_is_learning_all_at_once(strategy: dict) -> None:
    whole = {**CLOSE, "experiences": 1, "classes_per_experience": 6}
    parts, joint = fold_of(strategy), fold_of(strategy, steps=1, stream=whole)
    assert torch.equal(data_of(parts)[0], data_of(joint)[0])
    assert torch.allclose(test_logits(parts), test_logits(joint), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_epochs_batches_and_optimizer_change_no_bit(name: str) -> None:
    plain = fold_of(name).strategy
    settings = {"epochs": 3, "batch_size": 7, "optimizer": {"name": "adam", "lr": 0.1}}
    other = fold_of(name, **settings).strategy.state_dict()
    assert plain.counts.tolist() == [30] * 6
    assert all(torch.equal(value, other[key]) for key, value in plain.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_the_network_stays_as_it_is_with_its_batch_norm(name: str) -> None:
    stream = {"name": "split-digits", "samples": 20}
    fold = fold_of(name, steps=0, model={"name": "cnn", "width": 4}, stream=stream)
    before = copy.deepcopy(dict(fold.strategy.model.named_buffers()))
    fold.train()
    fold.strategy.train()
    fold.strategy.loss(next(fold.strategy.batches(fold.plan.steps[0].experience)))
    after = dict(fold.strategy.model.named_buffers())
    assert "body.1.running_mean" in after
    assert not [key for key in fold.strategy.state_dict() if key.startswith("model.")]
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert not [p for p in fold.strategy.parameters() if p.requires_grad]


@closed_forms
def test_classes_without_samples_tie_and_never_win(strategy: dict) -> None:
    untrained, begun = (test_logits(fold_of(strategy, steps=k)) for k in (0, 1))
    assert len(untrained.unique()) == 1
    assert begun.isfinite().all()
    assert begun[:, 2:].max() < begun[:, :2].min()
    assert len(begun[:, 2:].unique()) == 1


@closed_forms
def test_where_the_task_is_known_other_tasks_do_not_compete(strategy: dict) -> None:
    fold = fold_of(strategy, stream={**CLOSE, "scenario": "task"})
    x = data_of(fold, "test")[0].float()
    free, bound = fold.strategy(x), fold.strategy(x, torch.full((len(x),), 1))
    assert torch.equal(bound[:, 2:4], free[:, 2:4])
    assert bound[:, [0, 1, 4, 5]].isneginf().all()


@closed_forms
def test_separate_classes_are_learned_and_not_forgotten(strategy: dict) -> None:
    stream = {"name": "blobs", "dimensions": 16}
    result = clp.run(stream, strategy, model=Raw, out=None)
    assert result.metrics["average_accuracy"] > 0.98
    assert result.metrics["forgetting"] == pytest.approx(0, abs=0.02)
    assert result.matrix[0, 0] == 0.0  # nothing is known before the first experience


def test_where_features_correlate_second_moments_help() -> None:
    ncm, *others = (clp.run("split-digits", name, out=None) for name in NAMES)
    for other in others:
        assert other.metrics["average_accuracy"] > ncm.metrics["average_accuracy"] + 0.03


@pytest.mark.parametrize("name", NAMES)
def test_single_samples_are_enough_to_go_on(name: str) -> None:
    result = clp.run({"name": "split-digits", "samples": 1}, name, out=None)
    assert 0.1 < result.metrics["average_accuracy"] < 1


@pytest.mark.parametrize("name", NAMES)
def test_without_features_or_inside_refresh_they_say_what_to_do(name: str) -> None:
    with pytest.raises(clp.ClpError, match=f"{name} needs a model with `features`; Featureless"):
        clp.run(CLOSE, name, model=Featureless, out=None)
    with pytest.raises(clp.ClpError, match="trains none of the model's weights: give another"):
        clp.run(CLOSE, {"name": "refresh", "inner": name}, out=None)
