"""What each method does beyond the contract, against plain re-computations."""

from __future__ import annotations

import copy
from dataclasses import replace
from inspect import signature
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, normalize

import cl_platform as clp
from cl_platform import Batch
from cl_platform.config.run_config import parse_config
from cl_platform.core.batch import together
from cl_platform.engine.fold import Fold
from cl_platform.engine.optimization import OPTIMIZERS
from cl_platform.engine.planner import make_plan
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.er import ER
from strategies.ewc import EWC
from strategies.gem import averaged_projection, constrained_projection
from strategies.icarl import herd
from strategies.mas import MAS
from strategies.parts.fisher import diagonal_fisher
from strategies.parts.gradients import flat_gradient, flatten, sample_gradients, trainable
from strategies.parts.quadratic import QuadraticPenalty
from strategies.refresh import Refresh
from tests.helpers.replay import with_replay

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
    fold = fold_of("er-ace", steps=1)  # classes 0 and 1 are known, 2 and 3 come, 4 and 5 do not
    strategy, batch = fold.strategy, next_batch(fold, 40)
    both = with_replay(strategy, batch)
    old = both.old
    assert len(old) == 40
    assert set(batch.y.tolist()) == {2, 3}
    assert set(old.y.tolist()) == {0, 1}
    new = cross_entropy(strategy(batch.x)[:, 2:4], batch.y - 2)
    expected = new + cross_entropy(strategy(old.x)[:, :4], old.y)
    assert strategy.loss(both).item() == pytest.approx(expected.item(), rel=1e-5)


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
    whole = with_replay(strategy, batch)
    first, second = whole.old.split([8, 8])
    stored = strategy.buffer.stored("logits", first)
    logits = nn.functional.mse_loss(strategy(first.x), stored)
    labels = cross_entropy(strategy(second.x), second.y)
    expected = cross_entropy(strategy(batch.x), batch.y) + 0.3 * logits + 0.5 * labels
    assert not torch.equal(first.y, second.y)
    assert strategy.loss(whole).item() == pytest.approx(expected.item(), rel=1e-5)


def test_mir_replays_the_samples_whose_loss_a_step_would_raise_most() -> None:
    fold = fold_of({"name": "mir", "candidates": 30, "memory_batch_size": 5})
    strategy, batch = fold.strategy, next_batch(fold)
    with fold.rng.rewound():
        candidates = strategy.buffer.distinct(30)
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


def test_gss_replaces_by_score_and_only_what_is_more_diverse() -> None:
    fold = fold_of({"name": "gss", "memory_size": 4})
    memory = fold.strategy.buffer
    memory.get_buffer("extra_score")[:4] = torch.tensor([0.1, 0.1, 0.1, 2.0])
    aligned = memory._replaced(torch.full((2000,), 1.5))
    assert (aligned == 4).all()  # a cosine above 0 replaces nothing
    rows = memory._replaced(torch.full((4000,), 0.5)).bincount(minlength=5)
    # Row i is chosen with probability C_i / 2.3 and given up with C_i / (C_i + 0.5).
    chances = [0.1 / 2.3 * 0.1 / 0.6] * 3 + [2 / 2.3 * 2 / 2.5]
    for row, chance in enumerate(chances):
        assert rows[row].item() / 4000 == pytest.approx(chance, abs=0.03)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_gss_fills_a_memory_smaller_than_a_batch(size: int) -> None:
    fold = fold_of({"name": "gss", "memory_size": size}, steps=1)
    assert len(fold.strategy.buffer) == size


def test_gdumb_anneals_its_learning_rate_with_restarts() -> None:
    fold = fold_of({"name": "gdumb", "memory_size": 30, "passes": 3}, steps=1)
    strategy, rates = fold.strategy, []
    strategy.optimizer = torch.optim.SGD(strategy.parameters(), lr=0.1)
    original = strategy.minimise
    strategy.minimise = lambda loss: (
        rates.append(strategy.optimizer.param_groups[0]["lr"]),
        original(loss),
    )[1]
    strategy.end_experience(fold.plan.steps[0].experience)
    assert sorted(set(rates)) == pytest.approx([(0.1 + 0.001) / 2, 0.1])
    with pytest.raises(clp.ClpError, match="gdumb anneals its learning rate itself"):
        clp.run(BLOBS, "gdumb", schedule={"name": "steplr", "step_size": 1}, out=None)


