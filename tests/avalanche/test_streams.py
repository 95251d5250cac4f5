"""Benchmarks of Avalanche as streams, and streams as benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms

from cl_platform import Samples, Stream
from cl_platform.config.signatures import instantiate
from cl_platform.core.preprocess import Preprocess
from cl_platform.core.stream import Experience
from cl_platform.errors import BadInput

pytestmark = pytest.mark.filterwarnings("ignore")  # there are many in Avalanche

to_tensor = transforms.ToTensor()


class Pictures(Dataset):
    """Grey images of six named classes, as torchvision's data sets are; counts its reads."""

    classes = tuple("abcdef")

    def __init__(self, n: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.data = torch.randint(256, (n, 8, 8), generator=generator).byte()
        self.targets = [i % 6 for i in range(n)]
        self.reads = 0

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        self.reads += 1
        return Image.fromarray(self.data[i].numpy()), self.targets[i]


class Permuted:
    """A transformation that is none at random."""

    def __init__(self, seed: int) -> None:
        self.order = torch.randperm(64, generator=torch.Generator().manual_seed(seed))

    def __call__(self, image: Image.Image) -> Tensor:
        return to_tensor(image).view(-1)[self.order].view(1, 8, 8)


@pytest.fixture
def pictures() -> tuple[Pictures, Pictures]:
    return Pictures(120, 0), Pictures(60, 1)


@pytest.fixture
def ab(avalanche: Any) -> Any:
    return avalanche.benchmarks


TRANSFORMS = {"train_transform": to_tensor, "eval_transform": to_tensor}
X, Y = torch.rand(60, 5, generator=torch.Generator().manual_seed(2)), torch.arange(60) % 4


def tensors(ab: Any, chosen: Tensor, task: int = 0) -> Any:
    make = ab.utils._make_taskaware_tensor_classification_dataset
    return make(X[chosen], Y[chosen], task_labels=torch.full((int(chosen.sum()),), task))


def halves(ab: Any, labelled: bool = False) -> list[Any]:
    return [tensors(ab, k == Y // 2, k if labelled else 0) for k in range(2)]


def rows_of(dataset: Any, group: str) -> tuple[Tensor, list[int]]:
    """What Avalanche's strategies get of a data set."""
    found = [dataset.with_transforms(group)[i] for i in range(len(dataset))]
    return torch.stack([f[0] for f in found]), [int(f[1]) for f in found]


def assert_holds(experience: Experience, train: Any, test: Any) -> None:
    """An experience has the samples of Avalanche's, in its order."""
    for samples, (x, y) in (
        (experience.train, rows_of(train.dataset, "train")),
        (experience.test, rows_of(test.dataset, "eval")),
    ):
        assert samples.y.tolist() == y
        assert torch.equal(samples.x, x)


@pytest.mark.parametrize("tasks", [False, True])
def test_classes_of_one_data_set_are_read_once_and_share_a_source(
    ab: Any, pictures: tuple[Pictures, Pictures], tasks: bool
) -> None:
    benchmark = ab.nc_benchmark(*pictures, 3, task_labels=tasks, seed=1, **TRANSFORMS)
    stream = Stream.from_avalanche(benchmark, name="pictures")
    assert stream.scenario == ("task" if tasks else "class")
    assert stream.name == "pictures"
    assert stream.class_names == tuple("abcdef")
    assert [set(e.classes) for e in stream.experiences] == [
        set(e.classes_in_this_experience) for e in benchmark.train_stream
    ]
    assert len({id(e.train.source) for e in stream.experiences}) == 1
    assert len(stream[0].train.source) == 120
    tried = 2 * 120  # 40 of each experience, twice
    assert (pictures[0].reads, pictures[1].reads) == (120 + tried, 60)
    for ours, train, test in zip(
        stream.experiences, benchmark.train_stream, benchmark.test_stream, strict=True
    ):
        assert_holds(ours, train, test)


def test_classes_that_a_benchmark_numbers_anew_keep_their_names(
    ab: Any, pictures: tuple[Pictures, Pictures]
) -> None:
    settings = {"task_labels": False, "seed": 1, **TRANSFORMS}
    benchmark = ab.nc_benchmark(*pictures, 3, class_ids_from_zero_from_first_exp=True, **settings)
    stream = Stream.from_avalanche(benchmark)
    assert [e.classes for e in stream.experiences] == [(0, 1), (2, 3), (4, 5)]
    assert sorted(stream.class_names) == list("abcdef")
    names = [stream.class_names[c] for c in stream[0].train.y.tolist()]
    shown = {
        x.numpy().tobytes(): "abcdef"[y]
        for x, y in zip(pictures[0].data, pictures[0].targets, strict=True)
    }
    stored = [shown[(x * 255).round().byte().numpy().tobytes()] for x in stream[0].train.x]
    assert names == stored


def test_the_same_classes_with_local_numbers_have_no_names(
    ab: Any, pictures: tuple[Pictures, Pictures]
) -> None:
    settings = {"task_labels": True, "seed": 1, **TRANSFORMS}
    benchmark = ab.nc_benchmark(*pictures, 3, class_ids_from_zero_in_each_exp=True, **settings)
    stream = Stream.from_avalanche(benchmark)
    assert stream.class_names == ("0", "1")
    assert stream.scenario == "task"
    assert [e.name for e in stream.experiences] == ["0 1 (1)", "0 1 (2)", "0 1 (3)"]


def test_images_without_a_transformation_are_bytes_with_a_unit(
    ab: Any, pictures: tuple[Pictures, Pictures]
) -> None:
    stream = Stream.from_avalanche(ab.nc_benchmark(*pictures, 3, task_labels=False, seed=1))
    assert stream[0].train.source.dtype == torch.uint8
    assert stream.input_shape == (1, 8, 8)
    assert stream.preprocess == Preprocess((0.0,), (255.0,))


def test_random_training_transformations_are_left_out_and_said(
    ab: Any, pictures: tuple[Pictures, Pictures], capsys: pytest.CaptureFixture[str]
) -> None:
    crop = transforms.Compose([transforms.RandomCrop(8, 2), to_tensor])
    given = {"train_transform": crop, "eval_transform": to_tensor}
    benchmark = ab.nc_benchmark(*pictures, 3, task_labels=False, seed=1, **given)
    stream = Stream.from_avalanche(benchmark, name="cropped")
    assert "its training transformations are random" in capsys.readouterr().err
    x, y = rows_of(benchmark.train_stream[0].dataset, "eval")
    assert torch.equal(stream[0].train.x, x)
    assert stream[0].train.y.tolist() == y


def test_transformations_that_are_not_random_are_applied(
    ab: Any, pictures: tuple[Pictures, Pictures]
) -> None:
    def data(which: int) -> list[Any]:
        make = ab.utils._make_taskaware_classification_dataset
        return [make(pictures[which], transform=Permuted(seed)) for seed in range(2)]

    benchmark = ab.dataset_benchmark(data(0), data(1))
    stream = Stream.from_avalanche(benchmark)
    assert stream.scenario == "domain"
    assert [e.name for e in stream.experiences] == ["a..f (1)", "a..f (2)"]
    for ours, train, test in zip(
        stream.experiences, benchmark.train_stream, benchmark.test_stream, strict=True
    ):
        assert_holds(ours, train, test)


def test_domains_with_one_test_set_get_all_of_it(
    ab: Any, pictures: tuple[Pictures, Pictures]
) -> None:
    settings = {"task_labels": False, "seed": 1, "balance_experiences": True, **TRANSFORMS}
    for benchmark in (
        ab.ni_benchmark(*pictures, 3, **settings),
        ab.new_instances_benchmark(tensors(ab, Y >= 0), tensors(ab, Y >= 0), 3, seed=0),
    ):
        stream = Stream.from_avalanche(benchmark)
        assert stream.scenario == "domain"
        assert [len(e.test) for e in stream.experiences] == [60] * 3
        assert sum(len(e.train) for e in stream.experiences) in (60, 120)


def test_a_single_test_set_is_split_by_the_classes(
    ab: Any, pictures: tuple[Pictures, Pictures]
) -> None:
    settings = {"task_labels": False, "seed": 1, "one_dataset_per_exp": False, **TRANSFORMS}
    benchmark = ab.benchmark_from_datasets(train=halves(ab), test=[tensors(ab, Y >= 0)])
    for given in (ab.nc_benchmark(*pictures, 3, **settings), benchmark):
        stream = Stream.from_avalanche(given)
        assert stream.scenario == "class"
        for e in stream.experiences:
            assert e.test.classes == e.train.classes == set(e.classes)


NEW: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "tensors_benchmark": ("class", lambda ab: ab.tensors_benchmark(train_tensors=pairs(), test_tensors=pairs(), task_labels=[0, 0])),
    "with tasks": ("task", lambda ab: ab.tensors_benchmark(train_tensors=pairs(), test_tensors=pairs(), task_labels=[0, 1])),
    "dataset_benchmark": ("class", lambda ab: ab.dataset_benchmark(halves(ab), halves(ab))),
    "benchmark_from_datasets": ("class", lambda ab: ab.benchmark_from_datasets(train=halves(ab), test=halves(ab))),
    "task labels": ("task", lambda ab: ab.benchmark_from_datasets(train=halves(ab, True), test=halves(ab, True))),
    "class_incremental": ("class", lambda ab: ab.class_incremental_benchmark({"train": tensors(ab, Y >= 0), "test": tensors(ab, Y >= 0)}, class_order=[0, 1, 2, 3], num_experiences=2)),
    "task_incremental": ("task", lambda ab: ab.task_incremental_benchmark(NEW["class_incremental"][1](ab), reset_task_labels=True)),
    "with_classes_timeline": ("class", lambda ab: ab.with_classes_timeline(NEW["dataset_benchmark"][1](ab))),
}  # fmt: skip


def pairs() -> list[tuple[Tensor, Tensor]]:
    return [(X[k == Y // 2], Y[k == Y // 2]) for k in range(2)]


@pytest.mark.parametrize("kind", NEW)
def test_every_generator_gives_the_same_stream(ab: Any, kind: str) -> None:
    scenario, make = NEW[kind]
    benchmark = make(ab)
    stream = Stream.from_avalanche(benchmark)
    assert stream.scenario == scenario
    assert [e.classes for e in stream.experiences] == [(0, 1), (2, 3)]
    for ours, train, test in zip(
        stream.experiences, benchmark.train_stream, benchmark.test_stream, strict=True
    ):
        assert_holds(ours, train, test)


def test_a_validation_stream_is_taken(ab: Any) -> None:
    benchmark = ab.benchmark_from_datasets(train=halves(ab), test=halves(ab))
    split = ab.benchmark_with_validation_stream(benchmark, 0.2, shuffle=True)
    stream = Stream.from_avalanche(split)
    assert [(len(e.train), len(e.validation), len(e.test)) for e in stream.experiences] == [
        (24, 6, 30)
    ] * 2


def unlabelled(ab: Any) -> Any:
    nothing = ab.utils.AvalancheDataset([torch.rand(4, 3)])
    return ab.benchmark_from_datasets(train=[nothing], test=[nothing])


def uneven(ab: Any) -> Any:
    return ab.benchmark_from_datasets(train=halves(ab), test=[*halves(ab), halves(ab)[0]])


def online(ab: Any) -> Any:
    benchmark = ab.benchmark_from_datasets(train=halves(ab), test=halves(ab))
    split = ab.split_online_stream(benchmark.train_stream, 10)
    split.name = "train"
    return ab.CLScenario([split, benchmark.test_stream])


def of_values(ab: Any) -> Any:
    values = [torch.rand(60, 2)]
    data = ab.utils.AvalancheDataset(
        [torch.utils.data.TensorDataset(X)],
        data_attributes=[ab.utils.DataAttribute(list(values[0]), "targets")],
    )
    return ab.benchmark_from_datasets(train=[data], test=[data])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda ab: 3, "builtins.int is no benchmark of Avalanche"),
        (
            lambda ab: ab.benchmark_from_datasets(train=halves(ab)),
            "has the streams train: a stream is",
        ),
        (uneven, "of the 3 experiences of stream 'test', 2 have the classes [0, 1] of training"),
        (online, "makes its experiences as they are asked for"),
        (unlabelled, "experience 0 has no class labels"),
        (of_values, "has one class index per sample"),
    ],
    ids=["no benchmark", "no test", "uneven", "online", "unlabelled", "values"],
)
def test_what_is_no_stream_says_why_in_one_line(ab: Any, make: Any, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        Stream.from_avalanche(make(ab))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("scenario", ["class", "task", "domain"])
def test_a_stream_becomes_a_benchmark_and_that_the_same_stream(ab: Any, scenario: str) -> None:
    section = {"name": "split-digits", "scenario": scenario}
    stream: Stream = instantiate(
        "stream", section if scenario != "domain" else {"name": "rotated-digits"}
    )
    benchmark = stream.to_avalanche()
    assert benchmark.n_classes == stream.n_classes
    for e, train in zip(stream.experiences, benchmark.train_stream, strict=True):
        assert set(e.classes) == set(train.classes_in_this_experience)
        assert getattr(train, "task_labels", None) == ([e.task] if scenario == "task" else None)
    again = Stream.from_avalanche(benchmark)
    assert again.scenario == stream.scenario
    for a, b in zip(stream.experiences, again.experiences, strict=True):
        for part in ("train", "validation", "test"):
            ours, theirs = getattr(a, part), getattr(b, part)
            assert torch.equal(ours.y, theirs.y)
            if len(ours):
                assert torch.equal(stream.preprocess(ours.x), theirs.x)


def test_augmentation_is_a_transformation_of_training_alone(ab: Any) -> None:
    stream: Stream = instantiate("stream", {"name": "split-digits"})
    stream = replace(stream, preprocess=replace(stream.preprocess, augmentation="crop", padding=2))
    data = stream.to_avalanche().train_stream[0].dataset
    plain, _ = rows_of(data, "eval")
    torch.manual_seed(0)
    cropped, _ = rows_of(data, "train")
    assert torch.equal(plain, stream.preprocess(stream[0].train.x))
    assert 0 < (cropped != plain).flatten(1).any(1).float().mean() < 1
    assert np.isfinite(cropped.numpy()).all()
    assert isinstance(stream[0].train, Samples)
