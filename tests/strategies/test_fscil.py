"""Few-shot class-incremental learning: the base, and each trick against a plain re-computation."""

from __future__ import annotations

import copy
import math
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

import cl_platform as clp
from cl_platform import Batch, Experience, Strategy, StreamInfo
from cl_platform.config.registry import load
from cl_platform.config.run_config import parse_config
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.errors import BadInput, ConfigError
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.fscil import FSCIL
from strategies.parts.subnet import Subnet, last_block, most_important
from strategies.parts.tricks import copies, dot_regression, simplex, supervised_contrast

DIGITS = {"name": "split-digits", "experiences": [4, 3, 3], "samples": 36}
BLOBS = {"name": "blobs", "experiences": 3, "samples_per_class": 12}
SETTINGS: dict[str, Any] = {
    "model": {"name": "cnn", "width": 4},
    "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01},
    "batch_size": 16,
    "epochs": 2,
}
VIEWS = {"augmentation": [{"name": "crop", "padding": 1}, "two-views"]}


def fold_of(steps: int = 0, stream: Any = DIGITS, **given: Any) -> Fold:
    settings = {k: given.pop(k) for k in ("augmentation", "model", "epochs") if k in given}
    strategy = given.pop("strategy", {"name": "fscil", **given})
    data = {"stream": stream, "strategy": strategy, **SETTINGS, **settings}
    fold = Fold(make_plan(parse_config(data)), StateStore(None), Trackers())
    for _ in range(steps):
        fold.train()
    return fold


def begun(fold: Fold) -> tuple[FSCIL, Experience]:
    """Let the next experience begin, and give what the strategy gets of it."""
    step, strategy = fold.position + 1, fold.strategy
    assert isinstance(strategy, FSCIL)
    fold.rng.restart(step)
    experience = fold.shown(fold.plan.steps[step - 1].experience)
    strategy.train()
    strategy.begin_experience(experience)
    return strategy, experience


def batch_of(fold: Fold, strategy: FSCIL, experience: Experience) -> Batch:
    """Six samples with a second view of each."""
    whole = next(strategy.batches(experience, 6))
    return Batch(whole.x, whole.y, None, whole.raw, x2=whole.x + 0.1)


