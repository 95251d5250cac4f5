"""Data sets: real files read, kept as arrays, and every kind of damage told in one line."""

from __future__ import annotations

import gzip
import hashlib
import json
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import cl_platform as clp
from cl_platform.config.signatures import build
from cl_platform.errors import DataError, StorageError
from streams.data import datasets
from streams.data.datasets import DATASETS, arrays_home, load_dataset


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty, writable data folder."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("CLP_DATA", str(folder))
    return folder


def md5(array: np.ndarray) -> str:
    return hashlib.md5(np.ascontiguousarray(array).tobytes()).hexdigest()


def test_mnist_is_the_original(real_data: Path) -> None:
    mnist = load_dataset("mnist")
    assert mnist.train.source.shape == (60000, 1, 28, 28)
    # The canonical idx files behind their 16 bytes of header, hashed as pixels.
    content = gzip.decompress((real_data / "mnist" / "train-images-idx3-ubyte.gz").read_bytes())
    assert hashlib.md5(content).hexdigest() == "6bbc9ace898e44ae57da46a324031adb"
    assert md5(mnist.train.source.numpy()) == hashlib.md5(content[16:]).hexdigest()
    assert torch.bincount(mnist.train.y).tolist()[:3] == [5923, 6742, 5958]
    assert len(mnist.test) == 10000
    # Widely quoted: mean 0.1307, standard deviation 0.3081 of pixels in [0, 1].
    assert mnist.mean[0] / 255 == pytest.approx(0.1307, abs=1e-4)
    assert mnist.std[0] / 255 == pytest.approx(0.3081, abs=1e-4)
    assert mnist.note == ""


def test_fashion_mnist(real_data: Path) -> None:
    fashion = load_dataset("fashion-mnist")
    assert torch.bincount(fashion.train.y).tolist() == [6000] * 10
    assert fashion.class_names[9] == "Ankle boot"
    stream = build("stream", {"name": "split-fashion-mnist"})
    assert stream[0].name == "T-shirt/top Trouser"


def test_cifar100_is_complete(real_data: Path) -> None:
    cifar = load_dataset("cifar100")
    assert cifar.train.source.shape == (50000, 3, 32, 32)
    assert torch.bincount(cifar.train.y).tolist() == [500] * 100
    assert torch.bincount(cifar.test.y).tolist() == [100] * 100
    assert [m / 255 for m in cifar.mean] == pytest.approx([0.5071, 0.4865, 0.4409], abs=1e-3)
    assert [s / 255 for s in cifar.std] == pytest.approx([0.2673, 0.2564, 0.2762], abs=1e-3)
    assert len(cifar.groups) == 20
    assert sorted(c for group in cifar.groups.values() for c in group) == list(range(100))
    superclasses = build("stream", {"name": "split-cifar100", "experiences": "groups"})
    assert [len(e.classes) for e in superclasses.experiences] == [5] * 20
    (flowers,) = (e for e in superclasses.experiences if e.name == "flowers")
    names = {superclasses.class_names[c] for c in flowers.classes}
    assert names == {"orchid", "poppy", "rose", "sunflower", "tulip"}


def test_a_subset_is_named_so(real_data: Path) -> None:
    assert load_dataset("cifar10").note == "2500 of 50000 training samples"
    stream = build("stream", {"name": "split-cifar10"})
    assert stream.name == "split-cifar10 (2500 of 50000 training samples)"
    assert stream.preprocess.augmentation == "crop-flip"
    tiny = load_dataset("tiny-imagenet")
    assert tiny.train.source.shape == (2000, 3, 64, 64)
    assert tiny.class_names[0] == "goldfish, Carassius auratus"