def test_gdumb_trains_on_single_samples_too() -> None:
    strategy = {"name": "gdumb", "memory_size": 12, "passes": 2, "memory_batch_size": 1}
    fold = fold_of(strategy, steps=0)
    fold.rng.restart(1)
    fold.train()
    assert clp.run(BLOBS, {**strategy, "passes": 15}, out=None).metrics["average_accuracy"] > 0.7


def test_gdumb_forgets_its_model_and_learns_from_a_balanced_memory_alone() -> None:
    strategy = {"name": "gdumb", "memory_size": 30, "passes": 30}
    fold = fold_of(strategy, steps=1)
    first = flatten(trainable(fold.strategy.model))
    before = [p.detach().clone() for p in fold.strategy.model.parameters()]
    fold.strategy.optimizer = torch.optim.SGD(fold.strategy.parameters(), lr=0.05)
    loss = fold.strategy.training_step(next_batch(fold))
    assert float(loss) == 0
    assert all(
        torch.equal(p, q) for p, q in zip(before, fold.strategy.model.parameters(), strict=True)
    )
    fold.train()
    fold.train()
    assert (flatten(trainable(fold.strategy.model)) - first).norm() > 1
    assert fold.strategy.buffer.y[fold.strategy.buffer.rows()].bincount().tolist() == [5] * 6
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
        float((references @ constrained_projection(g.clone(), references.clone(), m)).min())
        for m in (0.0, 0.5)
    ]
    assert gains[1] > gains[0] + 0.1


@pytest.mark.parametrize("n", [4, 19])
def test_nearly_parallel_constraints_of_a_large_model_are_solved(n: int) -> None:
    base = vectors(300_000)
    references = base + 1e-3 * vectors(n, 300_000, seed=1)
    scale = torch.logspace(-2, 2, n)[:, None]
    gradient = -base + 0.5 * vectors(300_000, seed=2)
    projected = constrained_projection(gradient.clone(), scale * references, 0.0)
    cosines = normalize(references, dim=1) @ normalize(projected, dim=0)
    assert (cosines > -1e-3).all()


def test_the_length_of_a_reference_says_nothing_of_the_nearest_vector() -> None:
    """A memory learned perfectly has gradients whose squares float32 does not know."""
    g, references = vectors(20), vectors(4, 20, seed=1)
    references[0] = -g + 0.1 * references[0]
    expected = constrained_projection(g.clone(), references.clone(), 0.0)
    lengths = torch.tensor([1e-30, 1e-18, 1.0, 1e15])[:, None]
    rows = torch.cat([lengths * references, torch.zeros(1, 20)])
    projected = constrained_projection(g.clone(), rows, 0.0)
    assert torch.allclose(projected, expected, atol=1e-3)
    assert not torch.allclose(projected, g, atol=0.1)


def test_what_is_not_finite_is_left_for_the_loss_to_tell() -> None:
    g, references = vectors(5), torch.full((2, 5), float("inf"))
    references[0] = -g
    assert torch.equal(constrained_projection(g.clone(), references, 0.5), g)


@pytest.mark.parametrize("name", ["a-gem", "gem"])
def test_the_step_taken_does_not_oppose_the_past(name: str) -> None:
    stream = {"name": "permuted-digits", "experiences": 3}
    fold = fold_of({"name": name, "memory_size": 90}, steps=2, stream=stream)
    strategy, step = fold.strategy, fold.plan.steps[2].experience.subset(torch.arange(120))
    fold.rng.restart(3)
    strategy.begin_experience(step)
    strategy.optimizer = torch.optim.SGD(strategy.parameters(), lr=1e-9)
    assert [len(rows) for rows in strategy.past] == [30, 30]
    harmful = 0
    for batch in strategy.batches(step, 6):
        free = flat_gradient(strategy.loss(batch), trainable(strategy.model))
        if name == "gem":
            memories = [strategy.buffer.read(rows) for rows in strategy.past]
        else:
            memories = [strategy.buffer.read(torch.cat(strategy.past)[_choice(strategy, 6)])]
            batch = replace(together([batch, *memories]), replayed=6)
        references = torch.stack([flatten(strategy.memory_gradients(m)) for m in memories])
        harmful += int((references @ free < 0).any())
        strategy.training_step(batch)
        applied = flatten([p.grad for p in trainable(strategy.model)])
        cosines = normalize(references, dim=1) @ normalize(applied, dim=0)
        assert (cosines > -1e-3).all()
    assert harmful > 0


