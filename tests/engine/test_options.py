"""Options of training: known answers, nothing when off, and the same bits after a resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import cl_platform as clp
from cl_platform import Batch, Experience
from cl_platform.config.run_config import parse_config
from cl_platform.config.signatures import build
from cl_platform.config.training import EarlyStopping, LRSchedule, Optimizer, ParameterGroup
from cl_platform.core.batch import cross_entropy
from cl_platform.engine.fold import Fold
from cl_platform.engine.groups import check_groups
from cl_platform.engine.optimization import build_optimizer, schedule_steps
from cl_platform.engine.planner import make_plan
from cl_platform.engine.steps import Stopper, WeightAverage, clip, evaluating
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.baselines import Finetune

BLOBS = {"name": "blobs", "experiences": 2, "samples_per_class": 30, "classes_per_experience": 2}
DIGITS = {"name": "split-digits", "samples": 60, "experiences": 2, "validation": 0.3}


def fold_of(folder: Path | None = None, upto: int | None = None, **settings: Any) -> Fold:
    plan = make_plan(parse_config({"stream": BLOBS, "strategy": "finetune", **settings}))
    fold = Fold(plan, StateStore(folder), Trackers())
    fold.run(upto=upto)
    return fold


def weights(fold: Fold) -> Tensor:
    return torch.cat([p.detach().flatten() for p in fold.strategy.parameters()])


def assert_equal(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    for key, value in a.items():
        if isinstance(value, dict):
            assert_equal(value, b[key])
        else:
            same = torch.equal(value, b[key]) if isinstance(value, Tensor) else value == b[key]
            assert same, key


# Clipping.


@pytest.mark.parametrize(
    ("norm", "value", "expected"),
    [
        (None, None, [3.0, -4.0]),
        (0.0, None, [3.0, -4.0]),
        (1.0, None, [0.6, -0.8]),
        (10.0, None, [3.0, -4.0]),
        (None, 1.0, [1.0, -1.0]),
        (1.0, 3.0, [2**-0.5, -(2**-0.5)]),
    ],
)
def test_gradients_are_clipped_at_each_step(
    norm: float | None, value: float | None, expected: list[float]
) -> None:
    p = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([p], lr=1.0)
    clip(optimizer, norm, value)
    p.grad = torch.tensor([3.0, -4.0])
    optimizer.step()
    assert (-p.detach()).tolist() == pytest.approx(expected, rel=1e-5)


def test_a_runs_clipping_takes_the_place_of_the_methods_own() -> None:
    settings = {"stream": DIGITS, "strategy": "l2p", "model": "tiny-transformer"}
    own, same, none = (
        weights(fold_of(upto=1, **settings, **more))
        for more in ({}, {"clip_norm": 1.0}, {"clip_norm": 0})
    )
    assert torch.equal(own, same)
    assert not torch.equal(own, none)


def test_clipping_to_what_is_never_reached_changes_no_bit() -> None:
    assert torch.equal(weights(fold_of()), weights(fold_of(clip_norm=1e6, clip_value=1e6)))


def test_projected_gradients_are_clipped_as_well() -> None:
    free, held = fold_of(strategy="gem"), fold_of(strategy="gem", clip_norm=1e-6)
    start = weights(fold_of(strategy="gem", upto=0))
    assert (weights(held) - start).norm() < 1e-5 < (weights(free) - start).norm()


# Accumulation.


def test_accumulated_batches_are_one_large_batch() -> None:
    large = weights(fold_of(batch_size=20, epochs=2))
    small = weights(fold_of(batch_size=5, accumulate=4, epochs=2))
    assert torch.allclose(large, small, atol=1e-5)
    assert not torch.allclose(large, weights(fold_of(batch_size=5, epochs=2)), atol=1e-3)


class Counted(Finetune):
    """Writes down the learning rate at each batch, and the real steps of its optimizer."""

    def begin_experience(self, experience: Experience) -> None:
        LOG.append([])

    def training_step(self, batch: Batch) -> Tensor:
        if not LOG[-1]:
            self.optimizer.register_step_post_hook(lambda *_: STEPS.append(len(LOG[-1])))
        LOG[-1].append(self.optimizer.param_groups[0]["lr"])
        return super().training_step(batch)


LOG: list[list[float]] = []
STEPS: list[int] = []


@pytest.fixture(autouse=True)
def clean() -> None:
    LOG.clear()
    STEPS.clear()


def count(**settings: Any) -> list[list[float]]:
    clp.run(BLOBS, Counted, out=None, **settings)
    return LOG


def test_the_last_group_of_an_epoch_steps_though_it_is_not_full() -> None:
    count(batch_size=10, accumulate=4, epochs=2)
    assert len(LOG[0]) == 12  # 6 batches an epoch
    assert STEPS == [4, 6, 10, 12] * 2


def test_an_incomplete_group_is_the_mean_of_what_it_has() -> None:
    alone = weights(fold_of(batch_size=30, epochs=1))
    most = weights(fold_of(batch_size=30, epochs=1, accumulate=5))
    whole = weights(fold_of(batch_size=60, epochs=1))
    assert torch.allclose(most, whole, atol=1e-5)
    assert not torch.allclose(alone, whole, atol=1e-3)


def test_schedules_count_steps_of_the_optimizer() -> None:
    count(
        accumulate=3,
        epochs=2,
        optimizer={"lr": 1.0},
        schedule={"name": "LinearLR", "interval": "step", "start_factor": 1, "end_factor": 0.2},
    )
    assert LOG[0] == pytest.approx([1.0] * 3 + [0.8] * 3 + [0.6] * 3 + [0.4] * 3)


# Schedules.


def rates(schedule: LRSchedule, epochs: int, steps: int, scale: float = 1.0) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=scale)
    after_step, after_epoch = schedule_steps(optimizer, schedule, [steps] * epochs)
    found = []
    for _ in range(epochs):
        for _ in range(steps):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            after_step() if after_step else None
        after_epoch() if after_epoch else None
    return found


def test_warm_up_alone_rises_to_the_learning_rate_and_stays() -> None:
    found = rates(LRSchedule(warmup=4, warmup_factor=0.2), 2, 5, scale=2.0)
    assert found == pytest.approx([0.4, 0.8, 1.2, 1.6, *[2.0] * 6])
    assert rates(LRSchedule(warmup=0.4, warmup_factor=0.2), 2, 5, scale=2.0) == found


def test_warm_up_comes_before_the_schedule_of_what_is_left() -> None:
    cosine = LRSchedule(name="CosineAnnealingLR", interval="step")
    warm = LRSchedule(name="CosineAnnealingLR", interval="step", warmup=4, warmup_factor=0.2)
    assert rates(warm, 2, 7)[4:] == pytest.approx(rates(cosine, 2, 5))
    assert rates(warm, 2, 7)[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])


@pytest.mark.parametrize(
    ("warmup", "expected"),
    [
        (3, [0.25, 0.5, 0.75, 1.0, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01]),
        (4, [0.25, 0.4375, 0.625, 0.8125, 1.0, 1.0, 1.0, 1.0, 0.1, 0.1, 0.1, 0.1]),
    ],
)
def test_by_epochs_the_schedule_begins_with_the_one_in_which_the_rise_ends(
    warmup: int, expected: list[float]
) -> None:
    schedule = LRSchedule(name="ExponentialLR", gamma=0.1, warmup=warmup, warmup_factor=0.25)
    assert rates(schedule, 3, 4) == pytest.approx(expected)


def test_warm_up_of_one_cycle_lasts_as_long_as_the_experience() -> None:
    schedule = LRSchedule(name="onecyclelr", interval="step", max_lr=1.0, warmup=2)
    assert len(rates(schedule, 3, 5)) == 15  # torch raises where a horizon is passed
    assert len(count(epochs=3, schedule={"name": "OneCycleLR", "max_lr": 0.1, "interval": "step",
                                         "warmup": 0.2}, accumulate=2)) == 2  # fmt: skip


# Groups of parameters.


class Net(nn.Module):
    """Layers of several kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.BatchNorm1d(4))
        self.classifier = nn.Linear(4, 2)
        self.frozen = nn.Linear(1, 1).requires_grad_(False)


