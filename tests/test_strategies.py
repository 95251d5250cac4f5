"""What each method does beyond the contract, against plain re-computations."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, normalize

import cl_platform as clp
from cl_platform import Batch
from cl_platform.config import parse_config
from cl_platform.fold import Fold
from cl_platform.gradients import flat_gradient, flatten, sample_gradients, trainable
from cl_platform.plan import make_plan
from cl_platform.store import StateStore
from cl_platform.tracking import Trackers
from strategies.fisher import diagonal_fisher
from strategies.gem import averaged_projection, constrained_projection
from strategies.icarl import herd
from strategies.mas import MAS
from strategies.quadratic import QuadraticPenalty

BLOBS = {"name": "blobs", "experiences": 3, "samples_per_class": 30}
SMALL = {"name": "mlp", "hidden": [8]}


def fold_of(strategy: str | dict, steps: int = 2, **settings: object) -> Fold:
    data = {"stream": BLOBS, "strategy": strategy, "model": SMALL, **settings}
    fold = Fold(make_plan(parse_config(data)), StateStore(None), Trackers())
    for _ in range(steps):
        fold.train()
    return fold


def next_batch(fold: Fold, size: int = 8) -> Batch:
    step = fold.plan.steps[min(fold.position, len(fold.plan.steps) - 1)]
    return next(fold.strategy.batches(step.experience, size))


# Replay


def test_er_ace_lets_new_samples_compete_with_the_classes_of_their_batch_only() -> None:
    fold = fold_of("er-ace")
    strategy, batch = fold.strategy, next_batch(fold, 40)
    with fold.draws.rewound():
        old = strategy.buffer.sample(len(batch))
    present = sorted(set(batch.y.tolist()))
    new_logits = strategy(batch.x)[:, present]
    new = cross_entropy(new_logits, torch.tensor([present.index(int(c)) for c in batch.y]))
    known = sorted({0, 1, 2, 3, *present})
    index = torch.tensor([known.index(int(c)) for c in old.y])
    expected = new + cross_entropy(strategy(old.x)[:, known], index)
    assert strategy.loss(batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_der_keeps_the_logits_that_samples_had_when_they_were_stored() -> None:
    fold = fold_of({"name": "der", "memory_size": 1000}, steps=0, batch_size=60)
    strategy, untrained = fold.strategy, copy.deepcopy(fold.strategy.model)
    fold.train()  # a single step: what is stored are the logits before it
    stored = strategy.buffer.read(torch.arange(60))
    assert torch.allclose(stored.extra["logits"], untrained(stored.x), atol=1e-6)
    assert not torch.allclose(stored.extra["logits"], strategy(stored.x), atol=1e-2)


def test_der_plus_plus_adds_cross_entropy_on_a_draw_of_its_own() -> None:
    fold = fold_of({"name": "der++", "alpha": 0.3, "beta": 0.5})
    strategy, batch = fold.strategy, next_batch(fold)
    with fold.draws.rewound():
        first, second = strategy.buffer.sample(8), strategy.buffer.sample(8)
    logits = nn.functional.mse_loss(strategy(first.x), first.extra["logits"])
    labels = cross_entropy(strategy(second.x), second.y)
    expected = cross_entropy(strategy(batch.x), batch.y) + 0.3 * logits + 0.5 * labels
    assert not torch.equal(first.y, second.y)
    assert strategy.loss(batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_mir_replays_the_samples_whose_loss_a_step_would_raise_most() -> None:
    fold = fold_of({"name": "mir", "candidates": 30, "memory_batch_size": 5})
    strategy, batch = fold.strategy, next_batch(fold)
    with fold.draws.rewound():
        candidates = strategy.buffer.sample(30)
    chosen = strategy.recall(batch)
    moved = copy.deepcopy(strategy.model)
    optimizer = torch.optim.SGD(moved.parameters(), lr=0.05)
    cross_entropy(moved(batch.x), batch.y).backward()
    optimizer.step()
    before = cross_entropy(strategy(candidates.x), candidates.y, reduction="none")
    rise = cross_entropy(moved(candidates.x), candidates.y, reduction="none") - before
    expected = candidates.x[rise.topk(5).indices]
    assert torch.equal(chosen.x, expected)


def test_gss_keeps_gradients_more_diverse_than_a_reservoir_does() -> None:
    # A hundred near-copies of each of two samples, and four others at the end: what is diverse stays.
    generator = torch.Generator().manual_seed(0)
    corners = torch.randn(6, 5, generator=generator) * 3
    x = torch.cat([corners[:2].repeat(100, 1), corners[2:].repeat(2, 1)])
    x = x + 0.01 * torch.randn(x.shape, generator=generator)
    y = torch.cat([torch.tensor([0, 1]).repeat(100), torch.tensor([0, 1, 0, 1]).repeat(2)])
    samples = clp.Samples.of(x, y)
    stream = clp.class_incremental("corners", [[0, 1]], ["a", "b"], samples, samples)
    held = {}
    for name in ("gss", "er"):
        strategy = {"name": name, "memory_size": 12}
        data = {"stream": stream.name, "strategy": strategy, "model": SMALL}
        config = parse_config(data, given=("stream",))
        fold = Fold(make_plan(config, {"stream": stream}), StateStore(None), Trackers())
        fold.train()
        stored = fold.strategy.buffer.read(torch.arange(12))
        gradients = normalize(
            next(sample_gradients(fold.strategy.model, cross_entropy, stored.x, stored.y)), dim=1
        )
        held[name] = float((gradients @ gradients.T).mean())
    assert held["gss"] < held["er"]


def test_gdumb_forgets_its_model_and_learns_from_a_balanced_memory_alone() -> None:
    strategy = {"name": "gdumb", "memory_size": 30, "passes": 30}
    fold = fold_of(strategy, steps=1)
    first = flatten(trainable(fold.strategy.model))
    before = [p.detach().clone() for p in fold.strategy.model.parameters()]
    loss = fold.strategy.training_step(next_batch(fold))
    assert float(loss) == 0
    assert all(
        torch.equal(p, q) for p, q in zip(before, fold.strategy.model.parameters(), strict=True)
    )
    fold.train()
    fold.train()
    assert (flatten(trainable(fold.strategy.model)) - first).norm() > 1
    assert fold.strategy.buffer.y[fold.strategy.buffer.filled_rows()].bincount().tolist() == [5] * 6
    accuracy = clp.run(BLOBS, strategy, out=None).metrics["average_accuracy"]
    assert accuracy > 0.95


# Gradient projection


def vectors(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_an_agreeing_gradient_is_left_alone() -> None:
    g = vectors(50)
    assert torch.equal(averaged_projection([g.clone()], [g * 2])[0], g)
    assert torch.equal(constrained_projection(g.clone(), torch.stack([g, 3 * g]), 0.5), g)


def test_a_gem_removes_just_the_part_against_the_reference() -> None:
    g, reference = vectors(50), vectors(50, seed=1)
    reference = reference if torch.dot(g, reference) < 0 else -reference
    parts = [list(v.clone().split([30, 20])) for v in (g, reference)]  # as of two parameters
    projected = torch.cat(averaged_projection(*parts))
    assert torch.dot(projected, reference).abs() < 1e-4
    removed = g - projected
    assert torch.allclose(
        normalize(removed, dim=0).abs(), normalize(reference, dim=0).abs(), atol=1e-4
    )


def test_without_margin_gem_is_the_nearest_vector_that_harms_no_experience() -> None:
    g, references = vectors(20), vectors(4, 20, seed=1)
    references[0] = -g + 0.1 * references[0]
    projected = constrained_projection(g.clone(), references, 0.0)
    assert (references @ projected > -1e-3).all()
    rows = references.double().numpy()
    best = minimize(
        lambda z: float(((z - g.double().numpy()) ** 2).sum()),
        np.zeros(20),
        jac=lambda z: 2 * (z - g.double().numpy()),
        constraints={"type": "ineq", "fun": lambda z: rows @ z, "jac": lambda z: rows},
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-12},
    )
    assert np.allclose(projected.numpy(), best.x, atol=1e-3)


def test_a_margin_pulls_further_towards_the_past() -> None:
    g = vectors(20)
    references = torch.stack([-10 * g, vectors(20, seed=2)])
    gains = [
        float((references @ constrained_projection(g.clone(), references, m)).min())
        for m in (0.0, 0.5)
    ]
    assert gains[1] > gains[0] + 0.1


def test_gems_constraints_are_the_gradients_of_each_past_memory() -> None:
    fold = fold_of({"name": "gem", "memory_size": 30}, steps=2)
    strategy = fold.strategy
    assert [len(strategy.buffer.group(k)) for k in range(2)] == [10, 10]
    rows = strategy.buffer.group(0)
    old = strategy.buffer.read(rows)
    assert set(old.y.tolist()) <= {0, 1}
    loss = cross_entropy(strategy(old.x), old.y)
    expected = flat_gradient(loss, trainable(strategy.model))
    assert torch.allclose(flatten(strategy.memory_gradients(rows)), expected)


# Regularisation


def test_the_sum_of_penalties_is_one_quadratic() -> None:
    model = nn.Linear(3, 2)
    parts = [(vectors(8, seed=i).abs(), vectors(8, seed=10 + i)) for i in range(3)]
    parts[1][0][:4] = 0  # parameters that only some experiences hold
    together = QuadraticPenalty(model)
    for importance, anchor in parts:
        together.add(importance, anchor)
    theta = flatten(list(model.parameters()))
    expected = sum((f * (theta - a).square()).sum() / 2 for f, a in parts)
    penalty = together(model)
    assert penalty.item() == pytest.approx(float(expected), rel=1e-5)
    gradient = flat_gradient(penalty, trainable(model))
    by_hand = sum((f * (theta - a) for f, a in parts), torch.zeros(8))
    assert torch.allclose(gradient, by_hand, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scenario", ["class", "task"])
@pytest.mark.parametrize("confident", [False, True])
def test_the_fisher_information_is_the_mean_squared_gradient_of_single_samples(
    scenario: str, confident: bool
) -> None:
    fold = fold_of("finetune", steps=1, stream={**BLOBS, "scenario": scenario})
    strategy, experience = fold.strategy, fold.plan.steps[0].experience
    by_hand = torch.zeros_like(flatten(trainable(strategy.model)))
    for b in strategy.batches(experience, 1):
        loss = cross_entropy(strategy(b.x, b.task), b.y)
        weight = torch.exp(-loss.detach()) if confident else 1.0
        by_hand += (
            weight * flat_gradient(loss, trainable(strategy.model)) ** 2 / len(experience.train)
        )
    ours = diagonal_fisher(strategy, experience, confident=confident)
    assert torch.allclose(ours, by_hand, rtol=1e-3, atol=1e-9)


def test_the_sampled_fisher_information_is_that_of_the_models_own_labels() -> None:
    fold = fold_of("finetune", steps=1)
    strategy, experience = fold.strategy, fold.plan.steps[0].experience
    exact = torch.zeros_like(flatten(trainable(strategy.model)))
    for b in strategy.batches(experience, 1):
        chances = strategy(b.x).softmax(1)[0].detach()
        for c, chance in enumerate(chances):
            gradient = flat_gradient(
                cross_entropy(strategy(b.x), torch.tensor([c])), trainable(strategy.model)
            )
            exact += chance * gradient.square() / len(experience.train)
    draws = [diagonal_fisher(strategy, experience, "sampled") for _ in range(200)]
    assert torch.stack(draws).mean(0).sum().item() == pytest.approx(exact.sum().item(), rel=0.2)
    assert not torch.equal(draws[0], draws[1])


def test_the_fisher_information_of_some_samples_estimates_that_of_all() -> None:
    fold = fold_of("finetune", steps=1)
    strategy, experience = fold.strategy, fold.plan.steps[0].experience
    some = torch.stack([diagonal_fisher(strategy, experience, samples=20) for _ in range(60)])
    full = diagonal_fisher(strategy, experience)
    assert some.mean(0).sum().item() == pytest.approx(full.sum().item(), rel=0.25)


def test_mas_takes_the_absolute_gradient_of_the_squared_output() -> None:
    fold = fold_of("mas", steps=1)
    strategy, experience = fold.strategy, fold.plan.steps[0].experience
    assert isinstance(strategy, MAS)
    by_hand = torch.zeros_like(strategy.penalty.importance)
    for b in strategy.batches(experience, 1):
        gradient = flat_gradient(strategy.model(b.x).square().sum(), trainable(strategy.model))
        by_hand += gradient.abs() / len(experience.train)
    assert torch.allclose(strategy.sensitivity(experience), by_hand, rtol=1e-3, atol=1e-6)


def test_sis_path_integral_is_the_fall_of_the_loss_for_small_steps() -> None:
    fold = fold_of("si", steps=0, batch_size=60, epochs=400, optimizer={"lr": 1e-4})
    strategy, step = fold.strategy, fold.plan.steps[0]
    whole = next(strategy.batches(step.experience, 1000))
    before = cross_entropy(strategy(whole.x), whole.y).item()
    fold.train()
    fall = before - cross_entropy(strategy(whole.x), whole.y).item()
    assert fall > 0.1
    assert float(strategy.path.sum()) == pytest.approx(fall, rel=0.02)


@pytest.mark.parametrize("name", ["ewc", "si", "mas"])
def test_a_penalty_keeps_parameters_near_where_they_were(name: str) -> None:
    distances = []
    for strength in (0.0, 3.0):
        fold = fold_of({"name": name, "strength": strength}, steps=1, optimizer={"lr": 0.005})
        before = flatten(trainable(fold.strategy.model))
        importance = fold.strategy.penalty.importance.clone()
        fold.train()
        moved = flatten(trainable(fold.strategy.model)) - before
        distances.append(float((importance * moved.square()).sum()))
    assert distances[1] < distances[0]


# Distillation


@pytest.mark.parametrize("scenario", ["class", "task"])
def test_lwf_distils_over_the_heads_of_the_past(scenario: str) -> None:
    fold = fold_of(
        {"name": "lwf", "alpha": 1.5, "temperature": 2.0}, stream={**BLOBS, "scenario": scenario}
    )
    strategy, teacher = fold.strategy, copy.deepcopy(fold.strategy.model)
    step = fold.plan.steps[2].experience
    fold.draws.restart(3)
    strategy.begin_experience(step)
    with torch.no_grad():
        for p in strategy.model.parameters():
            p.add_(0.05)
    batch = next(strategy.batches(step, 8))
    heads = [[0, 1], [2, 3]] if scenario == "task" else [[0, 1, 2, 3]]
    expected = cross_entropy(strategy(batch.x, batch.task), batch.y)
    for head in heads:
        old = (teacher(batch.x)[:, head] / 2).softmax(1)
        new = (strategy.model(batch.x)[:, head] / 2).log_softmax(1)
        expected = expected + 1.5 * kl_div(new, old, reduction="batchmean")
    assert strategy.loss(batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_herding_follows_the_mean_as_closely_as_a_greedy_choice_can() -> None:
    features = normalize(vectors(40, 6), dim=1)
    mean, chosen = features.mean(0), []
    for k in range(1, 11):  # the algorithm as it is written
        candidates = [i for i in range(40) if i not in chosen]
        chosen.append(
            min(
                candidates,
                key=lambda i: float((mean - (features[chosen].sum(0) + features[i]) / k).norm()),
            )
        )
    assert herd(features, 10).tolist() == chosen
    assert sorted(herd(features, 99).tolist()) == list(range(40))


def test_icarl_predicts_the_nearest_mean_of_its_exemplars() -> None:
    fold = fold_of({"name": "icarl", "memory_size": 24}, steps=2)
    strategy, batch = fold.strategy.eval(), next_batch(fold)
    means = []
    for c in range(4):
        rows = strategy.buffer.rows_of(c)
        assert len(rows) == 6
        features = normalize(strategy.model.features(strategy.buffer.plain(rows)), dim=1)
        means.append(normalize(features.mean(0), dim=0))
    features = normalize(strategy.model.features(batch.x), dim=1)
    logits = strategy(batch.x)
    assert torch.equal(logits[:, :4].argmax(1), torch.cdist(features, torch.stack(means)).argmin(1))
    assert logits[:, 4:].isinf().all()


def test_icarls_exemplars_lose_the_last_ranks_when_classes_join() -> None:
    fold = fold_of({"name": "icarl", "memory_size": 24}, steps=1)
    before = fold.strategy.buffer.x[fold.strategy.buffer.rows_of(0)].clone()
    fold.train()
    after = fold.strategy.buffer.x[fold.strategy.buffer.rows_of(0)]
    assert (len(before), len(after)) == (12, 6)
    assert torch.equal(after, before[:6])


def test_icarl_says_which_streams_and_models_it_needs() -> None:
    with pytest.raises(clp.ClpError, match="icarl needs new classes in every experience"):
        clp.run("rotated-digits", "icarl", out=None)
    with pytest.raises(clp.ClpError, match="icarl needs a model with `features`"):
        clp.run("blobs", "icarl", model=Plain, out=None)


class Plain(nn.Module):
    """A model without features."""

    def __init__(self, input_shape: tuple[int, ...], n_classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(input_shape[0], n_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


# What they are for


@pytest.mark.parametrize("name", ["er", "er-ace", "der", "der++", "mir", "gss", "gdumb", "icarl"])
def test_methods_with_a_memory_forget_less_than_fine_tuning(name: str) -> None:
    settings = {"epochs": 3, "out": None, "seed": 1}
    plain = clp.run(BLOBS, "finetune", **settings).metrics["average_accuracy"]
    kept = clp.run(BLOBS, name, **settings).metrics["average_accuracy"]
    assert plain < 0.5
    assert kept > plain + 0.2


@pytest.mark.parametrize("name", ["a-gem", "gem", "ewc", "si", "mas", "lwf"])
def test_in_the_task_scenario_they_do_not_fall_behind_fine_tuning(name: str) -> None:
    stream = {"name": "permuted-digits", "scenario": "domain", "experiences": 3}
    settings = {"epochs": 3, "out": None, "lr": 0.02}
    plain = clp.run(stream, "finetune", **settings).metrics["average_accuracy"]
    kept = clp.run(stream, name, **settings).metrics["average_accuracy"]
    assert kept > plain - 0.03
