"""What a person has in Python: arrays, tensors, data sets of torch and torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset
from torchvision.datasets import FakeData, ImageFolder
from torchvision.transforms import v2

import cl_platform as clp
from cl_platform.config.run_config import parse_config
from cl_platform.config.signatures import build
from cl_platform.engine.planner import make_plan
from cl_platform.errors import BadInput, ClpError, ConfigError

X = np.random.default_rng(0).integers(0, 256, (60, 3, 8, 8), dtype=np.uint8)
Y = np.arange(60) % 6
NAMES = [f"class{i}" for i in (9, 10, 2, 1, 3, 4)]  # in no order


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLP_DATA", str(tmp_path / "home"))
    return tmp_path / "home"


def written(root: Path) -> Path:
    """The images as files, in the folders of their classes."""
    for i, (x, y) in enumerate(zip(X, Y, strict=True)):
        (root / NAMES[y]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(x.transpose(1, 2, 0)).save(root / NAMES[y] / f"{i:03d}.png")
    return root


def by_folder() -> tuple[np.ndarray, np.ndarray]:
    """Images and labels in the order of their folders, as every door gives them."""
    order = sorted(range(60), key=lambda i: (NAMES[Y[i]], i))
    return X[order], Y[order]


def test_the_same_pixels_through_any_door_are_the_same_run(tmp_path: Path) -> None:
    root = written(tmp_path / "folder")
    x, y = by_folder()
    np.savez(tmp_path / "file.npz", x=x.transpose(0, 2, 3, 1), y=y, class_names=NAMES)
    named = [
        {"name": "folder", "path": str(root)},
        {"name": "arrays", "path": str(tmp_path / "file.npz")},
    ]
    streams = [
        *(build("stream", section) for section in named),
        clp.Stream.from_arrays(torch.from_numpy(x), torch.from_numpy(y), class_names=NAMES),
        clp.Stream.from_dataset(ImageFolder(root)),
        clp.Stream.from_dataset(ImageFolder(root, v2.PILToTensor())),
        clp.Stream.from_dataset(
            TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), class_names=NAMES
        ),
    ]
    first = streams[0]
    assert first.class_names == ("class1", "class2", "class3", "class4", "class9", "class10")
    plans = [make_plan(parse_config({"stream": s, "strategy": "er"})) for s in named]
    plans += [
        make_plan(
            parse_config({"stream": {"name": s.name}, "strategy": "er"}, ["stream"]), {"stream": s}
        )
        for s in streams[2:]
    ]
    for stream, plan in zip(streams, plans, strict=True):
        for one, other in zip(stream.experiences, first.experiences, strict=True):
            assert one.train.identity == other.train.identity
            assert one.identity == other.identity
        assert plan.keys == plans[0].keys
    matrices = [clp.run(s, "er", out=None).matrix for s in (named[0], streams[2], streams[3])]
    assert matrices[0] == matrices[1] == matrices[2]


def test_fake_data_of_torchvision() -> None:
    def fake(size: int, offset: int, **transforms: Any) -> FakeData:
        return FakeData(size, (3, 9, 7), 5, random_offset=offset, **transforms)

    stream = clp.Stream.from_dataset(fake(50, 0), fake(20, 50), experiences=5)
    assert stream.name == "split-FakeData"
    assert stream.input_shape == (3, 9, 7)
    assert stream[0].train.source.dtype == torch.uint8
    assert sum(len(e.train) for e in stream.experiences) == 50
    assert sum(len(e.test) for e in stream.experiences) == 20
    row = int(stream[2].train.index[1])
    assert np.array_equal(stream[2].train.x[1], np.array(fake(50, 0)[row][0]).transpose(2, 0, 1))
    floats = clp.Stream.from_dataset(
        fake(
            50,
            0,
            transform=v2.Compose(
                [
                    v2.ToImage(),
                    v2.ToDtype(torch.float32, scale=True),
                    v2.Normalize([0.5] * 3, [0.5] * 3),
                ]
            ),
        )
    )
    assert floats[0].train.source.dtype == torch.float32
    assert floats[0].train.source.min() >= -1
    assert clp.run(floats, "finetune", out=None).matrix.values.shape == (6, 5)


def test_subsets_and_unions_know_the_class_names(tmp_path: Path) -> None:
    images = ImageFolder(written(tmp_path / "d"))
    halves = [Subset(images, range(0, 60, 2)), Subset(images, range(1, 60, 2))]
    stream = clp.Stream.from_dataset(
        ConcatDataset(halves), experiences=[["class10", "class2"], ["class9"]]
    )
    assert [e.name for e in stream.experiences] == ["class10 class2", "class9"]
    assert (
        stream.name == "split-ConcatDataset (12 of 60 rows split off for testing, 3 of 6 classes)"
    )


def test_several_data_sets_are_experiences_or_domains() -> None:
    parts = [TensorDataset(torch.randn(30, 4) + shift, torch.arange(30) % 3) for shift in (0, 9)]
    stream = clp.Stream.from_datasets(parts, scenario="domain", names=["near", "far"])
    assert [e.name for e in stream.experiences] == ["near", "far"]
    assert [e.classes for e in stream.experiences] == [(0, 1, 2)] * 2
    assert stream[1].train.x.mean() > 8
    tests = [TensorDataset(torch.randn(6, 4), torch.arange(6) % 3)] * 2
    own = clp.Stream.from_datasets(parts, tests)
    assert [e.name for e in own.experiences] == ["TensorDataset 0", "TensorDataset 1"]
    assert [len(e.test) for e in own.experiences] == [6, 6]
    with pytest.raises(BadInput, match="give as many of each part"):
        clp.Stream.from_datasets(parts, tests[:1])


class Noisy(Dataset):
    """Draws by its own code."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return torch.rand(3) + i, i % 2