def settings_of(optimizer: torch.optim.Optimizer, module: nn.Module, key: str) -> dict[str, float]:
    names = {id(p): n for n, p in module.named_parameters()}
    return {names[id(p)]: g[key] for g in optimizer.param_groups for p in g["params"]}


def test_the_first_group_that_matches_a_name_takes_it() -> None:
    groups = [
        {"match": "*.bias", "lr": 0.5},
        {"match": r"/^body\.\d/", "lr_scale": 0.1, "momentum": 0.9},
        {"match": "*weight", "lr": 0.25},
    ]
    module = Net()
    optimizer = build_optimizer(module, Optimizer(lr=1.0, groups=groups))  # type: ignore[arg-type]
    assert optimizer is not None
    assert settings_of(optimizer, module, "lr") == {
        **{f"body.{i}.bias": 0.5 for i in range(3)},
        "classifier.bias": 0.5,
        **{f"body.{i}.weight": pytest.approx(0.1) for i in range(3)},
        "classifier.weight": 0.25,
    }
    assert settings_of(optimizer, module, "momentum")["body.0.weight"] == 0.9
    assert settings_of(optimizer, module, "momentum")["classifier.weight"] == 0


@pytest.mark.parametrize(
    ("kinds", "free"),
    [
        (["bias"], {"body.0.bias", "body.1.bias", "body.2.bias", "classifier.bias"}),
        (["norm"], {"body.1.weight", "body.1.bias", "body.2.weight", "body.2.bias"}),
    ],
)
def test_some_parameters_do_not_decay(kinds: list[Any], free: set[str]) -> None:
    module = Net()
    config = Optimizer(name="adamw", no_decay=kinds, weight_decay=0.1)  # type: ignore[call-arg]
    optimizer = build_optimizer(module, config)
    assert optimizer is not None
    decays = settings_of(optimizer, module, "weight_decay")
    assert {name for name, decay in decays.items() if decay == 0} == free
    assert len(decays) == 8


