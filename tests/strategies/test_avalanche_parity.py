"""Parity with Avalanche's own code: the same weights, data and order of batches on both sides."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from cl_platform import Batch, ReplayBuffer, Samples, Stream, class_incremental
from cl_platform.config.run_config import parse_config
from cl_platform.core.preprocess import Preprocess
from cl_platform.core.rng import RNG
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.engine.training import chunks
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.gem import averaged_projection
from strategies.parts.gradients import flat_gradient, flatten, trainable

pytestmark = pytest.mark.filterwarnings("ignore")  # there are many in Avalanche

LR, EPOCHS, BATCH, SEED = 0.1, 5, 16, 3
CLASSES = [[0, 3], [5, 1], [2, 4]]
N = 90  # samples per experience: the last batch is a smaller one


@pytest.fixture(scope="module")
def avalanche() -> Any:
    """The package, imported here because that takes long. Without it nothing here can pass."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import avalanche.benchmarks
        import avalanche.training
    return avalanche


def toy_stream() -> Stream:
    """Six overlapping Gaussian classes in three experiences."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(6, 8, generator=generator)
    y = torch.arange(6).repeat_interleave(N // 2)
    data = Samples.of(centres[y] + torch.randn(len(y), 8, generator=generator), y)
    return class_incremental("toy", CLASSES, "abcdef", data, data)


STREAM = toy_stream()


def begin(strategy: str, **parameters: Any) -> Fold:
    """A run of ours before its first experience."""
    data = {"stream": {"name": "toy"}, "strategy": {"name": strategy, **parameters}, "seed": SEED}
    data |= {"model": {"name": "mlp", "hidden": [16]}, "optimizer": {"lr": LR}}
    config = parse_config({**data, "epochs": EPOCHS, "batch_size": BATCH}, given=("stream",))
    return Fold(make_plan(config, {"stream": STREAM}), StateStore(None), Trackers())


def dataset(avalanche: Any, samples: Samples) -> Any:
    """The samples as a data set of Avalanche."""
    make = avalanche.benchmarks.utils._make_taskaware_tensor_classification_dataset
    return make(samples.x, samples.y, task_labels=torch.zeros(len(samples)).long())


def drawn(step: int) -> list[list[Tensor]]:
    """The batches of all epochs, as our training draws them in a step (from 1)."""
    draws = RNG(SEED)
    draws.restart(step)
    given = STREAM[step - 1].train, None, BATCH, Preprocess(), draws.generator("shuffle")
    epochs = [chunks(*given, draws.generator("augment")) for _ in range(EPOCHS)]
    batches = [b for epoch in epochs for chunk in epoch for b in chunk.batches()]
    return [[b.x, b.y, torch.zeros_like(b.y)] for b in batches]


def in_step(avalanche: Any, plugin: Any, strategy: str, **parameters: Any) -> Iterator[Any]:
    """Our strategy after each experience; Avalanche's plugin, then in the same place, has led to
    the same weights. In the end they are not those of training without the method."""
    fold, plain = begin(strategy, **parameters), begin("finetune")
    start = weights(fold.strategy.model)
    model = copy.deepcopy(fold.strategy.model)
    learner = avalanche.training.supervised.Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), LR),
        train_mb_size=BATCH,
        plugins=[plugin],
        evaluator=avalanche.training.plugins.EvaluationPlugin(),
    )
    data = [dataset(avalanche, e.train) for e in STREAM.experiences]
    benchmark = avalanche.benchmarks.benchmark_from_datasets(train=data)
    for step, experience in enumerate(benchmark.train_stream, start=1):
        loader = drawn(step)
        learner.make_train_dataloader = lambda d=loader, **_: setattr(learner, "dataloader", d)
        learner.train(experience, eval_streams=[])
        fold.train()
        plain.train()
        close(weights(fold.strategy.model), weights(model))
        yield fold.strategy
    moved = weights(plain.strategy.model) - start
    assert moved.norm() > start.norm() / 2
    assert (weights(model) - weights(plain.strategy.model)).norm() > moved.norm() / 4


def weights(model: nn.Module) -> Tensor:
    return flatten(trainable(model))


def joined(values: Mapping[str, Any]) -> Tensor:
    """What Avalanche keeps for each parameter, by name, as one vector."""
    return torch.cat([v.data.flatten() for v in values.values()])


def close(ours: Tensor, theirs: Tensor) -> None:
    assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("mode", ["separate", "online"])
def test_ewc_has_the_same_importances_penalty_and_weights(avalanche: Any, mode: str) -> None:
    online = mode == "online"
    plugin = avalanche.training.plugins.EWCPlugin(20.0, mode, decay_factor=0.5 if online else None)
    fisher = {"fisher": "batch", "fisher_samples": None, "fisher_batch_size": BATCH}
    held = {"mode": mode, "strength": 40.0, "decay": 0.5}
    for k, ours in enumerate(in_step(avalanche, plugin, "ewc", **held, **fisher)):
        terms = [joined(plugin.importances[i]) for i in ([k] if online else range(k + 1))]
        assert terms[-1].max() > 0.01
        close(ours.penalty.importance, torch.stack(terms).sum(0))
        for seed in range(3):  # anywhere, not only where training led
            there = copy.deepcopy(ours.model)
            noise = torch.randn(len(weights(there)), generator=torch.Generator().manual_seed(seed))
            nn.utils.vector_to_parameters(weights(there) + 0.3 * noise, there.parameters())
            theirs = SimpleNamespace(model=there, loss=torch.zeros(()), device="cpu")
            theirs.clock = SimpleNamespace(train_exp_counter=k + 1)
            plugin.before_backward(theirs)
            penalty = ours.strength * ours.penalty(there)
            assert theirs.loss > 0.1
            close(penalty, theirs.loss)
            parameters = trainable(there)
            close(flat_gradient(penalty, parameters), flat_gradient(theirs.loss, parameters))


@pytest.mark.parametrize(("estimate", "size"), [("empirical", 1), ("batch", 7), ("batch", N)])
def test_fisher_information_is_the_same_for_any_batch_size(
    avalanche: Any, estimate: str, size: int
) -> None:
    fold = begin("ewc", fisher=estimate, fisher_samples=None, fisher_batch_size=size)
    fold.train()
    model = copy.deepcopy(fold.strategy.model)
    data, sgd = dataset(avalanche, STREAM[0].train), torch.optim.SGD(model.parameters())
    plugin = avalanche.training.plugins.EWCPlugin(1.0)
    theirs = plugin.compute_importances(model, cross_entropy, sgd, data, "cpu", size)
    assert joined(theirs).max() > 1e-3
    close(fold.strategy.penalty.importance, joined(theirs))  # type: ignore[union-attr]


def test_si_has_the_same_path_importances_and_weights(
    avalanche: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = avalanche.training.plugins.SynapticIntelligencePlugin(si_lambda=2000.0, eps=2.0)
    extract = plugin.extract_weights

    def copies(model: nn.Module, target: dict[str, Any], excluded: set[str]) -> None:
        extract(model, target, excluded)
        for kept in target.values():
            kept.data = kept.data.clone()

    # What 0.6.0 keeps of weights on a CPU are views of them, so that no step has a length and its
    # importances stay 0. From another device `.cpu()` makes the copies that are meant.
    monkeypatch.setattr(type(plugin), "extract_weights", staticmethod(copies))
    settings = {"strength": 2000.0, "damping": 2.0, "ceiling": 0.001}
    for ours in in_step(avalanche, plugin, "si", **settings):
        close(ours.path, -joined(plugin.syn_data["trajectory"]))
        close(ours.gained, -joined(plugin.syn_data["cum_trajectory"]))
        close(ours.penalty.importance, joined(plugin.ewc_data[1]))
        close(ours.penalty.anchor, joined(plugin.ewc_data[0]))
        at_ceiling = (ours.penalty.importance >= 0.001).float().mean()
        assert 0.05 < at_ceiling < 0.95


def test_lwf_has_the_same_distillation_and_weights(avalanche: Any) -> None:
    alpha = [0.0, 4.0, 16.0]
    plugin = avalanche.training.plugins.LwFPlugin(alpha, temperature=2)
    for ours in in_step(avalanche, plugin, "lwf", alpha=alpha, temperature=2.0):
        logits, taught = 3 * torch.randn(2, 20, 6, generator=torch.Generator().manual_seed(1))
        old = [c for group in CLASSES[: ours.index] for c in group]
        if old:
            theirs = plugin.lwf._distillation_loss(logits, taught, old)
            assert theirs > 0.1
            close(ours.distillation(logits, taught), theirs)


@pytest.mark.parametrize("conflict", [False, True])
def test_a_gem_projects_the_same_gradient(avalanche: Any, conflict: bool) -> None:
    fold = begin("a-gem", memory_size=len(CLASSES) * N)  # all of an experience
    fold.train()
    ours: Any = fold.strategy
    model = copy.deepcopy(ours.model)
    sgd = torch.optim.SGD(model.parameters(), LR)
    theirs = SimpleNamespace(model=model, optimizer=sgd, _criterion=cross_entropy, device="cpu")
    plugin = avalanche.training.plugins.AGEMPlugin(patterns_per_experience=N, sample_size=N)
    plugin.update_memory(dataset(avalanche, STREAM[0].train))
    plugin.before_training_iteration(theirs)
    reference = plugin.reference_gradients.clone()
    close(flatten(ours.memory_gradients(ours.buffer.group(0))), reference)

    new = STREAM[1 if conflict else 0].train
    cross_entropy(model(new.x), new.y).backward()
    gradient = flatten([p.grad for p in trainable(model)])  # type: ignore[misc]
    assert (gradient @ reference < 0) == conflict
    plugin.after_backward(theirs)
    projected = flatten([p.grad for p in trainable(model)])  # type: ignore[misc]
    assert torch.equal(projected, gradient) != conflict
    close(averaged_projection([gradient], [reference])[0], projected)


def test_reservoirs_hold_every_sample_equally_often(avalanche: Any) -> None:
    size, n, repetitions = 3, 12, 800
    plan = begin("finetune").plan
    torch.manual_seed(0)
    ours, theirs = torch.zeros(2, n)
    for seed in range(repetitions):
        memory = ReplayBuffer(size, plan.info(RNG(seed)))
        reservoir = avalanche.training.storage_policy.ReservoirSamplingBuffer(size)
        for ids in torch.arange(n).split(5):
            raw = ids.float()[:, None].expand(-1, 8)
            memory.add(Batch(raw, ids, None, raw))
            reservoir.update_from_dataset(dataset(avalanche, Samples.of(raw, ids)))
        ours[memory.y[:size]] += 1
        theirs[[int(y) for y in reservoir.buffer.targets]] += 1
    assert ours.sum() == theirs.sum() == repetitions * size

    # Every memory holds `size` of `n`: inclusions are negatively correlated, n-1 degrees are left.
    expected = repetitions * size / n
    variance = expected * (1 - size / n) * n / (n - 1)
    for difference, spread in ((ours - expected, 1), (theirs - expected, 1), (ours - theirs, 2)):
        statistic = float(difference.square().sum() / (spread * variance))
        assert stats.chi2.sf(statistic, n - 1) > 1e-4
