"""Pretrained networks: the published weights at work, their inputs, and what their states hang on."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import cl_platform as clp
from cl_platform.config.run_config import parse_config
from cl_platform.config.signatures import build
from cl_platform.core.preprocess import Preprocess
from cl_platform.engine.plan import Plan
from cl_platform.engine.planner import Planner, make_plan
from cl_platform.errors import BadInput, ClpError, ConfigError, DataError
from cl_platform.models.classifier import Classifier
from cl_platform.models.pretrained_cnn import CifarResNet, MobileNetV1
from cl_platform.models.weights import read_weights
from streams.data.datasets import load_dataset

NAMES = ["cifar-resnet", "mobilenet"]
COLOURED = {"name": "split-cifar10", "samples": 20}


def model(name: str, shape: tuple[int, ...] = (3, 32, 32), n: int = 10, **given: Any) -> Classifier:
    network: Classifier = build("model", {"name": name, **given}, input_shape=shape, n_classes=n)
    return network.eval()


def with_old_classifier(network: Classifier, file: Path, name: str) -> Classifier:
    """The network as it was published."""
    state = read_weights(file)
    weight, bias = state[f"{name}.weight"].flatten(1), state[f"{name}.bias"]
    network.classifier.load_state_dict({"weight": weight, "bias": bias})
    return network


@torch.inference_mode()
def in_chunks(network: Any, raw: Tensor) -> Tensor:
    return torch.cat([network(part) for part in raw.split(100)])


@pytest.mark.parametrize(("depth", "right"), [(20, 929), (32, 940)])
def test_the_networks_for_cifar_are_the_published_ones(
    real_data: Path, depth: int, right: int
) -> None:
    """As many of these 1000 images are right as is told where they lie."""
    test = load_dataset("cifar10").test
    (file,) = (real_data / "pretrained").glob(f"resnet{depth}-*.th")
    network = with_old_classifier(model("cifar-resnet", depth=depth), file, "linear")
    logits = in_chunks(lambda raw: network(CifarResNet.preprocess(raw)), test.x)
    assert int((logits.argmax(1) == test.y).sum()) == pytest.approx(right, abs=1)


def tiny_images(root: Path, n: int) -> tuple[Tensor, Tensor]:
    """n of the 1000 validation images, and their classes in ImageNet."""
    classes = json.loads((root / "classes.json").read_text())
    number = {c["wnid"]: c["imagenet1k_index"] for c in classes}
    with zipfile.ZipFile(root / "tiny_a.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.startswith("val/"))
        names = [name for name in names if name.endswith(".JPEG")][:: 1000 // n]
        opened = [Image.open(io.BytesIO(archive.read(name))) for name in names]
        images = [np.array(image.convert("RGB")) for image in opened]
    y = torch.tensor([number[name.split("/")[1]] for name in names])
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), y


def test_the_mobilenet_knows_the_classes_of_imagenet(real_data: Path) -> None:
    """As told where they lie: 26 % are right when enlarged to 128 pixels, 49 % among 200 classes."""
    raw, y = tiny_images(real_data / "tiny_imagenet", 200)
    (file,) = (real_data / "pretrained").glob("mobilenet_*.pt")
    network = with_old_classifier(
        model("mobilenet", (3, 64, 64), n=1000, size=128), file, "conv_preds"
    )
    logits = in_chunks(lambda raw: network(MobileNetV1.preprocess(raw)), raw)
    among = y.unique()
    assert len(among) == 200
    right = float((logits.argmax(1) == y).float().mean())
    right_among = float((among[logits[:, among].argmax(1)] == y).float().mean())
    assert right == pytest.approx(0.26, abs=0.09)  # three standard errors of 200 images
    assert right_among == pytest.approx(0.49, abs=0.11)


@pytest.mark.parametrize(("name", "given"), [("cifar-resnet", {}), ("mobilenet", {"size": 64})])
def test_classes_lie_apart_in_the_features(real_data: Path, name: str, given: dict) -> None:
    test = load_dataset("cifar10").test
    raw = test.gather(torch.cat([(test.y == c).nonzero()[:40, 0] for c in range(10)]))
    network = model(name, **given)
    accuracy = nearest_mean_accuracy(
        in_chunks(lambda part: network.features(network.preprocess(part)), raw)
    )
    assert accuracy > 0.3  # three times chance
    assert accuracy > nearest_mean_accuracy(raw.flatten(1).float()) + 0.1


def nearest_mean_accuracy(x: Tensor) -> float:
    """Ten classes one after the other; the first half of each makes its mean."""
    fit, others = x.view(10, -1, x.shape[1]).chunk(2, dim=1)
    nearest = torch.cdist(others, fit.mean(1)).argmin(-1)
    return float((nearest == torch.arange(10)[:, None]).float().mean())


@pytest.mark.parametrize("name", NAMES)
def test_grey_images_are_coloured_ones_of_equal_channels(real_data: Path, name: str) -> None:
    network = model(name, (1, 28, 28))
    grey = torch.randint(256, (2, 1, 28, 28), dtype=torch.uint8)
    with torch.inference_mode():
        features = network.features(network.preprocess(grey))
        of_three = network.features(network.preprocess(grey.expand(-1, 3, -1, -1)))
    assert features.shape == (2, network.classifier.in_features)
    assert torch.equal(features, of_three)


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_the_classifier_on_the_features(real_data: Path, name: str) -> None:
    network = model(name, (3, 64, 64), n=7)
    x = torch.randn(2, 3, 64, 64)
    assert network(x).shape == (2, 7)
    assert torch.equal(network.classifier(network.features(x)), network(x))


def test_images_are_resized_to_the_size_asked_for(real_data: Path) -> None:
    small, large = model("mobilenet", size=32), model("mobilenet", size=64)
    seen: list[torch.Size] = []
    for network in (small, large):
        network.body.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
        network(torch.randn(2, 3, 48, 40))
    assert seen == [(2, 3, 32, 32), (2, 3, 64, 64)]


def plan(**settings: Any) -> Plan:
    return make_plan(parse_config({"strategy": "finetune", "stream": COLOURED, **settings}))


def test_the_model_says_how_its_inputs_are_normalised(real_data: Path) -> None:
    augmented = {**COLOURED, "augmentation": "crop-flip"}
    planned = plan(model="mobilenet", stream=augmented)
    assert planned.stream.preprocess == Preprocess((127.5,) * 3, (127.5,) * 3, "crop-flip")
    raw = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    x = planned.stream.preprocess(raw)
    assert x[0].unique().tolist() == [-1]
    assert x[1].unique().tolist() == [1]


def test_one_planner_keeps_the_inputs_of_its_models_apart(real_data: Path) -> None:
    planner = Planner()

    def planned(name: str) -> Plan:
        return planner(parse_config({"strategy": "finetune", "stream": COLOURED, "model": name}))

    given, resnet, mobilenet, again = map(planned, ["cnn", "cifar-resnet", "mobilenet", "cnn"])
    assert resnet.stream.preprocess.mean == CifarResNet.preprocess.mean
    assert mobilenet.stream.preprocess.mean == MobileNetV1.preprocess.mean
    own = planner.stream(given.config).preprocess
    assert given.stream.preprocess == again.stream.preprocess == own
    assert given.evaluators is again.evaluators
    assert given.evaluators is not resnet.evaluators
    assert resnet.evaluators is not mobilenet.evaluators
    assert given.keys == again.keys


@pytest.fixture
def copied(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of one's own with the weights of ResNet-20."""
    (source,) = (real_data / "pretrained").glob("resnet20-*.th")
    (tmp_path / "pretrained").mkdir()
    copy = tmp_path / "pretrained" / source.name
    copy.write_bytes(source.read_bytes())
    monkeypatch.setenv("CLP_DATA", str(tmp_path))
    return copy