def test_groups_that_change_nothing_change_no_bit() -> None:
    given = {"name": "adam", "lr": 0.01, "reset": False}
    groups = [{"match": "*", "lr": 0.01}]
    plain = fold_of(optimizer=given, epochs=2)
    assert torch.equal(
        weights(plain), weights(fold_of(optimizer={**given, "groups": groups}, epochs=2))
    )


def test_a_group_alone_is_trained_by_its_own_rate() -> None:
    tiny = {"match": "model.body.*", "lr": 1e-12}
    start = dict(fold_of(upto=0).strategy.state_dict())
    end = fold_of(optimizer={"groups": [tiny]}).strategy.state_dict()
    moved = {
        name for name, value in end.items() if not torch.allclose(value, start[name], atol=1e-6)
    }
    assert moved == {"model.classifier.weight", "model.classifier.bias"}


def test_names_are_the_same_inside_a_wrapper() -> None:
    held = {"groups": [{"match": "model.body.*", "lr": 1e-12}]}
    strategy = {"name": "refresh", "inner": "finetune", "gamma": 0}
    inside = fold_of(strategy=strategy, optimizer=held)
    assert torch.equal(weights(inside), weights(fold_of(optimizer=held)))


def test_a_pattern_that_matches_nothing_is_refused_with_some_names() -> None:
    with pytest.raises(clp.ClpError) as caught:
        check_groups(Net(), Optimizer(groups=[ParameterGroup(match="head.*", lr=1.0)]))
    assert str(caught.value) == (
        "optimizer.groups.0.match=head.* is the name of no parameter; there are 10, such as "
        "body.0.weight, body.0.bias, body.1.weight, frozen.weight, frozen.bias"
    )
    with pytest.raises(clp.ClpError, match=r"match=\*\.wight is the name of no parameter"):
        fold_of(optimizer={"groups": [{"match": "*.wight", "lr": 1.0}]})