def test_omniglot_by_alphabets(real_data: Path) -> None:
    omniglot = load_dataset("omniglot")
    assert omniglot.train.source.shape == (1623 * 15, 1, 28, 28)
    assert len(omniglot.test) == 1623 * 5
    stream = build("stream", {"name": "split-omniglot"})
    sizes = [len(e.classes) for e in stream.experiences]
    assert len(sizes) == 50
    assert sum(sizes) == 1623
    assert len(set(sizes)) > 10
    raw = omniglot.train.source.float().mean() / 255
    assert 0.02 < float(raw) < 0.2


def test_clinc150_is_complete(real_data: Path) -> None:
    clinc = load_dataset("clinc150")
    assert clinc.train.source.shape == (15000, 1, 1, 2048)
    assert clinc.train.source.dtype == torch.uint8
    assert torch.bincount(clinc.train.y).tolist() == [100] * 150
    assert torch.bincount(clinc.test.y).tolist() == [30] * 150
    assert len(clinc.test) == 4500
    assert clinc.note == ""
    domains = json.loads((real_data / "clinc150" / "domains.json").read_text())
    assert [len(intents) for intents in domains.values()] == [15] * 10
    assert list(clinc.groups) == list(domains)
    for i, (domain, classes) in enumerate(clinc.groups.items()):  # numbered domain by domain
        assert classes == list(range(15 * i, 15 * i + 15))
        assert [clinc.class_names[c] for c in classes] == domains[domain]
    stream = build("stream", {"name": "split-clinc150"})
    assert [e.name for e in stream.experiences] == list(domains)
    assert [len(e.train) for e in stream.experiences] == [1500] * 10
    assert stream.superclasses == tuple(name for name in domains for _ in range(15))


def test_clinc150_counts_the_words_of_its_texts(real_data: Path) -> None:
    clinc = load_dataset("clinc150")
    texts = json.loads((real_data / "clinc150" / "data_full.json").read_text())
    for split, part in (("train", clinc.train), ("test", clinc.test)):
        intents = [intent for _, intent in texts[split]]
        assert [clinc.class_names[c] for c in part.y.tolist()] == intents
        # n words of two letters or more, and n - 1 pairs of them.
        words = [len(re.findall(r"\b\w\w+\b", text)) for text, _ in texts[split]]
        found = part.x.flatten(1).long().sum(1).tolist()
        assert found == [max(0, 2 * n - 1) for n in words]


def test_intents_can_be_told_apart_by_their_words(real_data: Path) -> None:
    clinc = load_dataset("clinc150")

    def unit(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(x.flatten(1).float())

    means = torch.zeros(150, 2048).index_add_(0, clinc.train.y, unit(clinc.train.x))
    found = (unit(clinc.test.x) @ unit(means).T).argmax(1)
    assert float((found == clinc.test.y).float().mean()) > 0.7


@pytest.mark.parametrize("name", ["split-clinc150", "split-cifar100"])
def test_groups_whose_classes_are_dealt_out_anew_do_not_keep_their_names(
    real_data: Path, name: str
) -> None:
    stream = build("stream", {"name": name, "experiences": "groups", "class_seed": 1})
    for e in stream.experiences:
        if e.name in stream.superclasses:
            assert {stream.superclasses[c] for c in e.classes} == {e.name}


@pytest.mark.system
def test_images_can_be_learned(real_data: Path) -> None:
    stream = {"name": "split-cifar10", "experiences": [5, 5]}
    model = {"name": "slim-resnet18", "width": 4}
    result = clp.run(stream, "er", model=model, out=None, batch_size=50)
    assert result.matrices["task"][2, 1] > 0.22


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + array.tobytes())


