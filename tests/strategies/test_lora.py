"""Low-rank adapters: what is frozen keeps its bits, and updates are what the formulas say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cl_platform as clp
from cl_platform import Batch
from cl_platform.config.run_config import parse_config
from cl_platform.core.rng import global_generators
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.errors import BadInput, ConfigError
from cl_platform.models.backbone import Backbone, LowRank
from cl_platform.models.text import TextEncoder
from cl_platform.models.tiny_transformer import TinyTransformer
from cl_platform.models.vision import SmallViT
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from strategies.parts.adapters import Adapters, Updates, by_sample, merged, summed
from strategies.parts.corda import Init, components, covariances, damped

BLOBS = {"name": "blobs", "experiences": 3, "samples_per_class": 30}
TASKS = {**BLOBS, "scenario": "task"}
KEPT = {"name": "adam", "lr": 0.01, "weight_decay": 0.1, "reset": False}
NAMES = ["seq-lora", "lora", "s-lora", "o-lora", "l2p-lora"]
INITS: list[Init] = ["kaiming", "pissa", "corda-preserve", "corda-preview"]


def fold_of(
    steps: int, name: str, folder: Path | None = None, settings: dict | None = None, **strategy: Any
) -> Fold:
    data = {
        "stream": TASKS if name == "lora" else BLOBS,
        "strategy": {"name": name, **strategy},
        "model": "tiny-transformer",
        "optimizer": {"name": "adam", "lr": 0.01},
        **(settings or {}),
    }
    fold = Fold(make_plan(parse_config(data)), StateStore(folder), Trackers())
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


def tiny() -> tuple[Backbone, Tensor]:
    torch.manual_seed(0)
    return TinyTransformer((3,), 2).requires_grad_(False), torch.randn(7, 3)


def small_vit() -> tuple[Backbone, Tensor]:
    torch.manual_seed(0)
    model = SmallViT((3, 16, 16), 2, width=24, depth=2).eval()
    return model.requires_grad_(False), torch.randn(7, 3, 16, 16)


def minilm() -> tuple[Backbone, Tensor]:
    torch.manual_seed(0)
    model = TextEncoder((9,), 2).eval().requires_grad_(False)
    ids = torch.randint(1000, 20000, (7, 9), dtype=torch.int32)
    ids[torch.arange(9) > torch.arange(2, 9)[:, None]] = 0  # padding of different lengths
    return model, ids


BACKBONES = [tiny, small_vit, minilm]


def adapters_of(model: Backbone, n: int | None = None, rank: int = 3, scale: float = 2) -> Adapters:
    """Random in both factors, for queries and values."""
    places = {k: p for k, p in model.projections().items() if not k.endswith("key")}
    adapters = Adapters(places, rank, scale * rank, n)
    adapters.start()
    with torch.no_grad():
        adapters.up.normal_(std=0.05)
    return adapters


@torch.no_grad()
def feature(model: Backbone, x: Tensor, updates: Updates | None = None) -> Tensor:
    return model.pool(model.encode(model.embed(x), updates=updates))


# The updates


@pytest.mark.parametrize("make", BACKBONES)
def test_adapters_that_have_just_started_leave_the_features_their_bits(make: Any) -> None:
    model, x = make()
    adapters = Adapters(model.projections(), 4, 4)
    assert torch.equal(feature(model, x, adapters.updates()), model.features(x))
    adapters.start()
    assert (adapters.down != 0).all()
    assert torch.equal(feature(model, x, adapters.updates()), model.features(x))


@pytest.mark.parametrize("make", BACKBONES)
def test_merged_weights_give_what_updates_give_and_get_their_bits_back(make: Any) -> None:
    model, x = make()
    updates = adapters_of(model).updates()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain, expected = feature(model, x), feature(model, x, updates)
    with merged(model, updates):
        found = feature(model, x)
    assert not torch.allclose(plain, expected, atol=1e-2)
    assert torch.allclose(found, expected, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_weights_get_their_bits_back_after_an_error_too() -> None:
    model, x = tiny()
    plain, updates = feature(model, x), adapters_of(model).updates()
    with pytest.raises(ZeroDivisionError), merged(model, updates):
        raise ZeroDivisionError
    assert torch.equal(feature(model, x), plain)
    misfit = {**updates, "1.value": LowRank(torch.ones(2, 5), torch.ones(16, 2))}
    with pytest.raises(RuntimeError), merged(model, misfit):
        pass
    assert torch.equal(feature(model, x), plain)


def test_updates_of_single_samples_cannot_be_merged() -> None:
    model, _ = tiny()
    updates = adapters_of(model, n=2).updates(torch.tensor([0, 1]))
    with pytest.raises(BadInput, match=r"0\.query .* shapes \(2, 16, 3\) and \(2, 3, 16\)"):
        merged(model, updates).__enter__()


def test_no_projections_are_refused_in_one_line() -> None:
    with pytest.raises(BadInput, match="give at least one"):
        Adapters({}, 4, 4)


@pytest.mark.parametrize("make", BACKBONES)
def test_every_sample_of_a_batch_gets_its_own_set(make: Any) -> None:
    model, x = make()
    stacked = adapters_of(model, n=3)
    several = [
        {
            name: LowRank(u.down[0], u.up[0])
            for name, u in stacked.updates(torch.tensor([i])).items()
        }
        for i in range(3)
    ]
    chosen = torch.tensor([2, 0, 1, 1, 0, 2, 0])
    alone = torch.cat(
        [feature(model, x[i : i + 1], several[c]) for i, c in enumerate(chosen.tolist())]
    )
    assert not torch.allclose(alone, feature(model, x, several[0]), atol=1e-2)
    for updates in (stacked.updates(chosen), by_sample(several, chosen)):
        assert torch.allclose(feature(model, x, updates), alone, atol=1e-5)


def test_a_sum_has_the_sum_of_the_weights() -> None:
    model, x = tiny()
    torch.manual_seed(1)
    several = [adapters_of(model, rank=r).updates() for r in (1, 2, 3)]
    expected = {n: sum(u[n].up @ u[n].down for u in several) for n in several[0]}
    total = summed(several)
    assert all(torch.allclose(u.up @ u.down, expected[n], atol=1e-5) for n, u in total.items())
    with merged(model, several[0]), merged(model, several[1]), merged(model, several[2]):
        found = feature(model, x)
    assert torch.allclose(found, feature(model, x, total), atol=1e-5)
    assert summed([]) == {}


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft's own
def test_outputs_and_gradients_are_those_of_peft() -> None:
    import peft  # seconds, for this test alone
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=20, initializer_range=0.5, hidden_dropout_prob=0, attention_probs_dropout_prob=0,
    )  # fmt: skip
    encoder = TextEncoder.__new__(TextEncoder)
    nn.Module.__init__(encoder)
    encoder.body, encoder.padding, encoder.pooling = BertModel(config).eval(), 0, "mean"
    encoder.width, encoder.depth = 16, 2
    encoder.requires_grad_(False)
    ids = torch.randint(1, 30, (5, 6))
    ids[3, 4:] = 0
    adapters = adapters_of(encoder, rank=3, scale=2)
    ours = encoder.pool(encoder.encode(encoder.embed(ids), updates=adapters.updates()))
    probe = torch.randn_like(ours)  # squares would not do: the output is normalised
    (ours * probe).sum().backward()

    lora = peft.LoraConfig(r=3, lora_alpha=6, target_modules=["query", "value"], lora_dropout=0.0)
    theirs = peft.get_peft_model(encoder.body, lora).eval()
    layers = {n: m for n, m in theirs.named_modules() if isinstance(m, peft.tuners.lora.Linear)}
    by_name = {f"{n.split('.')[-4]}.{n.split('.')[-1]}": layer for n, layer in layers.items()}
    assert by_name.keys() == set(adapters.names)
    for i, name in enumerate(adapters.names):
        by_name[name].lora_A["default"].weight.data.copy_(adapters.down[i])
        by_name[name].lora_B["default"].weight.data.copy_(adapters.up[i])
    hidden = theirs(input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state
    real = (ids != 0)[:, :, None]
    expected = (hidden * real).sum(1) / real.sum(1)
    (expected * probe).sum().backward()
    assert torch.allclose(ours, expected, atol=1e-5)
    assert adapters.down.grad is not None
    assert adapters.up.grad is not None
    for i, name in enumerate(adapters.names):
        down, up = (getattr(by_name[name], k)["default"].weight.grad for k in ("lora_A", "lora_B"))
        assert down.abs().max() > 1e-3
        assert torch.allclose(adapters.down.grad[i], down, rtol=1e-4, atol=1e-5)
        assert torch.allclose(adapters.up.grad[i], up, rtol=1e-4, atol=1e-5)


# All strategies


@pytest.mark.parametrize("name", NAMES)
def test_the_frozen_model_has_no_gradient_and_keeps_its_bits(name: str) -> None:
    fold = fold_of(0, name)
    before = {k: v.clone() for k, v in fold.strategy.model.named_parameters()}
    for _ in range(3):
        fold.train()
    after = dict(fold.strategy.model.named_parameters())
    assert all(torch.equal(after[k], before[k]) for k in before)
    assert all(p.grad is None for p in after.values())
    assert not any(k.startswith("model.") for k in fold.strategy.state_dict())


@pytest.mark.parametrize("name", NAMES)
def test_predictions_do_not_depend_on_the_batch(name: str) -> None:
    fold = fold_of(3, name)
    parts = [batch_of(fold, place, 22) for place in range(3)]
    x = torch.cat([part.x for part in parts])[:64]
    task = torch.arange(3).repeat_interleave(22)[:64] if name == "lora" else None
    fold.strategy.eval()

    @torch.no_grad()
    def logits(rows: Tensor) -> Tensor:
        found: Tensor = fold.strategy(x[rows], None if task is None else task[rows])
        return found

    together = logits(torch.arange(64))
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(logits(order), together[order], atol=1e-5)
    for size in (1, 7):
        parted = torch.cat([logits(rows) for rows in torch.arange(64).split(size)])
        assert torch.allclose(parted, together, atol=1e-5)
        assert torch.equal(parted.argmax(1), together.argmax(1))


DIGITS = {"name": "rotated-digits", "experiences": 3, "validation": 0.6}  # fewer to learn
SCENARIOS = [("lora", TASKS)]
SCENARIOS += [
    (name, stream) for name in NAMES if name != "lora" for stream in (BLOBS, TASKS, DIGITS)
]


@pytest.mark.system
@pytest.mark.parametrize(("name", "stream"), SCENARIOS, ids=str)
def test_an_experience_is_learned_in_every_scenario_wherever_it_stands(
    name: str, stream: dict
) -> None:
    settings = {
        "model": "tiny-transformer", "epochs": 1 if stream is DIGITS else 5, "batch_size": 10,
        "optimizer": {"name": "adam", "lr": 0.01},
    }  # fmt: skip
    for order in ([0, 1, 2], [2, 0, 1]):
        result = clp.run(stream, name, out=None, curriculum=order, **settings)
        matrix = result.matrices["task"]
        gains = [matrix[k + 1, k] - matrix[0, k] for k in range(3)]
        assert min(gains) > 0.2


@pytest.mark.system
@pytest.mark.parametrize("name", NAMES)
def test_bf16(name: str) -> None:
    fold = fold_of(0, name, settings={"precision": "bf16", "epochs": 5})
    rows = fold.run()[-1].rows["test"]
    assert rows["task"][fold.plan.stream[-1].identity] > 0.9
    learned = [v for k, v in fold.strategy.state_dict().items() if k.endswith(".up")]
    assert learned
    assert all(v.dtype == torch.float32 and v.isfinite().all() and v.any() for v in learned)


@pytest.mark.system
@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize(("name", "k"), [("lora", 1), ("lora", 2), ("seq-lora", 1), ("o-lora", 2)])
def test_a_killed_run_goes_on_to_the_same_bits(
    name: str, k: int, init: Init, tmp_path: Path
) -> None:
    started = {} if name == "o-lora" else {"init": init}
    settings = {"optimizer": KEPT}
    undisturbed = fold_of(3, name, settings=settings, **started)
    fold_of(k, name, tmp_path, settings, **started)
    resumed = fold_of(0, name, tmp_path, settings, **started)
    assert resumed.load(k)
    for _ in range(3 - k):
        resumed.train()
    states = undisturbed.state.strategy, resumed.state.strategy
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


# One set of adapters per task


@pytest.mark.parametrize("init", INITS)
def test_after_every_later_task_the_logits_of_old_ones_have_the_same_bits(init: Init) -> None:
    fold = fold_of(0, "lora", init=init, settings={"optimizer": KEPT})
    first: list[Tensor] = []
    for place in range(3):
        fold.train()
        first.append(logits_of(fold, place))
        assert all(torch.equal(logits_of(fold, p), first[p]) for p in range(place + 1))
    assert not torch.equal(first[0][:, :2], first[1][:, 2:4])


@pytest.mark.parametrize("name", ["lora", "s-lora"])
def test_a_task_learned_after_others_is_what_it_is_alone(name: str) -> None:
    """With the task known, each task is as trained by itself: no other has left a trace in it."""
    settings = {"stream": TASKS, "optimizer": KEPT}
    fold = fold_of(3, name, settings=settings)
    for place in range(3):
        alone = fold_of(0, name, settings=settings)
        alone.position = place  # as if the earlier ones had been learned: the same random numbers
        alone.state.optimizer = {}
        alone.train()
        assert torch.equal(logits_of(alone, place), logits_of(fold, place))


def test_each_sample_goes_the_way_of_its_nearest_centroid() -> None:
    strategy = fold_of(3, "s-lora").strategy.eval()
    fold = fold_of(3, "s-lora")
    x = torch.cat([batch_of(fold, place).x for place in range(3)])
    with torch.no_grad():
        task = strategy.selector.nearest(strategy.model.features(x))
        assert len(task.unique()) == 3
        expected = torch.stack([strategy(x[i : i + 1], task[i : i + 1])[0] for i in range(len(x))])
        logits, own = strategy(x), strategy.info.task_classes[task]
        assert torch.allclose(logits[own], expected[own], atol=1e-5)
        # Classes of other tasks are out of question.
        assert (logits[~own] == torch.finfo(logits.dtype).min).all()


def test_samples_that_are_not_recognised_have_a_calibration_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fold = fold_of(3, "s-lora", settings={"stream": TASKS})
    monkeypatch.setattr(
        fold.strategy.selector, "nearest", lambda query: torch.zeros(len(query)).long()
    )
    fold.evaluate()
    identities = [e.identity for e in fold.plan.stream.experiences]
    errors = [fold.records[3].calibration[i] for i in identities]
    # The task that every sample was taken for, and two whose classes are tossed up.
    assert errors == [pytest.approx(0, abs=0.2), 0.0, 0.0]
    assert [fold.records[3].rows["test"]["task"][i] for i in identities[1:]] == [0.5, 0.5]


def test_a_task_that_was_not_learned_has_equal_logits() -> None:
    fold = fold_of(1, "lora")
    logits = logits_of(fold, 2)[:, 4:]
    assert torch.equal(logits, torch.zeros_like(logits))


def test_accuracy_on_a_known_task_stays_what_it_was() -> None:
    matrix = clp.run(TASKS, "lora", model="tiny-transformer", out=None, epochs=2).matrix
    for task in range(3):
        assert len({matrix[k, task] for k in range(task + 1, 4)}) == 1


# O-LoRA


def test_the_penalty_and_its_gradient_are_those_of_the_formula() -> None:
    strategy = fold_of(3, "o-lora").strategy
    downs = [adapters.down.detach() for adapters in strategy.adapters]
    expected, slope = 0.0, torch.zeros_like(downs[2])
    for p in range(downs[2].shape[0]):
        for earlier in downs[:2]:
            for i in range(8):
                for j in range(8):
                    product = float(earlier[p, i] @ downs[2][p, j])
                    expected += product**2
                    slope[p, j] += 2 * product * earlier[p, i]
    strategy.zero_grad()
    penalty = strategy.penalty()
    penalty.backward()
    assert expected > 0.01
    assert penalty.item() == pytest.approx(expected, rel=1e-4)
    assert torch.allclose(strategy.adapters[2].down.grad, slope, atol=1e-5)
    assert strategy.adapters[0].down.grad is strategy.adapters[1].down.grad is None


def test_the_absolute_overlap_of_known_factors() -> None:
    strategy = fold_of(2, "o-lora", rank=1, overlap="absolute").strategy
    with torch.no_grad():
        strategy.adapters[0].down.fill_(1)
        strategy.adapters[1].down.fill_(-0.5)
    assert strategy.penalty().item() == 4 * 16 * 0.5  # four projections of sixteen inputs
    strategy.overlap = "squared"
    assert strategy.penalty().item() == 4 * 8**2


def test_a_strong_penalty_makes_subspaces_orthogonal() -> None:
    settings = {"epochs": 20}
    free = fold_of(2, "o-lora", strength=0, settings=settings).strategy.penalty().item()
    held = fold_of(2, "o-lora", strength=10, settings=settings).strategy.penalty().item()
    assert held < 0.05 * free


def test_earlier_adapters_stay_and_count() -> None:
    fold = fold_of(2, "o-lora", settings={"optimizer": KEPT})
    earlier = [a.up.clone() for a in fold.strategy.adapters[:2]]
    fold.train()
    adapters = fold.strategy.adapters
    assert all(torch.equal(a.up, before) for a, before in zip(adapters, earlier, strict=False))
    x = batch_of(fold, 0).x
    strategy, model = fold.strategy, fold.strategy.model
    with (
        torch.no_grad(),
        merged(model, adapters[0].updates()),
        merged(model, adapters[1].updates()),
        merged(model, adapters[2].updates()),
    ):
        expected = strategy.head(model.features(x))
    assert torch.allclose(logits_of(fold, 0), expected, atol=1e-4)


# The pool


def test_a_sample_uses_the_sum_of_the_adapters_whose_keys_are_nearest() -> None:
    fold = fold_of(2, "l2p-lora", pool_size=4, selected=2)
    strategy, x = fold.strategy.eval(), batch_of(fold, 1).x
    adapters, model = strategy.adapters, strategy.model
    with torch.no_grad():
        nearness = torch.cosine_similarity(model.features(x)[:, None], strategy.keys[None], dim=2)
        for i, row in enumerate(nearness):
            weights = {}
            for item in row.sort(descending=True).indices[:2]:
                for p, name in enumerate(adapters.names):
                    product = adapters.scale * adapters.up[item, p] @ adapters.down[item, p]
                    weights[name] = weights.get(name, 0) + product
            whole = {n: LowRank(torch.eye(16), w) for n, w in weights.items()}
            with merged(model, whole):
                expected = strategy.head(model.features(x[i : i + 1]))
            assert torch.allclose(logits_of(fold, 1)[i], expected[0], atol=1e-4)


def test_adapters_that_nobody_chose_have_a_gradient_of_zero() -> None:
    fold = fold_of(1, "l2p-lora", pool_size=4, selected=1, item_mask=True)
    strategy = fold.strategy
    strategy.zero_grad()
    strategy.loss(batch_of(fold, 0)).backward()
    gradients = strategy.adapters.up.grad.flatten(1)
    assert (gradients[0] != 0).any()
    assert torch.equal(gradients[1:], torch.zeros_like(gradients[1:]))


# Where adapters start


def anisotropic(n: int, seed: int = 0) -> Tensor:
    """Inputs (n, 16) that lie mostly in a few directions."""
    draws = torch.Generator().manual_seed(seed)
    mixing = torch.randn(16, 16, generator=draws) * torch.logspace(0, -2, 16)
    return torch.randn(n, 16, generator=draws) @ mixing.T


def weight_of(seed: int = 0) -> Tensor:
    return torch.randn(12, 16, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("init", INITS[1:])
def test_the_start_is_the_frozen_model_and_the_residual_what_is_left(init: Init) -> None:
    fold = fold_of(0, "lora", init=init, settings={"epochs": 1})
    strategy, model = fold.strategy, fold.strategy.model
    fold.rng.restart(1)
    with global_generators(0):
        strategy.begin_experience(fold.plan.steps[0].experience)
    adapters, x = strategy.adapters[0], batch_of(fold, 0).x
    assert torch.allclose(feature(model, x, adapters.updates()), model.features(x), atol=1e-5)
    for i, name in enumerate(adapters.names):
        weight = model.projections()[name].weight
        residual = weight - adapters.scale * adapters.first_up[i] @ adapters.first_down[i]
        rebuilt = residual + adapters.scale * adapters.up[i] @ adapters.down[i]
        assert torch.allclose(rebuilt, weight, atol=1e-5)
        assert torch.linalg.matrix_rank(residual, atol=1e-4) == 16 - 4
    with torch.no_grad():
        adapters.up.zero_()  # then the residuals alone are left
        with merged(model, adapters.updates()):
            left = model.projections()["0.query"].weight
            assert torch.linalg.matrix_rank(left, atol=1e-4) == 16 - 4


def test_pissa_has_the_largest_components_of_the_weight() -> None:
    weight = weight_of()
    found = components(weight, 3)
    u, s, v = torch.linalg.svd(weight)
    assert torch.allclose(found.up @ found.down, (u[:, :3] * s[:3]) @ v[:3], atol=1e-5)
    shares = found.up.square().sum(0), found.down.square().sum(1)
    assert torch.allclose(shares[0], s[:3], atol=1e-5)
    assert torch.allclose(shares[1], s[:3], atol=1e-5)


@pytest.mark.parametrize("scale", [1, 50])
def test_an_identity_covariance_gives_pissa(scale: float) -> None:
    weight = weight_of()
    plain, same = components(weight, 3), components(weight, 3, scale * torch.eye(16))
    assert torch.allclose(plain.down.abs(), same.down.abs(), atol=1e-5)
    assert torch.allclose(plain.up @ plain.down, same.up @ same.down, atol=1e-5)


def test_the_smallest_and_the_largest_components_make_up_the_weight() -> None:
    x, weight = anisotropic(200), weight_of()
    covariance = x.T @ x / 200
    large, small = components(weight, 8, covariance), components(weight, 4, covariance, True)
    assert torch.allclose(large.up @ large.down + small.up @ small.down, weight, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_discarded_in_context_costs_less_on_its_inputs(seed: int) -> None:
    x, weight = anisotropic(200, seed), weight_of(seed)
    discarded = components(weight, 6, x.T @ x / 200, smallest=True)
    u, s, v = torch.linalg.svd(weight, full_matrices=False)
    plain = (u[:, 6:] * s[6:]) @ v[6:]
    lost, lost_by_svd = ((x @ w.T).norm() for w in (discarded.up @ discarded.down, plain))
    assert lost < 0.5 * lost_by_svd


def test_no_other_truncation_is_closer_in_context() -> None:
    """Eckart and Young: of all weights of the rank the truncated one is nearest under W C."""
    x, weight = anisotropic(200), weight_of().double()
    context, inverse = damped((x.T @ x).double())
    assert torch.allclose(context @ inverse, torch.eye(16, dtype=torch.float64), atol=1e-6)
    lost = components(weight, 6, x.T @ x, smallest=True)
    error = (lost.up @ lost.down @ context).norm()
    singular = torch.linalg.svdvals(weight @ context)
    assert error.item() == pytest.approx(singular[6:].norm().item(), rel=1e-6)


def test_a_singular_covariance_is_damped_until_it_has_an_inverse() -> None:
    context, inverse = damped(torch.ones(16, 16, dtype=torch.float64))
    assert context.diagonal().mean().item() == pytest.approx(1)
    assert context[0, 1].item() == pytest.approx(1 / 1.01)
    assert torch.linalg.norm(context @ inverse - torch.eye(16)) < 0.05


@pytest.mark.parametrize("make", BACKBONES)
def test_covariances_are_those_of_the_inputs_without_padding(make: Any) -> None:
    model, x = make()
    places = model.projections()
    seen: list[Tensor] = []
    layer = places["1.query"].layer
    with torch.no_grad():
        hook = layer.register_forward_hook(lambda m, inputs, output: seen.append(inputs[0][0]))
        for row in x:  # one by one: then text has no padding
            model.features(row[None])
        hook.remove()
    inputs = torch.cat(seen).double()
    found = covariances(model, places, x.split(4))
    expected = inputs.T @ inputs / len(inputs)
    assert found.keys() == places.keys()
    assert torch.allclose(found["1.query"], expected, rtol=1e-4, atol=1e-4)


def test_a_target_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="targets"):
        fold_of(0, "lora", targets=["output"])