# Labels.


def test_label_smoothing_is_that_of_torch_where_all_classes_compete() -> None:
    logits = torch.randn(20, 5, requires_grad=True)
    y = torch.arange(20) % 5
    for reduction in ("mean", "none"):
        expected = functional.cross_entropy(logits, y, label_smoothing=0.2, reduction=reduction)
        found = cross_entropy(logits, y, 0.2, reduction)  # type: ignore[arg-type]
        assert torch.allclose(found, expected, atol=1e-6)
    assert torch.equal(cross_entropy(logits, y), functional.cross_entropy(logits, y))


def test_labels_are_spread_over_the_classes_that_compete() -> None:
    logits = torch.randn(6, 5)
    competing = torch.tensor([True, False, True, True, False])
    y = torch.tensor([0, 2, 3, 0, 2, 3])
    masked = logits.masked_fill(~competing, -torch.inf).requires_grad_()
    loss = cross_entropy(masked, y, 0.3)
    place = torch.tensor([0, 1, 2, 0, 1, 2])  # of the label among those that compete
    alone = functional.cross_entropy(logits[:, competing], place, label_smoothing=0.3)
    assert torch.allclose(loss, alone, atol=1e-6)
    (gradient,) = torch.autograd.grad(loss, masked)
    assert gradient.isfinite().all()
    assert not gradient[:, ~competing].any()


def test_the_loss_of_mixed_samples_is_the_weighted_sum_of_both() -> None:
    logits, x = torch.randn(8, 4), torch.zeros(8, 1)
    y, other, own = torch.arange(8) % 4, (torch.arange(8) + 1) % 4, torch.rand(8)
    target = own[:, None] * torch.eye(4)[y] + (1 - own[:, None]) * torch.eye(4)[other]
    batch = Batch(x, y, None, x, target=target)
    each = [functional.cross_entropy(logits, labels, reduction="none") for labels in (y, other)]
    expected = own * each[0] + (1 - own) * each[1]
    assert torch.allclose(cross_entropy(logits, batch, reduction="none"), expected, atol=1e-6)
    smooth = [
        functional.cross_entropy(logits, labels, reduction="none", label_smoothing=0.1)
        for labels in (y, other)
    ]
    expected = own * smooth[0] + (1 - own) * smooth[1]
    assert torch.allclose(cross_entropy(logits, batch, 0.1, "none"), expected, atol=1e-6)


class Odd(Finetune):
    """Refuses what there is not."""

    refuses = ("acumulate",)


def test_a_method_that_refuses_no_setting_is_told_so() -> None:
    with pytest.raises(clp.ClpError, match="refuses 'acumulate', which is no setting of a run"):
        make_plan(parse_config({"stream": BLOBS, "strategy": f"{__name__}:Odd"}))


ALL = ["er", "er-ace", "der++", "icarl", "lwf", "mir", "a-gem", "gdumb", "ewc", "refresh", "tag"]


@pytest.mark.parametrize("strategy", ALL)
@pytest.mark.parametrize("scenario", ["class", "task"])
def test_every_method_learns_by_smoothed_labels(strategy: str, scenario: str) -> None:
    stream = {**BLOBS, "scenario": scenario}
    section = {"name": strategy, "passes": 3} if strategy == "gdumb" else strategy
    given: dict[str, Any] = {"stream": stream, "strategy": section, "upto": 2}
    plain, smooth = fold_of(**given), fold_of(label_smoothing=0.2, **given)
    assert weights(smooth).isfinite().all()
    assert not torch.equal(weights(plain), weights(smooth))