def small_mnist(real_data: Path) -> tuple[np.ndarray, np.ndarray]:
    full = load_dataset("mnist")
    return full.train.source[:200, 0].numpy(), full.train.y[:200].numpy().astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "torchvision_class"),
    [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST"), ("kmnist", "KMNIST")],
)
def test_what_torchvision_has_fetched_is_read(
    real_data: Path, home: Path, monkeypatch: pytest.MonkeyPatch, name: str, torchvision_class: str
) -> None:
    """The real downloader runs; it finds the files it would have fetched."""
    monkeypatch.setenv("CLP_DATA", str(real_data))
    x, y = small_mnist(real_data)
    monkeypatch.setenv("CLP_DATA", str(home))
    folder = home / "raw" / torchvision_class / "raw"
    for part in ("train", "t10k"):
        write_idx(folder / f"{part}-images-idx3-ubyte", x)
        write_idx(folder / f"{part}-labels-idx1-ubyte", y)
    data = load_dataset(name)
    assert torch.equal(data.train.x[:, 0], torch.from_numpy(x))
    assert data.test.y.tolist() == y.tolist()
    assert data.note == "200 of 60000 training samples"


@pytest.mark.parametrize("n_classes", [10, 100])
def test_the_official_cifar_files_are_read(
    real_data: Path, home: Path, monkeypatch: pytest.MonkeyPatch, n_classes: int
) -> None:
    monkeypatch.setenv("CLP_DATA", str(real_data))
    real = load_dataset("cifar100")
    rows = torch.arange(0, 50000, 500)
    x, y = real.train.source[rows].numpy(), real.train.y[rows].numpy()
    monkeypatch.setenv("CLP_DATA", str(home))
    name = "cifar-10-batches-py" if n_classes == 10 else "cifar-100-python"
    folder = home / f"cifar{n_classes}" / name
    folder.mkdir(parents=True)
    flat = x.reshape(len(x), -1)
    if n_classes == 10:
        labels = y % 10
        batch = {"data": flat, "labels": labels.tolist()}
        for file in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
            (folder / file).write_bytes(pickle.dumps(batch))
        (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    else:
        labels = y
        batch = {"data": flat, "fine_labels": y.tolist(), "coarse_labels": (y % 20).tolist()}
        meta = {
            "fine_label_names": list(real.class_names),
            "coarse_label_names": [f"group {i}" for i in range(20)],
        }
        for file, content in {"train": batch, "test": batch, "meta": meta}.items():
            (folder / file).write_bytes(pickle.dumps(content))
    data = load_dataset(f"cifar{n_classes}")
    assert np.array_equal(data.test.x.numpy(), x)
    assert data.test.y.tolist() == labels.tolist()
    assert len(data.groups) == (0 if n_classes == 10 else 20)


class Evil:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("called"),)


@pytest.mark.parametrize("file", ["batches.meta", "data_batch_3", "test_batch"])
def test_a_pickle_among_the_data_is_not_run(
    home: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    monkeypatch.chdir(home)
    folder = home / "cifar10" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    batch: dict[str, Any] = {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1]}
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("ab")}))
    (folder / file).write_bytes(pickle.dumps({**batch, "label_names": [Evil()]}))
    with pytest.raises(DataError, match=r"it would call pathlib.*which no data need"):
        load_dataset("cifar10")
    assert not Path("called").exists()


@pytest.mark.system
def test_the_official_omniglot_folders_are_read(real_data: Path, home: Path) -> None:
    from streams.data.formats import read_omniglot_bits, read_omniglot_folders

    bits, classes = read_omniglot_bits(real_data / "omniglot")
    folder = home / "images_background"
    for i in (0, 1, 20):
        c = classes[i]
        place = folder / c["alphabet"] / c["character"]
        place.mkdir(parents=True)
        for drawer in range(20):
            image = Image.fromarray((1 - bits[i, drawer]) * np.uint8(255))
            image.convert("1").save(place / f"0001_{drawer + 1:02d}.png")
    images, found = read_omniglot_folders([folder])
    assert np.array_equal(images, bits[[0, 1, 20]])
    assert [c["alphabet"] for c in found] == [classes[i]["alphabet"] for i in (0, 1, 20)]


