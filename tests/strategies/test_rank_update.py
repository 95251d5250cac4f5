"""Incremental rank updates: nothing is forgotten to the bit, and the past is of use."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

import cl_platform as clp
from cl_platform import Batch
from cl_platform.config.run_config import parse_config
from cl_platform.core.rng import global_generators, seed_for
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.rank_update import RankLayer, RankUpdate

BLOBS = {"name": "blobs", "experiences": 3, "samples_per_class": 30, "scenario": "task"}
DIGITS = {"name": "split-digits", "samples": 24, "scenario": "task"}
MLP = {"name": "mlp", "hidden": [12, 12]}
SGD = {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}
ADAM = {"name": "adam", "lr": 0.01, "weight_decay": 0.01}
KEPT = {"reset": False}  # the optimizer's memory is carried over to later tasks
NETWORKS = [
    MLP,
    {"name": "cnn", "width": 4},
    {"name": "slim-resnet18", "width": 4},
    {"name": "slim-resnet18", "width": 4, "norm": "group"},
]


def fold_of(
    steps: int,
    stream: dict | None = None,
    model: dict | None = None,
    folder: Path | None = None,
    settings: dict | None = None,
    **strategy: Any,
) -> Fold:
    """A run with three terms for the first task and two for the others, after some steps."""
    section = {"name": "rank-update", "rank_first": 3, "rank_next": 2, **strategy}
    data = {"stream": stream or BLOBS, "strategy": section, "model": model or MLP}
    plan = make_plan(parse_config({**data, **(settings or {})}))
    fold = Fold(plan, StateStore(folder), Trackers())
    for _ in range(steps):
        fold.train()
    return fold


def batch_of(fold: Fold, place: int, size: int = 20) -> Batch:
    return next(fold.strategy.batches(fold.plan.steps[place].experience, size))


@torch.no_grad()
def logits_of(fold: Fold, place: int) -> Tensor:
    """Of some samples of the experience in a place."""
    batch = batch_of(fold, place)
    logits: Tensor = fold.strategy.eval()(batch.x, batch.task)
    return logits


def layers(model: nn.Module) -> list[RankLayer]:
    """The hidden layers."""
    return [layer for layer in model.modules() if isinstance(layer, RankLayer)]


def weights(model: nn.Module) -> list[Tensor]:
    """The weights of the hidden layers as matrices."""
    return [layer.weight.detach().flatten(1) for layer in layers(model)]


def selectors(model: nn.Module) -> list[nn.Parameter]:
    return [layer.selector for layer in layers(model)]


def columns(strategy: RankUpdate) -> list[tuple[Tensor, Tensor]]:
    """The own U and V of all layers of all models."""
    return [(layer.left, layer.right) for layer in layers(strategy.models)]


def begun(fold: Fold) -> RankUpdate:
    """The strategy at the beginning of the next experience."""
    place = fold.position
    fold.rng.restart(place + 1)
    with global_generators(seed_for(fold.plan.config.seed, place + 1, "global")):
        fold.strategy.begin_experience(fold.plan.steps[place].experience)
    return fold.strategy


# What is kept


@pytest.mark.parametrize("optimizer", [SGD, {**SGD, **KEPT}, ADAM, {**ADAM, **KEPT}], ids=str)
@pytest.mark.parametrize("model", NETWORKS, ids=str)
def test_after_every_later_task_the_logits_of_old_ones_have_the_same_bits(
    model: dict, optimizer: dict
) -> None:
    fold = fold_of(0, DIGITS, model, settings={"optimizer": optimizer, "batch_size": 8})
    first: list[Tensor] = []
    for place in range(len(fold.plan.steps)):
        fold.train()
        first.append(logits_of(fold, place))
        for earlier in range(place + 1):
            assert torch.equal(logits_of(fold, earlier), first[earlier]), (place, earlier)
    assert all(not torch.equal(a, b) for a, b in zip(first[1:], first[:-1], strict=True))


def test_training_changes_what_is_new_and_nothing_else() -> None:
    fold = fold_of(2, DIGITS, {"name": "cnn", "width": 4}, settings={"optimizer": {**SGD, **KEPT}})
    before = {name: value.clone() for name, value in fold.strategy.state_dict().items()}
    fold.train()
    after = fold.strategy.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if name != "learned")
    new = [name for name in after if name not in before]
    started = begun(fold_of(2, DIGITS, {"name": "cnn", "width": 4})).state_dict()
    assert new
    assert all(name.startswith("models.2.") for name in new)
    unmoved = [name for name in new if torch.equal(after[name], started[name])]
    assert not unmoved


def test_accuracy_on_a_task_stays_what_it_was() -> None:
    matrix = clp.run(BLOBS, "rank-update", out=None, epochs=2).matrix
    for task in range(3):
        assert len({matrix[k, task] for k in range(task + 1, 4)}) == 1
        assert {matrix[k, task] for k in range(task + 1)} == {0.5}  # not learned yet: a tie of two


# The weights


@pytest.mark.parametrize("model", NETWORKS, ids=str)
def test_ranks_are_bounded_by_the_number_of_terms(model: dict) -> None:
    fold = fold_of(3, DIGITS, model, settings={"optimizer": ADAM, "batch_size": 8})
    for place, own in enumerate(fold.strategy.models):
        bound = 3 + 2 * place
        found = [(int(torch.linalg.matrix_rank(w)), min(w.shape)) for w in weights(own)]
        # Twelve and more steps fill the ranks there are, where the layer's shape allows it.
        assert all(rank == min(bound, smallest) for rank, smallest in found)


def test_a_weight_is_u_diag_s_v_of_the_columns_so_far() -> None:
    fold = fold_of(3)
    for place, model in enumerate(fold.strategy.models):
        for i, (weight, s) in enumerate(zip(weights(model), selectors(model), strict=True)):
            held = columns(fold.strategy)[i::2][: place + 1]
            u, v = (torch.cat(part, 1) for part in zip(*held, strict=True))
            assert len(s) == u.shape[1] == v.shape[1]
            assert torch.allclose(weight, u @ torch.diag(s) @ v.T, atol=1e-5)


def test_a_new_task_starts_from_its_own_orthonormal_terms_alone() -> None:
    strategy = begun(fold_of(2))
    assert [s.tolist() for s in selectors(strategy.models[2])] == [[0.0] * 5 + [1.0] * 2] * 2
    for weight, (u, v) in zip(weights(strategy.models[2]), columns(strategy)[-2:], strict=True):
        assert torch.allclose(weight, u @ v.T, atol=1e-5)
        for part in (u, v):
            assert torch.allclose(part.T @ part, torch.eye(2), atol=1e-5)


def test_a_known_weight() -> None:
    first = RankLayer(nn.Linear(3, 2), 1, [])
    later = RankLayer(nn.Linear(3, 2), 1, [first])
    with torch.no_grad():
        first.left.copy_(torch.tensor([[1.0], [2.0]]))
        first.right.copy_(torch.tensor([[3.0], [0.0], [-1.0]]))
        later.left.copy_(torch.tensor([[0.0], [1.0]]))
        later.right.copy_(torch.tensor([[1.0], [1.0], [1.0]]))
        later.selector.copy_(torch.tensor([0.5, 2.0]))
    assert first.weight.tolist() == [[3, 0, -1], [6, 0, -2]]
    assert later.weight.tolist() == [[1.5, 0, -0.5], [5, 2, 1]]
    x = torch.tensor([[1.0, 2.0, 3.0]])
    assert torch.allclose(later(x) - later.layer.bias, torch.tensor([[0.0, 12.0]]), atol=1e-5)


@pytest.mark.parametrize(
    "arguments",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
        {"kernel_size": (1, 5), "stride": 2, "bias": False},
        {"kernel_size": 3, "groups": 2, "dilation": 2},
    ],
    ids=str,
)
def test_a_factorised_convolution_is_the_one_with_the_explicit_kernel(arguments: dict) -> None:
    explicit, x = nn.Conv2d(4, 6, **arguments), torch.randn(2, 4, 9, 9)
    ranked = RankLayer(copy.deepcopy(explicit), 5, [])
    with torch.no_grad():
        ranked.selector.copy_(torch.arange(5.0))
        explicit.weight.zero_()
        for r in range(5):
            term = torch.outer(ranked.left[:, r], ranked.right[:, r])
            explicit.weight += r * term.reshape(explicit.weight.shape)
    assert torch.allclose(ranked(x), explicit(x), atol=1e-4)


def test_a_factorised_convolution_mixes_the_maps_of_its_columns() -> None:
    ranked, x = RankLayer(nn.Conv2d(4, 6, 3), 5, []), torch.randn(2, 4, 9, 9)
    maps = conv2d(x, ranked.right.T.reshape(5, 4, 3, 3)).movedim(1, -1)
    mixed = linear(maps, ranked.left, ranked.layer.bias).movedim(-1, 1)
    assert torch.allclose(ranked(x), mixed, atol=1e-4)


def test_more_terms_than_dimensions_are_possible() -> None:
    stream = {**DIGITS, "experiences": 2}
    result = clp.run(stream, "rank-update", model={"name": "cnn", "width": 4}, out=None, epochs=2)
    assert result.metrics["forgetting"] == 0


# The selectors


def test_selectors_of_old_terms_have_a_gradient_and_learn() -> None:
    fold = fold_of(2, DIGITS)
    strategy = begun(fold)
    strategy.loss(batch_of(fold, 2)).backward()
    for s in selectors(strategy.models[2]):
        assert s.grad is not None
        assert (s.grad[:5] != 0).all()
    assert not any(p.requires_grad for model in strategy.models[:2] for p in model.parameters())
    learned = fold_of(3, DIGITS).strategy.models[2]
    assert all((s[:5] != 0).all() for s in selectors(learned))


def test_without_new_terms_a_task_weighs_the_old_ones_anew() -> None:
    strategy = fold_of(3, rank_next=0, settings={"epochs": 3}).strategy
    for place, layer in ((p, i) for p in (1, 2) for i in range(2)):
        u, v = columns(strategy)[layer]
        s = selectors(strategy.models[place])[layer]
        assert (s != 0).all()
        assert torch.allclose(weights(strategy.models[place])[layer], (u * s) @ v.T, atol=1e-5)


@pytest.mark.parametrize("optimizer", [SGD, ADAM], ids=str)
def test_the_ablation_keeps_the_selectors_of_old_terms_at_zero(optimizer: dict) -> None:
    strategy = fold_of(3, terms="new", settings={"optimizer": optimizer}).strategy
    for place, model in enumerate(strategy.models):
        own = columns(strategy)[2 * place : 2 * place + 2]
        for weight, s, (u, v) in zip(weights(model), selectors(model), own, strict=True):
            assert len(s) == (2 if place else 3)
            assert torch.allclose(weight, (u * s) @ v.T, atol=1e-5)


def test_the_ablation_begins_like_the_method_and_parts_from_it_in_the_second_task() -> None:
    both = [fold_of(1, terms=terms) for terms in ("shared", "new")]
    assert torch.equal(logits_of(both[0], 0), logits_of(both[1], 0))
    starts = [weights(begun(fold).models[1]) for fold in both]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*starts, strict=True))
    for fold in both:
        fold.train()
    assert not torch.allclose(logits_of(both[0], 1), logits_of(both[1], 1), atol=1e-3)


def test_models_of_their_own_have_as_many_terms_as_shared_ones() -> None:
    shared, own = (fold_of(3, terms=terms).strategy for terms in ("shared", "own"))
    for a, b in zip(shared.models, own.models, strict=True):
        assert [len(s) for s in selectors(a)] == [len(s) for s in selectors(b)]
    ranks = [u.shape[1] for u, _ in columns(own)]
    assert ranks == [3, 3, 5, 5, 7, 7]


# What is stored


def test_the_parameters_of_the_published_network() -> None:
    """784-256-256-10, 20 tasks, 11 terms and one more for every later task."""
    samples = clp.Samples.of(torch.randn(10, 1, 28, 28), torch.arange(10))
    tasks = [
        clp.Experience(f"task {t}", tuple(range(10)), t, samples, samples.emptied(), samples)
        for t in range(20)
    ]
    stream = clp.Stream("noise", "task", tuple(tasks), tuple("0123456789"))
    data = {"strategy": "rank-update", "model": {"name": "mlp", "hidden": [256, 256]}}
    config = parse_config({**data, "stream": stream.name}, given=("stream",))
    fold = Fold(make_plan(config, {"stream": stream}), StateStore(None), Trackers())
    fold.train()
    assert counted(fold) == {"factors": 17_072, "selectors": 22, "biases": 522, "heads": 2_560}
    for _ in range(19):
        fold.train()
    expected = {"factors": 46_560, "selectors": 820, "biases": 10_440, "heads": 51_200}
    assert counted(fold) == expected
    assert fold._cost(0.0)["parameters"] == sum(expected.values())
    assert fold._cost(0.0)["trainable_parameters"] == 256 + 784 + 512 + 2 * 30 + 522 + 2_560


def counted(fold: Fold) -> dict[str, int]:
    """Numbers in the stored state by what they are; every parameter is one of these."""
    kinds = {
        "factors": (".left", ".right"),
        "selectors": (".selector",),
        "biases": (".bias",),
        "heads": ("classifier.weight",),
    }
    state = {name: v for name, v in fold.state.strategy.items() if name != "learned"}
    found = {k: sum(v.numel() for n, v in state.items() if n.endswith(e)) for k, e in kinds.items()}
    assert sum(found.values()) == sum(v.numel() for v in state.values())
    return found


def test_a_head_has_the_classes_of_its_task_only() -> None:
    fold = fold_of(3)
    for place in range(3):
        logits, task = logits_of(fold, place), fold.plan.steps[place].experience
        assert logits.isfinite().any(0).nonzero().flatten().tolist() == list(task.classes)
        assert fold.strategy.models[place].classifier.weight.shape == (2, 12)


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("model", [MLP, {"name": "cnn", "width": 4}], ids=str)
def test_a_killed_run_goes_on_to_the_same_bits(model: dict, k: int, tmp_path: Path) -> None:
    settings = {"optimizer": {**SGD, **KEPT}}
    undisturbed = fold_of(3, DIGITS, model, settings=settings)
    fold_of(k, DIGITS, model, tmp_path, settings)
    resumed = fold_of(0, DIGITS, model, tmp_path, settings)
    before = torch.random.get_rng_state()
    assert resumed.load(k)
    assert torch.equal(torch.random.get_rng_state(), before)
    cost = resumed._cost(0.0)["trainable_parameters"]
    assert cost == fold_of(k, DIGITS, model, settings=settings)._cost(0.0)["trainable_parameters"]
    for _ in range(3 - k):
        resumed.train()
    states = undisturbed.state.strategy, resumed.state.strategy
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert all(torch.equal(logits_of(undisturbed, p), logits_of(resumed, p)) for p in range(3))


def test_a_copy_answers_for_itself() -> None:
    fold = fold_of(2)
    original, batch = logits_of(fold, 1), batch_of(fold, 1)
    twin = copy.deepcopy(fold.strategy)
    with torch.no_grad():
        for parameter in fold.strategy.parameters():
            parameter.zero_()
        assert torch.equal(twin(batch.x, batch.task), original)


# Tasks in any order, together


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 2, 0]], ids=str)
def test_tasks_are_known_by_their_label_in_any_order(order: list[int]) -> None:
    settings = {"curriculum": order, "epochs": 10, "optimizer": {"name": "adam", "lr": 0.01}}
    fold = fold_of(3, settings=settings)
    assert fold.strategy.learned.tolist() == order
    accuracies = clp.run(BLOBS, "rank-update", out=None, **settings).matrices["task"].values
    for place in range(3):
        assert accuracies[place + 1 :, place].min() > 0.9
        assert (accuracies[: place + 1, place] == 0.5).all()


def test_tasks_in_one_batch_get_what_they_get_alone() -> None:
    fold = fold_of(2, settings={"curriculum": [2, 0, 1]})
    parts = [batch_of(fold, place) for place in range(3)]
    x, task = torch.cat([b.x for b in parts]), torch.cat([b.task for b in parts])
    shuffled = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = fold.strategy.eval()(x[shuffled], task[shuffled])[shuffled.argsort()]
        alone = torch.cat([fold.strategy(b.x, b.task) for b in parts])
    assert torch.allclose(together, alone, atol=1e-5)
    own = fold.strategy.info.task_classes[task]
    assert torch.equal(together.isfinite(), own)
    assert set(together[40:][own[40:]].tolist()) == {0.0}  # not learned yet


# What it refuses


class Headless(nn.Module):
    """A network whose last layer is not called `classifier`."""

    def __init__(self, input_shape: tuple[int, ...], n_classes: int) -> None:
        super().__init__()
        self.last = nn.Linear(math.prod(input_shape), n_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(x.flatten(1))
        return logits


@pytest.mark.parametrize(
    ("strategy", "settings", "message"),
    [
        ({}, {"model": Headless}, "rank-update needs a model with a linear `classifier`; Headless"),
        ({"terms": "new", "rank_next": 0}, {}, "rank_next=0 with terms=new .* give 1 or more"),
        ({"rank_first": 0}, {}, "strategy.rank_first=0"),
        ({"terms": "old"}, {}, "strategy.terms=old"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(strategy: dict, settings: dict, message: str) -> None:
    with pytest.raises(clp.ClpError, match=message) as caught:
        clp.run(BLOBS, {"name": "rank-update", **strategy}, out=None, **settings)
    assert "\n" not in str(caught.value)


def test_it_needs_task_labels_and_refresh_a_single_model() -> None:
    with pytest.raises(clp.ClpError, match="needs the task label at test time"):
        clp.run("blobs", "rank-update", out=None)
    with pytest.raises(
        clp.ClpError, match=r"refresh changes the one model.*RankUpdate has a model"
    ):
        clp.run(BLOBS, {"name": "refresh", "inner": "rank-update"}, out=None)


# What it is for


@pytest.mark.system
def test_later_tasks_are_learned_better_with_the_terms_of_earlier_ones() -> None:
    stream = {"name": "permuted-digits", "experiences": 4, "scenario": "task", "validation": 0.5}
    settings = {"optimizer": {"name": "adam", "lr": 0.01}, "epochs": 10, "batch_size": 32}
    accuracy = {}
    for terms in ("shared", "new"):
        strategy = {"name": "rank-update", "terms": terms}
        result = clp.run(stream, strategy, model={"hidden": [64, 64]}, out=None, **settings)
        accuracy[terms] = result.matrix.values[-1, 1:].mean()
    assert accuracy["shared"] > accuracy["new"] + 0.2
