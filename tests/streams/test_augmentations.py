"""Augmentations: known answers, draws of their own for each sample, and runs that use them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

import cl_platform as clp
from cl_platform import Augmentation, Batch, ReplayBuffer
from cl_platform.config.registry import load, plugins
from cl_platform.config.run_config import parse_config, with_flags
from cl_platform.config.signatures import build
from cl_platform.core.augmentation import Mixing
from cl_platform.core.preprocess import Preprocess
from cl_platform.core.rng import RNG
from cl_platform.engine.execution import execute
from cl_platform.engine.fold import Fold
from cl_platform.engine.planner import make_plan
from cl_platform.storage.state_store import StateStore
from cl_platform.tracking.sinks import Trackers
from streams.augmentations.colour import ColourJitter, turned
from streams.augmentations.geometry import Crop, Flip, RandomResizedCrop
from streams.augmentations.mixing import CutMix, Mixup, drawn
from streams.augmentations.rand_augment import RandAugment

DIGITS = {"name": "split-digits", "samples": 20, "test_samples": 10, "experiences": 2}
NAMES = sorted(plugins("augmentation"))
EXAMPLE = str(Path(__file__).parents[2] / "examples" / "augmentation.py")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = 64, channels: int = 3, size: int = 8) -> Tensor:
    return torch.randint(256, (n, channels, size, size), generator=generator(7)).to(torch.uint8)


def one(image: Tensor, n: int) -> Tensor:
    return image.expand(n, *image.shape[1:]).clone()


# Known answers.


def test_flip_mirrors_about_half_of_the_images_whole() -> None:
    raw = images(400)
    out = Flip()(raw, generator())
    kept, mirrored = (out == raw).flatten(1).all(1), (out == raw.flip(3)).flatten(1).all(1)
    assert (kept ^ mirrored).all()
    assert 150 < int(mirrored.sum()) < 250
    assert torch.equal(Flip(probability=1)(raw, generator()), raw.flip(3))
    assert torch.equal(Flip(probability=0)(raw, generator()), raw)


def test_crops_are_uniform_over_all_shifts() -> None:
    raw = one(images(1, size=4), 4500)
    padded = torch.nn.functional.pad(raw[:1], (1, 1, 1, 1))
    out = Crop(padding=1)(raw, generator())
    windows = [padded[0, :, i : i + 4, j : j + 4] for i in range(3) for j in range(3)]
    counts = torch.stack([(out == w).flatten(1).all(1).sum() for w in windows])
    assert counts.sum() == 4500
    assert ((counts - 500).abs() < 5 * 500**0.5).all()


def test_a_whole_box_of_the_right_shape_is_the_image() -> None:
    whole = RandomResizedCrop(scale=(1.0, 1.0), ratio=(1.0, 1.0))
    assert torch.equal(whole(images(), generator()), images())


def test_a_resized_crop_stays_inside_and_has_the_area_that_was_asked_for() -> None:
    ramp = torch.linspace(0, 1, 64).expand(500, 1, 64, 64).clone()  # a place's own column
    out = RandomResizedCrop(scale=(0.25, 0.25), ratio=(1.0, 1.0))(ramp, generator())
    widths = (out[:, 0, 32, -1] - out[:, 0, 32, 0]) * 64 / 63 * 63 / 63
    assert widths == pytest.approx(torch.full((500,), 0.5), abs=0.02)
    assert out.min() < 0.05
    assert out.max() > 0.95
    centres = out[:, 0, 32, 32]
    assert centres.std() == pytest.approx(0.5 / 12**0.5, abs=0.02)  # uniform within what fits


def test_jitter_stays_within_its_bounds() -> None:
    grey = torch.full((500, 3, 4, 4), 100, dtype=torch.uint8)
    only = {"contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    out = ColourJitter(brightness=0.3, **only)(grey, generator())
    level = out[:, 0, 0, 0].int()
    assert (out == out[:, :1, :1, :1]).all()
    assert 70 <= int(level.min()) <= 72
    assert 128 <= int(level.max()) <= 130
    nothing = ColourJitter(brightness=0, **only)
    assert torch.equal(nothing(images(), generator()), images())


@pytest.mark.parametrize("turn", [-0.5, -0.2, 0.05, 0.31])
def test_hues_turn_as_in_torchvision(turn: float) -> None:
    x = torch.rand(8, 3, 5, 5, generator=generator())
    expected = functional.adjust_hue(x, turn)
    assert torch.allclose(turned(x, torch.full((8, 1, 1, 1), turn)), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "check"),
    [("contrast", functional.adjust_contrast), ("saturation", functional.adjust_saturation)],
)
def test_contrast_and_saturation_are_those_of_torchvision(kind: str, check: object) -> None:
    amounts = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, kind: 0.8}
    raw = images(30)
    out = ColourJitter(**amounts)(raw, generator()).int()
    factors = [f / 100 for f in range(20, 181)]
    tried = torch.stack([check(raw, f).int() for f in factors])  # type: ignore[operator]
    nearest = (tried - out).abs().flatten(2).float().mean(2).min(0).values
    assert (nearest < 1).all()  # some factor of the range gives each image but for rounding


def test_rand_augment_of_magnitude_0_changes_nothing() -> None:
    assert torch.equal(RandAugment(magnitude=0)(images(), generator()), images())
    assert torch.equal(RandAugment(changes=0)(images(), generator()), images())


def test_rand_augment_draws_a_change_for_each_image() -> None:
    same = one(images(1, size=16), 300)
    out = RandAugment(changes=1, magnitude=20)(same, generator())
    distinct = {bytes(image.numpy().tobytes()) for image in out}
    assert 18 <= len(distinct) <= 28  # fourteen changes, most of two signs
    rotated = functional.rotate(same[:1], 20)[0]
    count = int((out == rotated).flatten(1).all(1).sum())
    assert 2 <= count <= 25


def test_mixed_targets_are_distributions_with_the_weights_of_the_inputs() -> None:
    target = torch.eye(4)[torch.arange(40) % 4]
    x = target.clone()  # then the mixture of inputs is the mixture of targets
    (mixed,), found = Mixup(alpha=1.0).mix([x], target, generator())
    assert torch.allclose(mixed, found)
    assert torch.allclose(found.sum(1), torch.ones(40))
    assert (found.max(1).values < 0.999).sum() > 20
    assert len({round(float(v), 4) for v in found.max(1).values}) > 20  # weights of their own


def test_mixup_draws_its_weights_from_a_beta_distribution() -> None:
    n = 20000
    target = torch.eye(2)[(torch.arange(n) % 2)]
    for alpha in (0.2, 1.0):
        own, partner = drawn(n, alpha, generator())
        assert own.mean() == pytest.approx(0.5, abs=0.02)
        assert own.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)
        assert torch.equal(partner.sort().values, torch.arange(n))
        (mixed,), found = Mixup(alpha=alpha).mix([target[:, 1]], target, generator())
        expected = own * target[:, 1] + (1 - own) * target[partner, 1]
        assert torch.allclose(mixed, expected, atol=1e-6)
        assert torch.allclose(found[:, 1], expected, atol=1e-6)


def test_cutmix_pastes_a_box_and_shares_the_label_by_its_area() -> None:
    n = 200
    target = torch.eye(2)[torch.arange(n) % 2]
    x = (torch.arange(n) % 2).float().view(n, 1, 1, 1).expand(n, 3, 10, 10).clone()
    (mixed,), found = CutMix().mix([x], target, generator())
    assert torch.allclose(mixed[:, 0].mean((1, 2)), found[:, 1], atol=1e-6)
    assert torch.equal(mixed[:, 0], mixed[:, 2])
    changed = (mixed != x)[:, 0]
    rows, columns = changed.any(2).sum(1), changed.any(1).sum(1)
    assert torch.equal(rows * columns, changed.sum((1, 2)))  # a box
    assert len({*found[:, 0].tolist()}) > 20


def test_two_views_are_mixed_alike() -> None:
    target = torch.eye(3)[torch.arange(30) % 3]
    x = torch.rand(30, 1, 6, 6, generator=generator())
    for mixing in (Mixup(), CutMix()):
        (first, second), _ = mixing.mix([x, x + 1], target, generator())
        assert torch.allclose(first + 1, second, atol=1e-6)


# Every registered augmentation.


def applied(name: str, raw: Tensor, seed: int = 0) -> Tensor:
    change = load("augmentation", name)()
    if isinstance(change, Mixing):
        target = torch.eye(8)[torch.arange(len(raw)) % 8]
        return change.mix([raw.float()], target, generator(seed))[0][0]
    return change(raw, generator(seed))


@pytest.mark.parametrize("name", NAMES)
def test_it_is_repeated_by_its_seed_and_leaves_what_it_was_given(name: str) -> None:
    raw = images()
    first = applied(name, raw)
    assert torch.equal(first, applied(name, raw))
    assert torch.equal(raw, images())
    assert first.shape == raw.shape
    if name != "two-views":
        assert not torch.equal(first, applied(name, raw, seed=1))


@pytest.mark.parametrize("name", [n for n in NAMES if n != "two-views"])
@pytest.mark.parametrize("channels", [1, 3])
def test_each_sample_has_draws_of_its_own(name: str, channels: int) -> None:
    raw = one(images(1, channels, size=16), 64)
    if isinstance(load("augmentation", name)(), Mixing):
        raw = images(64, channels, size=16)  # equal images stay equal, mixed
        shares = (applied(name, raw) != raw).flatten(1).float().mean(1)
        assert len({*shares.tolist()}) > 10 or name == "mixup"
        return
    out = applied(name, raw)
    assert len({image.numpy().tobytes() for image in out}) > (1 if name == "flip" else 8)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("strategy", ["er", "icarl"])
def test_runs_use_it(name: str, strategy: str) -> None:
    plain = parse_config({"stream": DIGITS, "strategy": strategy, "augmentation": []})
    config = parse_config({"stream": DIGITS, "strategy": strategy, "augmentation": [name]})
    plans = [make_plan(plain), make_plan(config)]
    assert not {*plans[0].keys} & {*plans[1].keys}
    states = []
    for plan in plans:
        fold = Fold(plan, StateStore(None), Trackers())
        fold.train()
        states.append(torch.cat([p.detach().flatten() for p in fold.strategy.parameters()]))
        memory: Any = fold.strategy.buffer
        kept = memory.x[memory.rows()]
        assert kept.dtype == torch.uint8  # memories keep what is stored
        stored = {image.numpy().tobytes() for image in plan.stream[0].train.x}
        assert {image.numpy().tobytes() for image in kept} <= stored
    assert torch.equal(*states) == (name == "two-views")


# In a run.


@pytest.mark.parametrize(
    ("strategy", "model"),
    [("er", "mlp"), ("icarl", "mlp"), ("der++", "mlp"), ("l2p", "tiny-transformer")],
)
def test_a_run_goes_on_in_the_midst_of_a_stream_to_the_same_bits(
    strategy: str, model: str, tmp_path: Path
) -> None:
    changes = ["crop", "flip", "rand-augment", "mixup", "cutmix"]
    settings = {"stream": DIGITS, "strategy": strategy, "model": model, "augmentation": changes}
    plan = make_plan(parse_config({**settings, "optimizer": {"lr": 0.01}, "epochs": 2}))
    whole = Fold(plan, StateStore(None), Trackers())
    whole.run()
    Fold(plan, StateStore(tmp_path), Trackers()).run(upto=1)
    resumed = Fold(plan, StateStore(tmp_path), Trackers())
    resumed.run()
    assert resumed.trained == 1
    expected, found = whole.state.strategy, resumed.state.strategy
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert torch.equal(value, found[key]) if isinstance(value, Tensor) else value == found[key]


def test_the_streams_own_augmentation_is_replaced() -> None:
    stream = {**DIGITS, "augmentation": "crop-flip"}
    plans = {
        str(given): make_plan(parse_config({"stream": stream, "augmentation": given}))
        for given in (None, "none", "crop")
    }
    found = [plan.stream.preprocess.augmentation for plan in plans.values()]
    assert found == ["crop-flip", "none", (Crop(),)]
    assert len({plan.keys for plan in plans.values()}) == 3


def test_replay_draws_are_augmented_and_mixed_unless_they_must_not_be() -> None:
    plan = make_plan(parse_config({"stream": DIGITS, "augmentation": "flip,mixup,two-views"}))
    info = plan.info(RNG(0))
    memory = ReplayBuffer(50, info)
    data = plan.stream[0].train
    memory.add(Batch(data.x.float(), data.y, None, data.x))
    drawn, plain = memory.sample(20), memory.sample(20, mixing=False)
    assert drawn.target is not None
    assert torch.allclose(drawn.target.sum(1), torch.ones(20))
    assert plain.target is None
    assert plain.x2 is not None
    assert (plain.x != plain.x2).any()  # a draw of its own
    whole = info.preprocess(torch.cat([data.x, data.x.flip(3)]))
    assert {x.numpy().tobytes() for x in plain.x} <= {x.numpy().tobytes() for x in whole}
    assert drawn[:3].target.shape == (3, 10)  # type: ignore[union-attr]


def test_stored_logits_are_those_of_samples_as_they_are_stored() -> None:
    settings = {"stream": DIGITS, "strategy": {"name": "der++", "memory_size": 50}}
    config = parse_config(with_flags(settings, {"augmentation": "mixup", "lr": 1e-9}))
    fold = Fold(make_plan(config), StateStore(None), Trackers())
    fold.train()
    strategy: Any = fold.strategy
    rows = strategy.buffer.rows()
    found = strategy.model(strategy.buffer.plain(rows))  # the weights are still the first ones
    assert torch.allclose(strategy.buffer.extra_logits[rows], found, atol=1e-4)


class Seen(load("strategy", "finetune")):  # type: ignore[misc]
    """Keeps the batches it gets."""

    def training_step(self, batch: Batch) -> Tensor:
        BATCHES.append(batch)
        return super().training_step(batch)


BATCHES: list[Batch] = []


def test_partners_are_of_the_same_batch() -> None:
    """A batch is all that a strategy sees of a stream: its mixtures hold nothing else."""
    BATCHES.clear()
    stream = {**DIGITS, "normalise": False}
    clp.run(stream, Seen, augmentation=[Mixup(alpha=5.0)], batch_size=2, out=None)
    for batch in BATCHES:
        assert batch.target is not None
        outside = torch.ones(10, dtype=torch.bool)
        outside[batch.y] = False
        assert not batch.target[:, outside].any()
        low, high = Preprocess((0.0,), (16.0,))(batch.raw).aminmax(dim=0)
        assert ((batch.x >= low - 1e-4) & (batch.x <= high + 1e-4)).all()


def nothing() -> None:
    """Makes no augmentation."""


@dataclass
class Wrong(Augmentation):
    """Loses a row."""

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return images[1:]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"stream": "blobs", "augmentation": "flip"}, "augmentation 'flip' takes images .C, H, W."),
        ({"augmentation": "flop"}, "unknown augmentation 'flop'. Did you mean 'flip'?"),
        ({"augmentation": {"name": "crop", "padding": -1}}, "augmentation.0.padding=-1: input sh"),
        ({"augmentation": 3}, "augmentation=3: input should be a valid list"),
        ({"augmentation": "[crop"}, "augmentation=.crop: "),
        ({"strategy": "gss", "augmentation": "cutmix"}, "'gss' learns nothing of mixed samples"),
        ({"augmentation": [Wrong()]}, "augmentation Wrong made .* return images as they came"),
        (
            {"augmentation": [f"{__name__}:nothing"]},
            "nothing' gives None: expected an Augmentation",
        ),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(settings: dict, said: str) -> None:
    with pytest.raises(clp.ClpError, match=said) as caught:
        clp.run(**{"stream": DIGITS, **settings}, out=None)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 500


def test_token_ids_are_refused() -> None:
    mixup = load("augmentation", "mixup")()
    with pytest.raises(clp.ClpError, match="token ids"):
        mixup.check((12,), torch.int32)
    with pytest.raises(clp.ClpError, match=r"stream has token ids of int32 and shape \(12,\)"):
        Flip().check((12,), torch.int32)
    with pytest.raises(clp.ClpError, match="uint8 with 1 or 3 channels"):
        ColourJitter().check((3, 8, 8), torch.float32)
    mixup.check((17,), torch.float32)


def test_the_example_runs_from_its_file(tmp_path: Path) -> None:
    section = {"name": f"{EXAMPLE}:Erase", "share": 0.25}
    result = clp.run(DIGITS, "er", augmentation=["flip", section], out=tmp_path)
    assert result.config["augmentation"] == [{"name": "flip", "probability": 0.5}, section]
    again = clp.run(DIGITS, "er", augmentation=["flip", section], out=tmp_path)
    assert again.run_id == result.run_id
    erase = build("augmentation", section)
    out = erase(torch.full((200, 1, 8, 8), 9, dtype=torch.uint8), generator())
    assert (out == 0).flatten(1).sum(1).tolist() == [16] * 200
    assert len({image.numpy().tobytes() for image in out}) > 10


def test_preprocess_applies_a_runs_augmentation_in_order_before_scaling() -> None:
    raw = images(6)
    made = Preprocess((1.0,) * 3, (2.0,) * 3, (Flip(probability=1),))(raw, generator())
    assert torch.equal(made, (raw.flip(3).float() - 1) / 2)
    assert torch.equal(Preprocess(augmentation=(Flip(1),))(raw), raw.float())  # not in evaluation


def test_finished_runs_come_back(tmp_path: Path) -> None:
    plan = make_plan(parse_config({"stream": DIGITS, "augmentation": ["flip", "mixup"]}))
    assert execute(plan, tmp_path).matrix == execute(plan, tmp_path).matrix