def test_the_official_tiny_imagenet_archive_is_read(real_data: Path, home: Path) -> None:
    """The published layout: training images by class, validation images with a list."""
    folder = home / "tiny-imagenet"
    folder.mkdir()
    with zipfile.ZipFile(real_data / "tiny_imagenet" / "tiny_a.zip") as given:
        names = [n for n in given.namelist() if n.endswith(".JPEG")]
        wnids = sorted({n.split("/")[1] for n in names})[:3]
        with zipfile.ZipFile(folder / "tiny-imagenet-200.zip", "w") as official:
            listing = []
            for name in names:
                split, wnid, file = name.split("/")
                if wnid not in wnids:
                    continue
                place = f"train/{wnid}/images" if split == "train" else "val/images"
                official.writestr(f"tiny-imagenet-200/{place}/{file}", given.read(name))
                if split == "val":
                    listing.append(f"{file}\t{wnid}\t0\t0\t63\t63")
            official.writestr("tiny-imagenet-200/val/val_annotations.txt", "\n".join(listing))
            official.writestr("tiny-imagenet-200/words.txt", f"{wnids[0]}\tfirst of them")
    data = load_dataset("tiny-imagenet")
    assert torch.bincount(data.train.y).tolist() == [10] * 3
    assert torch.bincount(data.test.y).tolist() == [5] * 3
    assert data.class_names == ("first of them", *wnids[1:])


def small_clinc(folder: Path, **texts: list[list[str]]) -> None:
    """Three intents of two domains, in the published layout."""
    folder.mkdir()
    domains = {"food": ["order", "cook"], "travel": ["fly"]}
    (folder / "domains.json").write_text(json.dumps(domains))
    content = {
        "oos_train": [["what is this", "oos"]],
        "val": [["left out", "fly"]],
        "train": [["fly me there", "fly"], ["cook it", "cook"], ["order it", "order"]],
        "test": [["a cook", "cook"]],
        **texts,
    }
    (folder / "data_full.json").write_text(json.dumps(content, ensure_ascii=False), "utf-8")


def test_the_official_clinc_files_are_read(home: Path) -> None:
    many = " ".join(["cook"] * 300)
    train = [["fly me there", "fly"], [many, "cook"], ["caf\u00e9 Fly FLY", "order"], ["", "fly"]]
    small_clinc(home / "clinc150", train=train)
    data = load_dataset("clinc150")
    assert data.class_names == ("order", "cook", "fly")
    assert data.groups == {"food": [0, 1], "travel": [2]}
    assert data.train.y.tolist() == [2, 1, 0, 2]
    assert data.test.y.tolist() == [1]
    counts = data.train.x.flatten(1).long()
    assert counts.sum(1).tolist() == [5, 2 * 255, 5, 0]  # 300 words do not fit, and do not wrap
    assert data.note == "4 of 15000 training samples"
    fly, mixed = counts[0], counts[2]
    assert int((fly * mixed).sum()) == 2  # "fly" once and twice, whatever its case
    stream = build("stream", {"name": "split-clinc150"})
    assert [e.name for e in stream.experiences] == ["food", "travel"]


@pytest.mark.parametrize("damage", ["no domains", "unknown intent", "no test", "no json"])
def test_damaged_clinc_files_are_told(home: Path, damage: str) -> None:
    folder = home / "clinc150"
    small_clinc(folder)
    if damage == "no domains":
        (folder / "domains.json").unlink()
    elif damage == "unknown intent":
        text = (folder / "data_full.json").read_text()
        (folder / "data_full.json").write_text(text.replace('"cook"', '"bake"'))
    elif damage == "no test":
        text = (folder / "data_full.json").read_text()
        (folder / "data_full.json").write_text(text.replace('"test"', '"rest"'))
    else:
        (folder / "data_full.json").write_text("[")
    with pytest.raises(DataError, match="data set 'clinc150' cannot be read") as caught:
        load_dataset("clinc150")
    assert len(str(caught.value).splitlines()) == 1
    assert not arrays_home().exists()


def test_every_data_set_has_a_stream_or_more() -> None:
    from cl_platform.config.registry import plugins

    named = {name.partition("-")[2] for name in plugins("stream")}
    assert set(DATASETS) <= named | set(plugins("stream"))


