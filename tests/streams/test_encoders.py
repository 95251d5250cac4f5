"""Encoders of raw inputs for curricula: pixels, networks, and those of users."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

import cl_platform as clp
from cl_platform.config.signatures import build
from cl_platform.errors import BadInput, ClpError, DataError
from cl_platform.models.hub import load_encoder
from streams.curricula.distances import difficulties, items_of
from streams.data.datasets import load_dataset
from streams.data.text_formats import token_ids
from tests.helpers.hand_made import BLOBS, assert_one_line, order_of, stream_of

ENCODERS = """
import torch

def first(column: int = 0):
    return lambda raw: raw.flatten(1)[:, column : column + 1]

def not_a_number():
    return lambda raw: torch.full((len(raw), 3), float("nan"))

def infinite():
    return lambda raw: torch.full((len(raw), 3), float("inf"))

def one_number_each():
    return lambda raw: raw.flatten(1).sum(1)

def too_few():
    return lambda raw: raw[:-1].flatten(1)

def numpy_array():
    return lambda raw: raw.numpy()

def nothing():
    return lambda raw: None

def no_function():
    return None

def fails():
    def encode(raw):
        raise RuntimeError("out of\\nluck")
    return encode

def widths_that_vary():
    widths = iter(range(1, 100))
    return lambda raw: raw.flatten(1)[:, : next(widths)]

def asks(parameter):
    return lambda raw: raw.flatten(1)
"""


@pytest.fixture
def my_encoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module of a user with encoders, good and bad ones."""
    module = f"encoders_of_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(ENCODERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return module


def test_a_users_own_encoder_is_used(my_encoders: str) -> None:
    """Classes that stand in a different order along each axis."""
    means = [[0.0, 9.0], [9.0, 0.0], [3.0, 3.0], [6.0, 6.0]]
    stream = stream_of(means, [[0], [1], [2], [3]], spread=0.1)
    given = {"distance": "euclidean", "start": 0}
    name = f"{my_encoders}:first"
    assert order_of(stream, "similar_chain", encoder=name, **given) == [0, 2, 3, 1]
    second = {"name": name, "column": 1}
    assert order_of(stream, "similar_chain", encoder=second, **given) == [0, 3, 2, 1]
    result = clp.run(
        stream,
        "finetune",
        curriculum={"name": "similar_chain", "encoder": second, **given},
        out=None,
    )
    assert result.order == [0, 3, 2, 1]
    assert result.config["curriculum"]["encoder"] == second