def _choice(strategy: Any, n: int) -> Tensor:
    rows = sum(len(r) for r in strategy.past)
    return torch.randint(rows, (n,), generator=strategy.choice)


def test_gems_constraints_are_the_gradients_of_each_past_memory() -> None:
    fold = fold_of({"name": "gem", "memory_size": 30}, steps=2)
    strategy = fold.strategy
    assert [len(strategy.buffer.group(k)) for k in range(2)] == [10, 10]
    rows = strategy.buffer.group(0)
    old = strategy.buffer.read(rows)
    assert set(old.y.tolist()) <= {0, 1}
    loss = cross_entropy(strategy(old.x), old.y)
    expected = flat_gradient(loss, trainable(strategy.model))
    assert torch.allclose(flatten(strategy.memory_gradients(old)), expected)


# Regularisation


@pytest.mark.parametrize("name", ["ewc", "mas", "si"])
def test_steps_with_a_penalty_follow_the_gradient_of_the_loss(name: str) -> None:
    fold = fold_of({"name": name, "strength": 0.01}, optimizer={"lr": 0.01})
    strategy = fold.strategy
    parameters = trainable(strategy.model)
    anchor = torch.zeros_like(strategy.penalty.anchor)
    strategy.penalty.replace(torch.rand_like(anchor), anchor)
    strategy.strength = 2.0
    strategy.begin_experience(fold.plan.steps[1].experience)
    strategy.optimizer = torch.optim.SGD(strategy.parameters(), lr=0.0)
    batch = next(strategy.batches(fold.plan.steps[1].experience, 8))
    expected = strategy.loss(batch)
    free = flat_gradient(cross_entropy(strategy(batch.x), batch.y), parameters)
    gradient = flat_gradient(expected, parameters)
    assert torch.allclose(strategy.training_step(batch), expected)
    found = flatten([p.grad for p in parameters])
    assert torch.allclose(found, gradient, atol=1e-6)
    assert not torch.allclose(found, free, atol=1e-4)


def test_a_penalised_loss_that_a_subclass_overrides_is_what_it_learns_by() -> None:
    class Still(EWC):
        def loss(self, batch: Batch) -> Tensor:
            return 0 * super().loss(batch)

    fold = fold_of("ewc")
    fold.strategy.__class__ = Still
    batch = next(fold.strategy.batches(fold.plan.steps[1].experience, 8))
    fold.strategy.optimizer = torch.optim.SGD(fold.strategy.parameters(), lr=0.1)
    before = flatten(trainable(fold.strategy.model))
    fold.strategy.training_step(batch)
    assert torch.equal(flatten(trainable(fold.strategy.model)), before)


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


@pytest.mark.parametrize(
    ("scenario", "trained"), [("class", [0, 1, 2, 3]), ("task", [2, 3]), ("domain", [0, 1])]
)
def test_mas_takes_the_absolute_gradient_of_the_squared_outputs_that_are_trained(
    scenario: str, trained: list[int]
) -> None:
    stream = {**BLOBS, "scenario": scenario}
    if scenario == "domain":
        stream = {"name": "split-digits", "scenario": "domain", "samples": 30}
    fold = fold_of("mas", steps=2, stream=stream)
    strategy, experience = fold.strategy, fold.plan.steps[1].experience
    assert isinstance(strategy, MAS)
    by_hand = torch.zeros_like(strategy.penalty.importance)
    for b in strategy.batches(experience, 1):
        norm = strategy.model(b.x)[:, trained].square().sum()
        gradient = flat_gradient(norm, trainable(strategy.model))
        by_hand += gradient.abs() / len(experience.train)
    assert torch.allclose(strategy.sensitivity(experience), by_hand, rtol=1e-3, atol=1e-6)


def test_mas_sums_importances_over_experiences() -> None:
    fold = fold_of("mas", steps=1)
    first = fold.strategy.penalty.importance.clone()
    fold.train()
    strategy = fold.strategy
    second = strategy.sensitivity(fold.plan.steps[1].experience)
    assert torch.allclose(strategy.penalty.importance, first + second, rtol=1e-4, atol=1e-6)


