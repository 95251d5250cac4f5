"""Models and preprocessing: shapes, sizes, and what normalisation does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cl_platform.config.signatures import build
from cl_platform.core.preprocess import Preprocess
from cl_platform.errors import BadInput, ConfigError
from cl_platform.models.classifier import norm_layer


def model(name: str, shape: tuple[int, ...] = (3, 32, 32), **parameters: object) -> nn.Module:
    return build("model", {"name": name, **parameters}, input_shape=shape, n_classes=10)


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet18", "slim-resnet18"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64)])
def test_logits_and_features(name: str, shape: tuple[int, ...]) -> None:
    network = model(name, shape).eval()
    x = torch.randn(4, *shape)
    logits = network(x)
    assert logits.shape == (4, 10)
    features = network.features(x)  # type: ignore[operator]
    assert features.shape == (4, network.classifier.in_features)  # type: ignore[union-attr]
    assert torch.equal(network.classifier(features), logits)  # type: ignore[operator]


def test_sizes_are_those_of_the_papers() -> None:
    assert size(model("mlp", (1, 28, 28))) == 784 * 400 + 400 + 400 * 400 + 400 + 4010
    # He et al.'s ResNet-18 with a 3x3 stem and 10 classes.
    assert size(model("resnet18")) == 11_173_962
    # Lopez-Paz & Ranzato's reduced version of it, for 10 classes.
    assert size(model("slim-resnet18")) == 1_094_750


def test_slim_resnet_has_20_160_channels() -> None:
    network = model("slim-resnet18")
    assert network.classifier.in_features == 160  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["cnn", "resnet18", "slim-resnet18"])
def test_group_norm_treats_every_sample_alone(name: str) -> None:
    network = model(name, norm="group").train()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    x = torch.randn(4, 3, 32, 32)
    assert torch.allclose(network(x)[:1], network(x[:1]), atol=1e-4)


@pytest.mark.parametrize("channels", [3, 7, 20, 32, 40, 64, 160])
def test_group_norm_fits_any_width(channels: int) -> None:
    layer = norm_layer("group", channels)
    assert layer(torch.randn(2, channels, 4, 4)).shape == (2, channels, 4, 4)


def test_convolutions_need_images() -> None:
    with pytest.raises(BadInput, match=r"inputs of shape \(16,\) are no images"):
        model("cnn", (16,))


def test_unknown_norms_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.norm=layer: input should be 'batch' or 'group'"):
        model("cnn", norm="layer")


def images(n: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, 16, 16), dtype=torch.uint8)


def test_normalisation() -> None:
    raw = images()
    mean, std = (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)
    x = Preprocess(mean, std)(raw)
    for c in range(3):
        assert torch.allclose(x[:, c], (raw[:, c].float() - mean[c]) / std[c], atol=1e-5)
    assert raw.dtype == torch.uint8
    floats = torch.randn(5, 7)
    assert torch.equal(Preprocess()(floats), floats)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.int16])
def test_token_ids_stay_as_they_are(dtype: torch.dtype) -> None:
    ids = torch.tensor([[101, 30521, 102, 0]], dtype=dtype)
    found = Preprocess()(ids, torch.Generator())
    assert found.dtype == dtype
    assert torch.equal(found, ids)
    assert torch.equal(Preprocess((1.0,), (2.0,))(ids), (ids - 1) / 2)  # if that is wanted


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.float16, torch.float64])
def test_other_inputs_become_float32(dtype: torch.dtype) -> None:
    raw = torch.tensor([[0, 1]], dtype=dtype)
    assert Preprocess()(raw).dtype == torch.float32


def test_an_mlp_cannot_read_token_ids() -> None:
    with pytest.raises(BadInput, match="token ids, which an mlp cannot read; give --model minilm"):
        model("mlp", (4,))(torch.zeros(2, 4, dtype=torch.int32))


def test_augmentation_shifts_and_mirrors_each_image_by_itself() -> None:
    raw = images(200)
    generator = torch.Generator().manual_seed(0)
    out = Preprocess(augmentation="crop-flip", padding=2)(raw, generator).to(torch.uint8)
    padded = nn.functional.pad(raw, (2, 2, 2, 2))
    found = []
    for before, after in zip(padded, out, strict=True):
        places = [
            (dy, dx, flipped)
            for dy in range(5)
            for dx in range(5)
            for flipped in (False, True)
            if torch.equal(_window(before, dy, dx, flipped), after)
        ]
        assert len(places) == 1
        found += places
    assert len({f[0] for f in found}) == 5
    assert len({f[1] for f in found}) == 5
    assert 60 < sum(f[2] for f in found) < 140


def _window(padded: torch.Tensor, dy: int, dx: int, flipped: bool) -> torch.Tensor:
    image = padded.flip(2) if flipped else padded
    return image[:, dy : dy + 16, dx : dx + 16]


def test_augmentation_is_for_training_only_and_follows_its_generator() -> None:
    raw = images()
    preprocess = Preprocess(augmentation="crop-flip")
    assert torch.equal(preprocess(raw), raw.float())
    first, second = (preprocess(raw, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, raw.float())


def test_crop_alone_does_not_mirror() -> None:
    raw = images(32)
    out = Preprocess(augmentation="crop", padding=0)(raw, torch.Generator().manual_seed(0))
    assert torch.equal(out, raw.float())