def bits(module: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(module.state_dict())


def changed(before: dict[str, Tensor], module: nn.Module) -> set[str]:
    after = module.state_dict()
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def test_data(fold: Fold, upto: int) -> tuple[Tensor, Tensor]:
    parts = [e.test for e in fold.plan.stream.experiences[:upto]]
    x = torch.cat([fold.strategy.info.preprocess(part.x) for part in parts])
    return x, torch.cat([part.y for part in parts])


test_data.__test__ = False  # type: ignore[attr-defined]


# The base


class Plain(Strategy):
    """The base system in the plainest form, with no switch."""

    needs_second_pass = True

    def setup(self, info: StreamInfo) -> None:
        super().setup(info)
        self.model.classifier.requires_grad_(False)
        width = self.model.classifier.in_features
        random = torch.empty(info.n_classes, width)
        self.head = nn.Parameter(random.uniform_(-(width**-0.5), width**-0.5))
        self.prototypes = nn.Buffer(torch.zeros(info.n_classes, width))

    def begin_experience(self, experience: Experience) -> None:
        self.others = torch.ones(self.info.n_classes, dtype=torch.bool)
        self.others[list(experience.classes)] = False
        if self.info.rng.step > 1:
            self.requires_grad_(False)
            self.model.eval()

    def loss(self, batch: Batch) -> Tensor:
        f = normalize(self.model.features(batch.x), dim=1)
        logits = 16 * (f @ normalize(self.head, dim=1).T)
        return cross_entropy(logits.masked_fill(self.others, -torch.inf), batch.y)

    def training_step(self, batch: Batch) -> Tensor:
        return super().training_step(batch) if self.info.rng.step == 1 else torch.zeros(())

    def end_experience(self, experience: Experience) -> None:
        self.model.eval()
        with torch.no_grad():
            (batch,) = self.batches(experience, 1000)
            f = self.model.features(batch.x).double()
            for c in experience.classes:
                self.prototypes[c] = f[batch.y == c].mean(0)

    def forward(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        f = normalize(self.model.features(x), dim=1)
        return 16 * (f @ normalize(self.prototypes, dim=1).T)


def test_with_all_tricks_off_every_bit_is_the_plain_base_and_prototypes() -> None:
    """One virtual class each, a share of 0 and no other switch: a copy of nothing but the base."""
    ours = fold_of(3, pseudo_classes=1, subnet=0.0)
    plain = fold_of(3, strategy={"name": f"{__name__}:Plain"})
    for name, value in plain.strategy.model.state_dict().items():
        assert torch.equal(value, ours.strategy.model.state_dict()[name]), name
    assert torch.equal(plain.strategy.prototypes, ours.strategy.means[:, 0])
    x, _ = test_data(ours, 3)
    ours.strategy.eval()
    plain.strategy.eval()
    assert torch.equal(plain.strategy(x), ours.strategy(x))


def test_prototypes_are_class_means_and_those_of_the_base_session_as_well() -> None:
    fold = fold_of(3)
    strategy, labels = fold.strategy.eval(), []
    for step in fold.plan.steps:
        train = step.experience.train
        labels.append(train.y)
        features = strategy.model.features(strategy.info.preprocess(train.x)).double()
        for c in step.experience.classes:
            expected = features[train.y == c].mean(0)
            assert torch.allclose(strategy.means[c, 0].double(), expected, rtol=1e-6)
    assert strategy.counts.tolist() == torch.cat(labels).bincount().tolist()


def test_sessions_change_neither_the_network_nor_the_logits_of_earlier_classes() -> None:
    fold = fold_of(1, subnet=0.0)
    before, (x, _) = bits(fold.strategy), test_data(fold, 1)
    logits = fold.strategy.eval()(x)[:, :4]
    fold.train()
    fold.train()
    assert changed(before, fold.strategy) == {"sums", "counts"}
    assert torch.equal(fold.strategy.eval()(x)[:, :4], logits)


def test_before_there_are_prototypes_the_classifier_that_is_trained_predicts() -> None:
    fold = fold_of(0)
    strategy, _ = begun(fold)
    x, _ = test_data(fold, 1)
    strategy.eval()
    cosines = normalize(strategy.model.features(x), dim=1) @ normalize(strategy.head[:, 0], dim=1).T
    assert torch.allclose(strategy(x), 16 * cosines, atol=1e-5)
    fold.train()
    assert (strategy.eval()(x)[:, 4:] == torch.finfo(torch.float32).min).all()


def test_only_the_classes_of_the_base_session_compete_in_it() -> None:
    fold = fold_of(0)
    strategy, experience = begun(fold)
    batch = batch_of(fold, strategy, experience)
    with torch.no_grad():
        before = strategy.loss(batch)
        strategy.head[4:] = normalize(strategy.model.features(batch.x), dim=1)[:1, None]
    assert torch.equal(strategy.loss(batch), before)


def test_frozen_features_without_a_neck_are_the_nearest_mean_by_cosine() -> None:
    given = {"model": "tiny-transformer", "out": None}  # its weights count as pretrained ones
    ours = clp.run(BLOBS, {"name": "fscil", "freeze": True}, **given)
    ncm = clp.run(BLOBS, {"name": "ncm", "metric": "cosine"}, **given)
    assert torch.equal(torch.tensor(ours.matrix.values[1:]), torch.tensor(ncm.matrix.values[1:]))


def test_a_neck_on_frozen_features_is_trained_in_the_base_session_only() -> None:
    given = {"stream": BLOBS, "model": "tiny-transformer", "freeze": True, "neck": 8}
    fold = fold_of(0, **given)
    before = bits(fold.strategy)
    assert fold.features is not None  # cached, which the strategy takes
    fold.train()
    assert {n.split(".")[0] for n in changed(before, fold.strategy)} == {
        *("head", "project", "sums", "counts")
    }
    before = bits(fold.strategy)
    fold.train()
    assert changed(before, fold.strategy) == {"sums", "counts"}


# Contrastive and self-supervised losses


@pytest.mark.parametrize("labels", [[0, 1, 0, 2, 1, 0], [0, 1, 2, 0, 1, 2]])
def test_supervised_contrast_is_its_formula(labels: list[int]) -> None:
    z = normalize(torch.randn(6, 5), dim=1)
    terms = []
    for i in range(6):
        others = [a for a in range(6) if a != i]
        alike = [p for p in others if labels[p] == labels[i]]
        below = sum(math.exp(float(z[i] @ z[a]) / 0.5) for a in others)
        logs = [math.log(math.exp(float(z[i] @ z[p]) / 0.5) / below) for p in alike]
        terms += [-sum(logs) / len(logs)] if alike else []
    found = supervised_contrast(z, torch.tensor(labels), 0.5)
    assert found.item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_contrast_without_anything_alike_is_zero_with_a_zero_gradient() -> None:
    z = normalize(torch.randn(3, 5), dim=1).requires_grad_()
    loss = supervised_contrast(z, torch.arange(3), 0.1)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(z.grad, torch.zeros(3, 5))


def test_the_contrastive_trick_compares_both_views_of_all_copies() -> None:
    given = {"contrastive_weight": 0.5, "temperature": 0.3, "pseudo_classes": 2}
    fold = fold_of(0, contrastive=True, **given, **VIEWS)
    strategy, experience = begun(fold)
    batch = batch_of(fold, strategy, experience)
    inputs = [*copies(batch.x, 2), *copies(batch.x2, 2)]
    found = strategy.model.features(torch.cat(inputs))
    labels = torch.cat([2 * batch.y, 2 * batch.y + 1])
    logits = 16 * (normalize(found[:12], dim=1) @ normalize(strategy.head.flatten(0, 1), dim=1).T)
    z = normalize(strategy.contrast(found), dim=1)
    expected = cross_entropy(logits[:, :8], labels) + 0.5 * supervised_contrast(
        z, labels.repeat(2), 0.3
    )
    assert strategy.loss(batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_inputs_that_cannot_be_augmented_have_one_view() -> None:
    fold = fold_of(0, stream=BLOBS, model="mlp", contrastive=True)
    strategy, experience = begun(fold)
    batch = next(strategy.batches(experience, 6))
    z = normalize(strategy.contrast(strategy.model.features(batch.x)), dim=1)
    own = supervised_contrast(z, batch.y, 0.07)
    strategy.contrastive_weight = 0.0
    without = strategy.loss(batch)
    strategy.contrastive_weight = 1.0
    assert strategy.loss(batch).item() == pytest.approx((without + own).item(), rel=1e-5)


def test_the_first_epochs_of_the_base_session_learn_without_labels() -> None:
    fold = fold_of(0, self_supervised=1, epochs=2, **VIEWS)
    strategy, experience = begun(fold)
    batch = batch_of(fold, strategy, experience)
    z = normalize(strategy.contrast(strategy.model.features(torch.cat([batch.x, batch.x2]))), dim=1)
    expected = supervised_contrast(z, torch.arange(6).repeat(2), 0.07)
    assert strategy.loss(batch).item() == pytest.approx(expected.item(), rel=1e-5)
    later = Batch(batch.x, batch.y, None, batch.raw, epoch=1, x2=batch.x2)
    logits = 16 * (
        normalize(strategy.model.features(batch.x), dim=1)
        @ normalize(strategy.head[:4, 0], dim=1).T
    )
    assert strategy.loss(later).item() == pytest.approx(cross_entropy(logits, batch.y).item())
    strategy.self_supervised = 5  # of 2 epochs: never the last one
    assert strategy.loss(later).item() == pytest.approx(cross_entropy(logits, batch.y).item())


# Prototypes assigned beforehand


@pytest.mark.parametrize(("k", "cosine"), [(2, -1.0), (3, -0.5), (100, -0.010101)])
def test_the_cosine_of_any_two_vertices_is_the_golden_one(k: int, cosine: float) -> None:
    vertices = simplex(k, 100, torch.Generator().manual_seed(0))
    products = vertices @ vertices.T
    assert torch.allclose(products.diagonal(), torch.ones(k), atol=1e-5)
    pairs = torch.stack([products[i, j] for i, j in combinations(range(k), 2)])
    assert torch.allclose(pairs, torch.full_like(pairs, cosine), atol=1e-6)
    assert cosine == pytest.approx(-1 / (k - 1), abs=1e-6)


def test_dot_regression_is_the_golden_one() -> None:
    assert dot_regression(torch.tensor([0.6])).item() == pytest.approx(0.08)
    assert dot_regression(torch.tensor([0.6, 1.0])).item() == pytest.approx(0.04)


def test_sessions_train_the_neck_on_the_mean_features_of_old_classes_and_new_samples() -> None:
    fold = fold_of(1, etf=True, neck=16)
    strategy, experience = begun(fold)
    assert torch.allclose(strategy.means[:4, 0], strategy.memory)
    assert (strategy.means[4:] == 0).all()
    batch = batch_of(fold, strategy, experience)
    features = torch.cat([strategy.means[:4, 0], strategy.model.features(batch.x)])
    vertices = strategy.head[torch.cat([torch.arange(4), batch.y]), 0]
    cosines = (normalize(strategy.project(features), dim=1) * vertices).sum(1)
    expected = 0.5 * (cosines - 1).square().mean()
    assert strategy.loss(batch).item() == pytest.approx(expected.item(), rel=1e-5)
    before = bits(strategy)
    fold.train()
    assert {n.split(".")[0] for n in changed(before, strategy)} == {"project", "sums", "counts"}


def test_pre_assigned_prototypes_need_to_know_all_classes() -> None:
    vectors = {**BLOBS, "open": True}
    fold_of(0, stream=vectors, model="mlp")
    with pytest.raises(ConfigError, match="open"):
        fold_of(0, stream=vectors, model="mlp", etf=True)
    with pytest.raises(
        BadInput, match=r"as many .* as there are classes and copies, 20, .* has 19"
    ):
        fold_of(0, etf=True, neck=19, pseudo_classes=2)


# Pseudo-classes


def test_copies_are_turned_and_recoloured() -> None:
    x = torch.randn(2, 3, 5, 5)
    assert copies(x, 1)[0] is x
    for m in (1, 2, 4, 6, 12):
        found = copies(x, m)
        assert len(found) == m == len({tuple(c.flatten().tolist()) for c in found})
        assert torch.equal(found[0], x)
    assert torch.equal(copies(x, 2)[1], x.flip(2, 3))
    assert torch.equal(copies(x, 4)[1], x.rot90(1, (2, 3)))
    assert torch.equal(copies(x, 6)[1], x[:, [2, 0, 1]])


def test_the_score_of_a_class_is_the_mean_over_its_copies() -> None:
    fold = fold_of(2, pseudo_classes=4)
    strategy = fold.strategy.eval()
    x, _ = test_data(fold, 2)
    prototypes = normalize(strategy.means.flatten(0, 1), dim=1)  # of class c, copy i at c m + i
    scores = torch.zeros(len(x), 10)
    for i, copy_ in enumerate(copies(x, 4)):
        logits = 16 * (normalize(strategy.model.features(copy_), dim=1) @ prototypes.T)
        for c in range(10):
            scores[:, c] += logits[:, 4 * c + i] / 4
    assert torch.allclose(strategy(x)[:, :7], scores[:, :7], atol=1e-5)


def test_each_copy_of_a_class_has_a_prototype_of_its_own() -> None:
    fold = fold_of(1, pseudo_classes=2)
    strategy, train = fold.strategy.eval(), fold.plan.steps[0].experience.train
    x = strategy.info.preprocess(train.x)
    turned = strategy.model.features(x.flip(2, 3))
    assert torch.allclose(strategy.means[2, 1], turned[train.y == 2].mean(0), rtol=1e-4)


# Rotation


def test_rotation_asks_by_how_many_quarters_an_image_was_turned() -> None:
    fold = fold_of(0, rotation=True, rotation_weight=0.7)
    strategy, experience = begun(fold)
    batch = batch_of(fold, strategy, experience)
    found = strategy.model.features(torch.cat([batch.x.rot90(k, (2, 3)) for k in range(4)]))
    asked = cross_entropy(strategy.turns(found), torch.arange(4).repeat_interleave(6))
    logits = 16 * (normalize(found[:6], dim=1) @ normalize(strategy.head[:4, 0], dim=1).T)
    expected = cross_entropy(logits, batch.y) + 0.7 * asked
    assert strategy.loss(batch).item() == pytest.approx(expected.item(), rel=1e-5)


# Subnet tuning


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ({"name": "mlp", "hidden": [8, 7]}, {"body.3.weight"}),
        ({"name": "cnn", "width": 4}, {"body.10.weight"}),
        (
            {"name": "slim-resnet18", "width": 2},
            {"blocks.7.body.0.weight", "blocks.7.body.3.weight"},
        ),
    ],
    ids=["mlp", "cnn", "resnet"],
)
def test_the_last_block_is_what_comes_before_the_classifier(model: Any, names: set[str]) -> None:
    name = model.pop("name")
    network = load("model", name)(input_shape=(1, 8, 8), n_classes=3, **model)
    block = {id(p) for p in last_block(network)}
    assert {name for name, p in network.named_parameters() if id(p) in block} == names


def test_of_a_transformer_it_is_its_last_layer() -> None:
    network = load("model", "tiny-transformer")(input_shape=(5,), n_classes=3)
    block = {id(p) for p in last_block(network)}
    names = {name for name, p in network.named_parameters() if id(p) in block}
    assert names
    assert {name.split(".")[1] for name in names} == {"1"}


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_a_session_tunes_the_chosen_share_and_not_one_weight_more(share: float) -> None:
    """Momentum and weight decay move what has no gradient; here they may not."""
    fold = fold_of(1, subnet=share)
    strategy, experience = begun(fold)
    (weight,) = last_block(strategy.model)
    before = bits(strategy)
    (batch,) = strategy.batches(experience, 1000)
    (gradient,) = torch.autograd.grad(strategy.loss(batch), [weight])
    n = math.ceil(share * weight.numel())
    most = (gradient * weight).abs().flatten().topk(n).indices.sort().values
    fold.train()
    assert changed(before, strategy) == {"model.body.10.weight", "sums", "counts"}
    moved = (weight.detach() != before["model.body.10.weight"]).flatten().nonzero().flatten()
    assert torch.equal(moved, most)


def test_the_tuned_loss_compares_the_prototypes_of_all_classes_so_far() -> None:
    fold = fold_of(1, subnet=0.1)
    strategy, experience = begun(fold)
    assert isinstance(strategy.tuned, Subnet)
    (batch,) = strategy.batches(experience, 1000)
    found = strategy.model.features(batch.x)
    means = [found[batch.y == c].mean(0) for c in experience.classes]
    prototypes = normalize(torch.cat([strategy.means[:4, 0], torch.stack(means)]), dim=1)
    expected = cross_entropy(16 * (normalize(found, dim=1) @ prototypes.T), batch.y)
    assert strategy.loss(batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_on_a_frozen_backbone_it_is_the_necks_last_layer_that_is_tuned() -> None:
    given = {"stream": BLOBS, "model": "tiny-transformer", "freeze": True, "neck": 8}
    fold = fold_of(1, subnet=0.5, **given)
    before = bits(fold.strategy)
    fold.train()
    assert changed(before, fold.strategy) == {"project.3.weight", "sums", "counts"}
    moved = fold.strategy.project[3].weight.detach() != before["project.3.weight"]
    assert moved.sum() == moved.numel() // 2


def test_at_least_one_weight_is_chosen_and_ever_the_largest() -> None:
    weights, gradients = torch.tensor([1.0, -3.0, 2.0]), torch.tensor([1.0, 2.0, -2.0])
    assert most_important([weights], [gradients], 1e-9).tolist() == [False, True, False]
    assert most_important([weights], [gradients], 0.5).tolist() == [False, True, True]


# All together, and what is refused


def test_all_tricks_together_learn() -> None:
    tricks = {"pseudo_classes": 2, "subnet": 0.01, "self_supervised": 1}
    on = dict.fromkeys(("contrastive", "etf", "rotation"), True)
    adam = {"name": "adam", "lr": 0.005}
    strategy = {"name": "fscil", "neck": 20, **tricks, **on}
    model = {"name": "cnn", "width": 8}
    settings = {**SETTINGS, **VIEWS, "model": model, "epochs": 8, "optimizer": adam, "out": None}
    result = clp.run({**DIGITS, "samples": 150}, strategy, **settings)
    assert result.matrix[1, 0] > 0.45  # after a few steps; chance is 0.25


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"stream": BLOBS, "rotation": True}, r"strategy.rotation needs images.*\(17,\) are none"),
        ({"stream": BLOBS, "pseudo_classes": 2}, "strategy.pseudo_classes needs images"),
        ({"stream": BLOBS, "self_supervised": 1}, "strategy.self_supervised needs images"),
        (
            {"pseudo_classes": 12},
            "pseudo_classes changes the order of three colours, and .* have 1",
        ),
        ({"contrastive": True}, "strategy.contrastive compares two views.*add two-views"),
        ({"self_supervised": 1}, "strategy.self_supervised compares two views"),
        ({"freeze": True, "rotation": True}, "strategy.rotation trains features.*strategy.neck"),
        ({"freeze": True, "subnet": 0.1}, "strategy.subnet .*neck's, which must be there"),
        ({"freeze": True, "subnet": 0.1, "etf": True}, "etf trains as a whole: leave subnet out"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(given: dict[str, Any], line: str) -> None:
    given = {"model": "mlp", **given} if given.get("stream") is BLOBS else given
    with pytest.raises(BadInput, match=line) as refused:
        fold_of(0, **given)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500


def test_counts_of_words_are_no_images() -> None:
    words = clp.Samples.of(torch.zeros(8, 1, 1, 20, dtype=torch.uint8), torch.arange(8) % 4)
    stream = clp.class_incremental("words", [[0, 1], [2, 3]], list("abcd"), words, words)
    with pytest.raises(BadInput, match=r"strategy.rotation needs images.*\(1, 1, 20\) are none"):
        clp.run(stream, {"name": "fscil", "rotation": True}, model="mlp", out=None)
    clp.run(stream, {"name": "fscil", "contrastive": True}, model="mlp", out=None)