def test_sis_path_integral_is_the_fall_of_the_loss_for_small_steps() -> None:
    fold = fold_of("si", steps=0, batch_size=60, epochs=400, optimizer={"lr": 1e-4})
    strategy, step = fold.strategy, fold.plan.steps[0]
    whole = next(strategy.batches(step.experience, 1000))
    before = cross_entropy(strategy(whole.x), whole.y).item()
    fold.train()
    fall = before - cross_entropy(strategy(whole.x), whole.y).item()
    assert fall > 0.1
    assert float(strategy.path.sum()) == pytest.approx(fall, rel=0.02)


KERNELS = [
    (name, kernel)
    for name, cls in OPTIMIZERS.items()
    for kernel in ("plain", "foreach", "fused")
    if kernel == "plain" or kernel in signature(cls).parameters
]


@pytest.mark.parametrize(("name", "kernel"), KERNELS)
def test_sis_path_integral_takes_the_gradients_from_before_the_step(name: str, kernel: str) -> None:
    settings: dict[str, object] = {} if kernel == "plain" else {kernel: True}
    if name == "sgd":
        settings |= {"momentum": 0.9, "nesterov": True}
    fold = fold_of("si", steps=0)
    strategy = fold.strategy
    model = strategy.model = nn.Linear(5, 6, bias=name != "muon")  # muon takes matrices only
    strategy.path = nn.Buffer(torch.zeros_like(flatten(trainable(model))))
    strategy.begin_experience(fold.plan.steps[0].experience)
    strategy.optimizer = OPTIMIZERS[name](model.parameters(), lr=0.02, **settings)
    expected = torch.zeros_like(strategy.path)
    for _ in range(3):
        loss = model(vectors(8, 5)).square().mean()
        slope = flat_gradient(loss, trainable(model))
        before = flatten(trainable(model))
        strategy.minimise(model(vectors(8, 5)).square().mean())
        expected += slope * (before - flatten(trainable(model)))
    assert torch.allclose(strategy.path, expected, rtol=1e-4, atol=1e-8)


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