def test_without_network_or_files_the_folder_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"put its official files into .*data/kmnist") as caught:
        load_dataset("kmnist")
    assert len(str(caught.value).splitlines()) == 1
    assert not arrays_home().exists()


def test_an_unknown_data_set() -> None:
    with pytest.raises(DataError, match=r"unknown data set 'mnst'. Known: digits, mnist"):
        load_dataset("mnst")


def test_truncated_official_files(home: Path, real_data: Path) -> None:
    folder = home / "mnist"
    folder.mkdir()
    for file in (real_data / "mnist").glob("*.gz"):
        content = file.read_bytes()
        (folder / file.name).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="data set 'mnist' cannot be read") as caught:
        load_dataset("mnist")
    assert len(str(caught.value).splitlines()) == 1
    assert not arrays_home().exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda p: p.write_bytes(p.read_bytes()[:1000]),
        lambda p: p.write_bytes(b""),
        lambda p: p.unlink(),
        lambda p: p.write_bytes(b"x" * p.stat().st_size),
    ],
    ids=["truncated", "empty", "missing", "overwritten"],
)
def test_damaged_arrays_are_told_and_can_be_made_again(home: Path, damage: object) -> None:
    load_dataset("digits")
    file = arrays_home() / "digits" / "train_x.npy"
    damage(file)  # type: ignore[operator]
    with pytest.raises(DataError, match=r"delete the folder .*digits and run again") as caught:
        load_dataset("digits")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"bytes": {}}'])
def test_damaged_descriptions_are_told(home: Path, content: str) -> None:
    load_dataset("digits")
    (arrays_home() / "digits" / "meta.json").write_text(content)
    with pytest.raises(DataError, match="delete the folder"):
        load_dataset("digits")


def test_a_data_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CLP_DATA", str(tmp_path / "file" / "data"))
    with pytest.raises(StorageError, match="cannot write"):
        load_dataset("digits")


def test_a_read_only_data_folder_is_left_alone(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    home.chmod(0o555)
    assert len(load_dataset("digits").train) == 1201
    assert not list(home.iterdir())
    assert list((tmp_path / "cache").rglob("train_x.npy"))


def test_sets_above_the_budget_are_memory_mapped(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resident = load_dataset("digits")
    first = clp.run("split-digits", "er", out=None)
    monkeypatch.setenv("CLP_RESIDENT_BYTES", "1000")
    mapped = load_dataset("digits")
    assert mapped.train.mapped
    assert not resident.train.mapped
    assert torch.equal(mapped.train.x, resident.train.x)
    second = clp.run("split-digits", "er", out=None)
    assert second.matrix == first.matrix
    assert second.run_id == first.run_id


def test_arrays_describe_themselves(home: Path) -> None:
    load_dataset("digits")
    meta = json.loads((arrays_home() / "digits" / "meta.json").read_text())
    assert meta["class_names"] == [str(c) for c in range(10)]
    assert len(meta["fingerprint"]) == 64
    assert datasets.VERSION in str(arrays_home())
    assert not [p for p in arrays_home().iterdir() if p.name.startswith(".")]


@pytest.mark.system
@pytest.mark.parametrize(
    "name", ["mnist", "fashion-mnist", "cifar10", "tiny-imagenet", "omniglot", "clinc150"]
)
def test_decoding_again_gives_the_arrays_that_are_kept(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    kept = load_dataset(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    again = load_dataset(name)
    assert list(tmp_path.rglob("meta.json"))
    assert again.train.fingerprint == kept.train.fingerprint
    assert again.class_names == kept.class_names
    assert again.groups == kept.groups


@pytest.mark.parametrize("given", ["4G", "-1", "many"])
def test_a_budget_that_is_no_number(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("CLP_RESIDENT_BYTES", given)
    with pytest.raises(DataError, match="give a whole number of bytes"):
        load_dataset("digits")