@pytest.mark.parametrize(
    ("dataset", "transforms"),
    [
        (
            FakeData(
                20, (3, 8, 8), transform=v2.Compose([v2.PILToTensor(), v2.RandomHorizontalFlip()])
            ),
            "RandomHorizontalFlip",
        ),
        (Subset(FakeData(20, (3, 8, 8), transform=v2.ColorJitter(0.5)), range(9)), "ColorJitter"),
        (Noisy(), "its own code"),
    ],
    ids=["flip", "inside", "own"],
)
def test_random_transforms_are_told(dataset: Any, transforms: str) -> None:
    before = torch.get_rng_state()
    with pytest.raises(
        BadInput, match=rf"each time it is read \({transforms}\).*freeze_random=True"
    ):
        clp.Stream.from_dataset(dataset)
    kept = [clp.Stream.from_dataset(dataset, freeze_random=True, experiences=1) for _ in range(2)]
    assert f"one draw of {transforms} kept" in kept[0].name
    assert kept[0][0].identity == kept[1][0].identity
    assert torch.equal(torch.get_rng_state(), before)


class Endless(IterableDataset):
    def __iter__(self) -> Any:
        yield torch.zeros(3), 0


class Faulty(Noisy):
    def __init__(self, sample: Any) -> None:
        self.sample = sample

    def __getitem__(self, i: int) -> Any:
        return self.sample if not isinstance(self.sample, type) else self.sample("on purpose")


class Raising(Noisy):
    def __getitem__(self, i: int) -> Any:
        raise RuntimeError("on purpose")


class Growing(Noisy):
    def __getitem__(self, i: int) -> Any:
        return torch.zeros(3, i + 1), 0


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Endless(), "Endless is no map-style data set"),
        ([1, 2], r"list\[0\] is a int: expected an input and a label"),
        (Raising(), r"Raising\[0\] cannot be read \(RuntimeError: on purpose\)"),
        (Faulty(torch.zeros(3)), "expected an input and a label"),
        (Faulty((torch.zeros(3), [0, 1])), r"labels of shape \(12, 2\)"),
        (Faulty(("a text", 0)), "holds texts, which this door cannot encode"),
        (Faulty((object(), 0)), "no numbers or texts"),
        (Growing(), r"samples 0 and 1 have shapes \(3, 1\) and \(3, 2\).*size=64"),
        (TensorDataset(torch.zeros(0, 3), torch.zeros(0)), "has no training rows"),
        (TensorDataset(torch.full((20, 3), torch.nan), torch.arange(20) % 2), "nan or infinity"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value[:20],
)
def test_what_is_no_data_set_is_told_in_one_line(dataset: Any, message: str) -> None:
    with pytest.raises(ClpError, match=message) as caught:
        clp.Stream.from_dataset(dataset, experiences=1)
    assert len(str(caught.value)) < 500


def test_parameters_are_checked_as_on_the_command_line() -> None:
    with pytest.raises(
        ConfigError, match=r"stream\.experience is unknown\. Did you mean 'experiences'\?"
    ):
        clp.Stream.from_arrays(X, Y, experience=3)
    with pytest.raises(ConfigError, match=r"stream\.test_share=2: input should be less than 1"):
        clp.Stream.from_arrays(X, Y, test_share=2)
    with pytest.raises(BadInput, match="the test part needs inputs and labels"):
        clp.Stream.from_arrays(X, Y, X)


def test_validation_data_of_its_own_are_held_out() -> None:
    stream = clp.Stream.from_arrays(
        X, Y, X[:6], Y[:6], x_validation=X[:12], y_validation=Y[:12], experiences=3
    )
    assert [len(e.validation) for e in stream.experiences] == [4] * 3
    parts = [TensorDataset(torch.from_numpy(X[:n]), torch.from_numpy(Y[:n])) for n in (60, 6, 12)]
    same = clp.Stream.from_dataset(parts[0], parts[1], validation=parts[2], experiences=3)
    assert [e.identity for e in same.experiences] == [e.identity for e in stream.experiences]


def test_arrays_are_copied_and_may_be_anything_like_them() -> None:
    x = X.copy()
    stream = clp.Stream.from_arrays(x, Y, experiences=1, test_share=0)
    x[:] = 0
    assert stream[0].train.x.float().mean() > 100
    lists = clp.Stream.from_arrays([[0.0, 1.0], [2.0, 3.0]] * 4, ["no", "yes"] * 4, experiences=1)
    assert (lists.preprocess.mean, lists.preprocess.std) == ((1, 2), (1, 1))
    assert lists.class_names == ("no", "yes")
    assert lists[0].train.source.dtype == torch.float32
    swapped = clp.Stream.from_arrays(X.astype(">f8"), Y, experiences=1, test_share=0)
    assert torch.equal(swapped[0].train.x, torch.from_numpy(X).float())


def test_above_the_budget_arrays_lie_in_a_file_that_is_gone_with_the_process(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    resident = clp.Stream.from_arrays(X, Y)
    assert not home.exists()
    monkeypatch.setenv("CLP_RESIDENT_BYTES", "1000")
    mapped = clp.Stream.from_arrays(X, Y)
    assert (resident[0].train.mapped, mapped[0].train.mapped) == (False, True)
    assert mapped[0].identity == resident[0].identity
    assert not list((home / "arrays-v1").iterdir())
    assert clp.run(mapped, "er", out=None).matrix == clp.run(resident, "er", out=None).matrix