def test_tasks_that_share_their_classes_are_one_head_for_lwf() -> None:
    losses = []
    for scenario in ("domain", "task"):
        stream = {"name": "permuted-digits", "experiences": 4, "scenario": scenario}
        fold = fold_of({"name": "lwf", "alpha": 3.0}, stream=stream, epochs=1)
        fold.train()
        fold.rng.restart(4)
        fold.strategy.begin_experience(fold.plan.steps[3].experience)
        losses.append(fold.strategy.loss(next_batch(fold)).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("scenario", ["class", "task"])
def test_lwf_distils_over_the_heads_of_the_past(scenario: str) -> None:
    fold = fold_of(
        {"name": "lwf", "alpha": 1.5, "temperature": 2.0}, stream={**BLOBS, "scenario": scenario}
    )
    strategy, teacher = fold.strategy, copy.deepcopy(fold.strategy.model)
    step = fold.plan.steps[2].experience
    fold.rng.restart(3)
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


def test_with_all_seen_as_rivals_lwf_pushes_new_classes_down_on_new_data() -> None:
    fold = fold_of({"name": "lwf", "alpha": 1.5, "rivals": "seen"})
    strategy, teacher = fold.strategy, copy.deepcopy(fold.strategy.model)
    step = fold.plan.steps[2].experience
    strategy.begin_experience(step)
    batch = next(strategy.batches(step, 8))
    padded = torch.cat([(teacher(batch.x)[:, :4] / 2).softmax(1), torch.zeros(8, 2)], dim=1)
    new = (strategy.model(batch.x) / 2).log_softmax(1)
    expected = cross_entropy(strategy(batch.x), batch.y) + 1.5 * kl_div(
        new, padded, reduction="batchmean"
    )
    assert strategy.loss(batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_lwf_can_weigh_the_new_data_less_and_less() -> None:
    losses = []
    for balance in (False, True):
        fold = fold_of({"name": "lwf", "alpha": 0.0, "balance": balance}, steps=1)
        fold.rng.restart(3)
        losses.append(fold.strategy.loss(next_batch(fold)).item())
    assert losses[1] == pytest.approx(losses[0] / 3)


def test_icarls_loss_takes_labels_for_new_and_the_teacher_for_old_classes() -> None:
    fold = fold_of({"name": "icarl", "memory_size": 24, "memory_batch_size": 5}, steps=1)
    strategy, step = fold.strategy, fold.plan.steps[1].experience
    teacher = copy.deepcopy(strategy.model).eval()
    fold.rng.restart(2)
    strategy.begin_experience(step)
    with torch.no_grad():
        for p in strategy.model.parameters():
            p.add_(0.05)
    batch = with_replay(strategy, next(strategy.batches(step, 8)))
    assert batch.replayed == 5
    logits, taught, y = strategy.model(batch.x), teacher(batch.x).sigmoid(), batch.y
    expected = torch.zeros(())
    for c in range(4):  # classes 4 and 5 have not come yet
        target = taught[:, c] if c < 2 else (y == c).float()
        chance = logits[:, c].sigmoid()
        expected = expected - (target * chance.log() + (1 - target) * (1 - chance).log()).mean()
    assert strategy.loss(batch).item() == pytest.approx(expected.item(), rel=1e-4)


def test_icarl_trains_with_all_its_exemplars_and_reduces_them_afterwards() -> None:
    fold = fold_of({"name": "icarl", "memory_size": 24}, steps=1)
    fold.rng.restart(2)
    fold.strategy.begin_experience(fold.plan.steps[1].experience)
    assert len(fold.strategy.buffer) == 24
    assert fold.strategy.share == 24 / 60


def test_icarl_does_without_classes_that_have_no_sample() -> None:
    stream = {"name": "split-digits", "samples": 1}
    result = clp.run(stream, {"name": "icarl", "memory_size": 20}, out=None)
    assert 0 < result.metrics["average_accuracy"] < 1


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
    with pytest.raises(clp.ClpError, match="icarl needs new classes in every experience"):
        clp.run({"name": "permuted-digits", "scenario": "task"}, "icarl", out=None)
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


def on_blobs(name: str) -> float:
    """The average accuracy of a method."""
    return clp.run(BLOBS, name, epochs=3, out=None, seed=1).metrics["average_accuracy"]


def on_permuted_digits(name: str) -> clp.Result:
    stream = {"name": "permuted-digits", "experiences": 3}
    return clp.run(stream, name, epochs=3, batch_size=25, out=None, lr=0.05)


@pytest.fixture(scope="module")
def plain_on_blobs() -> float:
    return on_blobs("finetune")


@pytest.fixture(scope="module")
def plain_on_permuted_digits() -> clp.Result:
    return on_permuted_digits("finetune")


@pytest.mark.system
@pytest.mark.parametrize("name", ["er", "er-ace", "der", "der++", "mir", "gss", "gdumb", "icarl"])
def test_methods_with_a_memory_forget_less_than_fine_tuning(
    plain_on_blobs: float, name: str
) -> None:
    assert plain_on_blobs < 0.5
    assert on_blobs(name) > plain_on_blobs + 0.2


@pytest.mark.system
@pytest.mark.parametrize(
    ("name", "gain"), [("a-gem", 0.02), ("gem", 0.05), ("ewc", 0.0), ("si", 0.0), ("mas", 0.0)]
)
def test_on_permuted_digits_methods_without_replay_do_not_harm(
    plain_on_permuted_digits: clp.Result, name: str, gain: float
) -> None:
    plain, kept = plain_on_permuted_digits, on_permuted_digits(name)
    assert kept.metrics["average_accuracy"] > plain.metrics["average_accuracy"] + gain - 0.01
    assert kept.matrix.values.tolist() != plain.matrix.values.tolist()


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (lambda: EWC(mode="seperate"), "strategy.mode=seperate"),
        (lambda: Refresh(inner=ER(), mode="papr"), "strategy.mode=papr"),
        (lambda: Refresh(inner=ER(memory="rign")), "strategy.inner.memory=rign"),
        (lambda: ER(memory_size="50"), "strategy.memory_size='50' is text: expected 50"),
        (lambda: Refresh(inner="er"), "give a strategy object"),
    ],
)
def test_wrong_hyperparameters_of_objects_are_named(strategy: Any, message: str) -> None:
    with pytest.raises(clp.ClpError, match=message):
        clp.run(BLOBS, strategy(), out=None)


def test_batch_norm_with_single_samples_says_what_to_do() -> None:
    stream = {"name": "split-digits", "samples": 1}
    with pytest.raises(clp.ClpError, match=r"raise batch_size or give model\.norm=group"):
        clp.run(stream, "finetune", model="slim-resnet18", out=None)