# Averaged weights.


class Walk(Finetune):
    """Keeps its weights after each step."""

    def after_step(self, batch: Batch) -> None:
        WEIGHTS.append(torch.cat([p.detach().flatten() for p in self.parameters()]))


WEIGHTS: list[Tensor] = []


def test_the_average_follows_every_step_and_training_does_not_notice() -> None:
    WEIGHTS.clear()
    path = f"{__name__}:Walk"
    start = weights(fold_of(strategy=path, upto=0))
    plain, averaged = fold_of(strategy=path), fold_of(strategy=path, ema=0.8)
    assert torch.equal(weights(plain), weights(averaged))
    expected = start
    for t, now in enumerate(WEIGHTS[len(WEIGHTS) // 2 :]):
        d = min(0.8, (1 + t) / (10 + t))
        expected = d * expected + (1 - d) * now
    memory = averaged.state.average
    assert memory["steps"] == len(WEIGHTS) // 2
    found = torch.cat([w.flatten() for w in memory["weights"].values()])
    assert torch.allclose(found, expected, atol=1e-6)


def test_the_average_is_what_is_evaluated() -> None:
    fold = fold_of(stream=DIGITS, ema=0.99, epochs=3)
    assert fold.records[2].rows != fold_of(stream=DIGITS, epochs=3).records[2].rows
    trained = weights(fold)
    with evaluating(fold.strategy, fold.state.average):
        shown = weights(fold)
        evaluator = fold._evaluator("test")
        row = evaluator(fold.strategy, range(10)).row
    assert torch.equal(weights(fold), trained)
    assert not torch.equal(shown, trained)
    assert row == fold.records[2].rows["test"]


def test_statistics_of_batch_norm_are_those_of_training() -> None:
    fold = fold_of(stream=DIGITS, model="slim-resnet18", ema=0.9, upto=1)
    own = {n: b.clone() for n, b in fold.strategy.named_buffers()}
    with evaluating(fold.strategy, fold.state.average):
        assert_equal(own, dict(fold.strategy.named_buffers()))
    assert all("running" not in name for name in fold.state.average["weights"])


def test_what_an_experience_sets_anew_starts_its_average_there() -> None:
    module = nn.Linear(2, 2)
    average = WeightAverage(0.9, {"steps": 5, "weights": {
        "weight": torch.ones(2, 2), "bias": torch.ones(2), "gone": torch.ones(1)}})  # fmt: skip
    average.follow(module, torch.optim.SGD(module.parameters()), {"weight"})
    assert average.weights.keys() == {"weight", "bias"}
    assert torch.equal(average.weights["weight"], torch.ones(2, 2))
    assert torch.equal(average.weights["bias"], module.bias)


def test_evaluations_in_between_see_the_average_and_leave_no_trace() -> None:
    plain = fold_of(stream=DIGITS, ema=0.9, epochs=2)
    watched = fold_of(stream=DIGITS, ema=0.9, epochs=2, evaluate_every=3)
    assert_equal(plain.state.strategy, watched.state.strategy)
    assert_equal(plain.state.average, watched.state.average)
    assert watched.state.anytime


# Early stopping.


def stops(scores: list[float], **settings: Any) -> tuple[int, list[str]]:
    done: list[str] = []

    class Kept:
        def restore(self) -> None:
            done.append("restored")

    def snapshot() -> Any:
        done.append("kept")
        return Kept()

    left = iter(scores)
    stopper = Stopper(EarlyStopping(**settings), lambda: next(left), snapshot)
    epoch = 0
    while epoch < 20:
        epoch += 1
        if stopper.stops_after(epoch):
            break
    stopper.finish()
    return epoch, done


def test_it_stops_after_so_many_evaluations_without_a_new_best() -> None:
    assert stops([1, 2, 2, 3, 3, 2, 1], patience=3) == (7, ["kept"] * 3 + ["restored"])
    assert stops([1, 0, 0], patience=2, restore_best=False) == (3, [])
    assert stops([1, 2, 1], patience=1, every=3) == (9, ["kept"] * 2 + ["restored"])
    assert stops(list(range(30)), patience=1) == (20, ["kept"] * 20)
    nan = float("nan")
    assert stops([1, nan, nan], patience=2)[0] == 3


STOPPING = {"patience": 1, "metric": "loss"}


@pytest.mark.parametrize("strategy", ["finetune", "er", "der++", "si", "refresh"])
@pytest.mark.parametrize("more", [{}, {"ema": 0.9}])
def test_the_best_state_is_that_of_training_so_many_epochs(strategy: str, more: Any) -> None:
    optimizer = {"name": "adam", "lr": 0.03, "reset": False}
    given = {"stream": DIGITS, "strategy": strategy, "optimizer": optimizer, "upto": 1, **more}
    stopped = fold_of(epochs=40, early_stopping=STOPPING, **given)
    epochs = int(stopped.state.cost["epochs"])
    assert 2 <= epochs < 40
    shorter = fold_of(epochs=epochs - 1, **given)  # one evaluation without progress
    assert_equal(shorter.state.strategy, stopped.state.strategy)
    assert_equal(shorter.state.optimizer, stopped.state.optimizer)
    assert_equal(shorter.state.average, stopped.state.average)
    last = fold_of(epochs=40, early_stopping={**STOPPING, "restore_best": False}, **given)
    assert_equal(fold_of(epochs=epochs, **given).state.strategy, last.state.strategy)


def test_schedules_last_as_long_as_without_it() -> None:
    schedule = {"name": "CosineAnnealingLR"}
    clp.run(DIGITS, Counted, out=None, epochs=9, schedule=schedule, lr=0.05)
    whole = LOG[0]
    LOG.clear()
    stopping = {"patience": 1, "metric": "loss"}
    optimizer = {"name": "adam", "lr": 0.05}
    result = clp.run(DIGITS, Counted, out=None, epochs=9, schedule=schedule, optimizer=optimizer,
                     early_stopping=stopping)  # fmt: skip
    assert len(LOG[0]) < len(whole)
    assert LOG[0] == whole[: len(LOG[0])]
    assert result.cost["epochs"] == sum(map(len, LOG)) / (len(whole) / 9)
    assert result.cost["steps"] == sum(map(len, LOG))


def test_test_data_decide_nothing() -> None:
    found = []
    for flipped in (False, True):
        stream = build("stream", DIGITS)
        if flipped:  # other test data, which would stop it elsewhere
            parts = [replace(e, test=e.test.select(torch.arange(3))) for e in stream.experiences]
            stream = replace(stream, experiences=tuple(parts))
        config = parse_config({"stream": DIGITS, "epochs": 9, "early_stopping": STOPPING})
        fold = Fold(make_plan(config, {"stream": stream}), StateStore(None), Trackers())
        fold.run(upto=1)
        found.append(fold.state.strategy)
    assert_equal(*found)


# All together.

EVERYTHING: dict[str, Any] = {
    "epochs": 4,
    "accumulate": 2,
    "ema": 0.9,
    "clip_norm": 1.0,
    "clip_value": 0.5,
    "label_smoothing": 0.1,
    "schedule": {"name": "CosineAnnealingLR", "interval": "step", "warmup": 0.1},
    "early_stopping": {"patience": 1, "metric": "loss"},
    "augmentation": ["crop", "mixup"],
    "optimizer": {
        "name": "adamw",
        "lr": 0.02,
        "weight_decay": 0.1,
        "reset": False,
        "groups": [{"match": "*weight", "lr_scale": 0.5}],
        "no_decay": ["bias"],
    },
}


@pytest.mark.parametrize(
    ("strategy", "model"),
    [
        *((name, "mlp") for name in ("er", "der++", "lwf", "ewc", "cumulative")),
        ("er", "slim-resnet18"),
        *((name, "tiny-transformer") for name in ("l2p", "lora", "s-prompts", "coda-prompt")),
    ],
)
def test_a_resumed_run_has_the_same_bits(strategy: str, model: str, tmp_path: Path) -> None:
    section: Any = strategy
    if strategy == "coda-prompt":
        section = {"name": strategy, "blocks": [0], "components": 4}
    scenario = "task" if strategy == "lora" else "class"
    stream = {**DIGITS, "samples": 20, "experiences": 3, "scenario": scenario}
    given = {**EVERYTHING, "stream": stream}
    given |= {"strategy": section, "model": model}
    whole = fold_of(**given)
    fold_of(tmp_path, upto=1, **given)
    resumed = fold_of(tmp_path, **given)
    assert resumed.trained == 2
    for part in ("strategy", "optimizer", "average"):
        assert_equal(getattr(whole.state, part), getattr(resumed.state, part))
    rows = [[record.rows for record in fold.records] for fold in (whole, resumed)]
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"strategy": "gem", "accumulate": 2}, "strategy 'gem' cannot obey accumulate"),
        ({"strategy": "a-gem", "accumulate": 2}, "strategy 'a-gem' cannot obey accumulate"),
        ({"strategy": "refresh", "accumulate": 2}, "strategy 'refresh' cannot obey accumulate"),
        ({"strategy": "si", "accumulate": 2}, "strategy 'si' cannot obey accumulate"),
        ({"strategy": "tag", "clip_value": 2}, "strategy 'tag' cannot obey clip_value"),
        ({"strategy": "icarl", "ema": 0.9}, "strategy 'icarl' cannot obey ema"),
        (
            {"strategy": {"name": "refresh", "inner": "icarl"}, "ema": 0.9},
            "strategy 'refresh' cannot obey ema",
        ),
        (
            {"strategy": "gdumb", "optimizer": {"groups": [{"match": "*", "lr": 1}]}},
            "strategy 'gdumb' cannot obey optimizer.groups",
        ),
        (
            {"stream": DIGITS, "strategy": "ncm", "epochs": 3, "early_stopping": {}},
            "strategy 'ncm' cannot obey early_stopping",
        ),
        ({"epochs": 3, "early_stopping": {}}, "needs validation data, and stream 'blobs' has none"),
        ({"stream": DIGITS, "early_stopping": {}}, "nothing to stop in a single epoch"),
        (
            {"stream": {**DIGITS, "online": True}, "early_stopping": {}},
            "early_stopping: an online stream is seen once",
        ),
        ({"schedule": {"warmup": 7}}, "schedule.warmup=7 is longer than the shortest experience"),
        ({"schedule": {"warmup": 3, "gamma": 1}}, "schedule.gamma belongs to a schedule"),
        (
            {"optimizer": {"groups": [{"match": "*", "momentun": 0.9}]}},
            r"optimizer.groups.0.momentun is unknown. Did you mean 'momentum'\?",
        ),
        (
            {"optimizer": {"name": "rprop", "no_decay": ["bias"]}},
            "optimizer 'rprop' has no weight decay",
        ),
        ({"optimizer": {"groups": [{"lr": 1}]}}, "optimizer.groups.0.match is missing"),
        ({"ema": 1.0}, "ema=1.0: input should be less than 1"),
        ({"clip_norm": -1}, "clip_norm=-1: input should be greater than or equal to 0"),
        ({"accumulate": 0}, "accumulate=0: input should be greater than 0"),
        ({"label_smoothing": 1}, "label_smoothing=1: input should be less than 1"),
        ({"early_stopping": {"patiens": 1}}, "early_stopping.patiens is unknown"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_said_at_planning_in_one_line(settings: dict, said: str) -> None:
    with pytest.raises(clp.ClpError, match=said) as caught:
        make_plan(parse_config({"stream": BLOBS, **settings}))
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 500