@pytest.mark.parametrize(
    "encoder",
    [
        "not_a_number",
        "infinite",
        "one_number_each",
        "too_few",
        "numpy_array",
        "nothing",
        "no_function",
        "fails",
        "widths_that_vary",
        "asks",
        "absent",
    ],
)
def test_what_an_encoder_does_wrong_is_one_line_about_the_encoder(
    my_encoders: str, encoder: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, which users do not turn into errors
        for name in ("designer", "easy_first", "similar_chain"):
            with pytest.raises(ClpError, match="encoder") as caught:
                order_of(BLOBS, name, encoder=f"{my_encoders}:{encoder}")
            assert_one_line(caught.value)


def test_an_encoder_that_was_written_anew_is_asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a notebook the same name stands for another function a minute later."""
    means = [[0.0, 9.0], [9.0, 8.0], [3.0, 0.0]]  # 0 2 1 along the first axis, 0 1 2 the second
    stream = stream_of(means, [[0], [1], [2]], spread=0.1)
    given = {"distance": "euclidean", "start": 0, "encoder": f"{__name__}:of_the_notebook"}
    orders = []
    for encode in (lambda raw: raw[:, :1], lambda raw: raw[:, 1:]):
        monkeypatch.setitem(globals(), "of_the_notebook", lambda encode=encode: encode)
        orders.append(order_of(stream, "similar_chain", **given))
    assert orders == [[0, 2, 1], [0, 1, 2]]


def test_pixels_lie_between_zero_and_one() -> None:
    encode = build("encoder", {"name": "pixels"})
    images = torch.tensor([[[[0, 255], [51, 102]]]], dtype=torch.uint8)
    assert encode(images).tolist() == [pytest.approx([0, 1, 0.2, 0.4])]
    assert encode(torch.tensor([[-3.0, 300.0]])).tolist() == [[-3.0, 300.0]]


TEXTS = ["hello", "how far is it from denver to aspen ?"]


@torch.inference_mode()
def test_a_text_is_the_mean_of_its_tokens() -> None:
    """Each text by itself, without padding, gives the same."""
    encode = build("encoder", {"name": "text"})
    found = encode(torch.from_numpy(token_ids(TEXTS, "minilm", 64)))
    assert found.shape == (2, 384)
    network = load_encoder("minilm")
    for text, features in zip(TEXTS, found, strict=True):
        alone = torch.from_numpy(token_ids([text], "minilm", 64))
        states = network(input_ids=alone.long()).last_hidden_state
        assert torch.allclose(features, states[0].mean(0), atol=1e-5)
        assert torch.allclose(features, encode(alone)[0], atol=1e-5)


def test_meanings_lie_closer_than_words() -> None:
    texts = ["the bank is closed today", "today the shop does not open", "the bank of a river"]
    encode = build("encoder", {"name": "text"})
    with torch.inference_mode():
        first, same, other = encode(torch.from_numpy(token_ids(texts, "minilm", 64)))
    assert torch.cosine_similarity(first, same, 0) > torch.cosine_similarity(first, other, 0)


@pytest.mark.parametrize(
    ("encoder", "raw", "message"),
    [
        (
            "text",
            torch.zeros(1, 4),
            r"torch\.float32: encoder text takes token ids; give encoder=p",
        ),
        (
            "text",
            torch.zeros(1, 4, dtype=torch.uint8),
            r"torch\.uint8: encoder text takes token ids",
        ),
        (
            "text",
            torch.tensor([[30522]]),
            "token 30522, but the text encoder has tokens 0 to 30521",
        ),
        ("pixels", torch.tensor([[1, 2]]), "inputs are token ids.* give encoder=text"),
    ],
)
def test_inputs_of_another_kind_are_refused(encoder: str, raw: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        build("encoder", {"name": encoder})(raw)
    assert_one_line(caught.value)


def test_an_encoder_of_images_refuses_what_is_none(real_data: Path) -> None:
    with pytest.raises(DataError, match=r"inputs of shape \(17,\).*encoder=pixels") as caught:
        order_of(BLOBS, "designer", encoder="cifar-resnet")
    assert_one_line(caught.value)


@torch.inference_mode()
def test_the_network_for_cifar_is_the_published_one(real_data: Path) -> None:
    """With its own last layer it is right on 929 of these 1000 images, as told where they lie."""
    test = load_dataset("cifar10").test
    encode = build("encoder", {"name": "cifar-resnet"})
    features = torch.cat([encode(test.x[i : i + 250]) for i in range(0, 1000, 250)])
    assert features.shape == (1000, 64)
    (path,) = (real_data / "pretrained").glob("resnet20-*.th")
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    logits = features @ state["module.linear.weight"].T + state["module.linear.bias"]
    assert int((logits.argmax(1) == test.y).sum()) == pytest.approx(929, abs=1)

    def nearest_mean_accuracy(x: torch.Tensor) -> float:
        y = test.y
        fit = torch.arange(len(y)) % 2 == 0
        means = torch.stack([x[fit & (y == c)].mean(0) for c in range(10)])
        return float((torch.cdist(x[~fit], means).argmin(1) == y[~fit]).float().mean())

    pixels = build("encoder", {"name": "pixels"})(test.x)
    assert nearest_mean_accuracy(pixels) < 0.4
    assert nearest_mean_accuracy(features) > 0.85


@pytest.mark.parametrize("depth", [20, 32])
def test_the_network_for_cifar_takes_grey_and_other_images(real_data: Path, depth: int) -> None:
    encode = build("encoder", {"name": "cifar-resnet", "depth": depth})
    for shape in ((1, 28, 28), (3, 32, 32), (3, 64, 64)):
        raw = torch.randint(256, (2, *shape), dtype=torch.uint8)
        assert encode(raw).shape == (2, 64)
    assert torch.equal(encode(raw), encode(raw))  # no dropout, no running statistics


def test_easier_features_make_classes_easier(real_data: Path) -> None:
    stream = build("stream", {"name": "split-cifar10"})
    pixels = difficulties(items_of(stream, "experiences", "pixels", 40), "nearest_mean")
    features = difficulties(items_of(stream, "experiences", "cifar-resnet", 40), "nearest_mean")
    assert features.mean() < pixels.mean() - 0.2


def test_weights_that_are_not_there_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLP_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"no file resnet20-\*\.th in .*/pretrained") as caught:
        build("encoder", {"name": "cifar-resnet"})
    assert_one_line(caught.value)
    with pytest.raises(DataError, match=r"no file resnet32-\*\.th") as caught:
        order_of(
            build("stream", {"name": "split-digits", "samples": 7}),
            "designer",
            encoder={"name": "cifar-resnet", "depth": 32},
        )
    assert_one_line(caught.value)


def test_damaged_weights_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLP_DATA", str(tmp_path))
    (tmp_path / "pretrained").mkdir()
    (tmp_path / "pretrained" / "resnet20-0.th").write_bytes(b"no weights")
    with pytest.raises(DataError, match=r"resnet20-0\.th cannot be read") as caught:
        build("encoder", {"name": "cifar-resnet"})
    assert_one_line(caught.value)


def test_a_network_of_torchvision_with_weights_of_a_file(tmp_path: Path) -> None:
    from torchvision import models

    torch.manual_seed(0)
    network = models.resnet18(weights=None)
    file = tmp_path / "mine.pt"
    torch.save(network.state_dict(), file)
    encode = build("encoder", {"name": "torchvision", "weights": str(file)})
    raw = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    found = encode(raw)
    assert found.shape == (2, 512)
    network.fc = torch.nn.Identity()
    transform = models.ResNet18_Weights.DEFAULT.transforms(antialias=True)
    with torch.inference_mode():
        assert torch.allclose(found, network.eval()(transform(raw)), atol=1e-5)
    assert encode(torch.randint(256, (2, 1, 28, 28), dtype=torch.uint8)).shape == (2, 512)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"model": "resnet999"}, "model=resnet999, weights=DEFAULT is not available"),
        ({"weights": "NO_SUCH_WEIGHTS"}, "weights=NO_SUCH_WEIGHTS is not available"),
        ({"weights": "absent.pt"}, r"weights=absent\.pt is not available"),
    ],
)
def test_networks_that_torchvision_does_not_have_are_told(parameters: dict, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        build("encoder", {"name": "torchvision", **parameters})
    assert_one_line(caught.value)


def test_weights_of_another_network_are_told(tmp_path: Path) -> None:
    from torchvision import models

    torch.save(models.mobilenet_v3_small(weights=None).state_dict(), tmp_path / "other.pt")
    (tmp_path / "damaged.pt").write_bytes(b"no weights")
    for name in ("other.pt", "damaged.pt"):
        with pytest.raises(DataError, match=f"{name} is not available") as caught:
            build("encoder", {"name": "torchvision", "weights": str(tmp_path / name)})
        assert_one_line(caught.value)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("pixel", "unknown encoder 'pixel'. Did you mean 'pixels'"),
        ({"name": "cifar-resnet", "depth": 44}, r"encoder\.depth=44"),
        ({"depth": 20}, "names nothing"),
    ],
)
def test_encoders_that_do_not_exist_are_told(encoder: object, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        clp.run("blobs", "finetune", curriculum={"name": "designer", "encoder": encoder}, out=None)
    assert_one_line(caught.value)