def test_other_weights_are_another_state(copied: Path) -> None:
    def keys() -> set[str]:
        return set(plan(model="cifar-resnet", stream="split-digits").keys)

    state = torch.load(copied, map_location="cpu", weights_only=True)
    torch.save(state, copied)
    before, content = keys(), copied.read_bytes()
    state["state_dict"]["module.conv1.weight"][0, 0, 0, 0] += 1
    torch.save(state, copied)
    assert len(content) == copied.stat().st_size
    assert not keys() & before
    copied.write_bytes(content)
    os.utime(copied, (1, 1))  # the same weights at another time
    assert keys() == before


def test_a_run_learns_and_is_found_again(copied: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "stream": {"name": "split-digits", "experiences": 2, "samples": 30},
        "strategy": "ncm",
        "model": "cifar-resnet",
        "out": tmp_path / "out",
    }
    first = clp.run(**settings)
    assert first.metrics["average_accuracy"] > 0.2  # twice chance, on images it was not made for
    assert clp.run(**settings).matrix == first.matrix
    assert clp.run(**settings).run_id == first.run_id


def refused(error: type[ClpError], match: str, **settings: Any) -> None:
    with pytest.raises(error, match=match) as caught:
        clp.run(strategy="finetune", out=None, **settings)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("size", [0, 40, -32, "big"])
def test_sizes_that_do_not_fit_are_one_line(size: object) -> None:
    refused(ConfigError, rf"model\.size={size}: ", model={"name": "mobilenet", "size": size})


@pytest.mark.parametrize("name", NAMES)
def test_inputs_that_are_no_images_are_one_line(real_data: Path, name: str) -> None:
    refused(BadInput, r"'blobs' has inputs of torch.float32.*uint8", model=name, stream="blobs")
    for shape, message in [((16,), "are no images"), ((4, 8, 8), "images of 4 channels")]:
        x = torch.zeros(4, *shape, dtype=torch.uint8)
        samples = clp.Samples.of(x, torch.tensor([0, 1, 0, 1]))
        stream = clp.class_incremental("mine", [[0, 1]], ["a", "b"], samples, samples)
        refused(BadInput, message, model=name, stream=stream)


def test_weights_that_are_not_there_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLP_DATA", str(tmp_path))
    refused(DataError, r"no file mobilenet_v1_075_\*\.pt in .*; put it there", model="mobilenet")
    wanted = {"name": "cifar-resnet", "depth": 32, "weights": "absent.th"}
    refused(DataError, r"weights=absent\.th is no file.*resnet32-\*\.th", model=wanted)


def test_weights_of_something_else_are_one_line(copied: Path, tmp_path: Path) -> None:
    shallow = {"name": "cifar-resnet", "depth": 32, "weights": str(copied)}
    refused(DataError, "are those of another network", model=shallow)
    for i, content in enumerate([[1, 2], {"a": "text"}]):
        torch.save(content, tmp_path / f"{i}.pt")
        given = {"name": "mobilenet", "weights": str(tmp_path / f"{i}.pt")}
        refused(DataError, rf"{i}\.pt cannot be read", model=given)
    (tmp_path / "damaged.pt").write_bytes(copied.read_bytes()[:5000])
    damaged = {"name": "cifar-resnet", "weights": str(tmp_path / "damaged.pt")}
    refused(DataError, r"damaged\.pt cannot be read", model=damaged)
