"""Streams of Hugging Face data sets: saved, from the hub and in memory, with the bits of the other
doors."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from PIL import Image as Pillow

import cl_platform as clp
from cl_platform import Stream
from cl_platform.config.signatures import build
from cl_platform.errors import ClpError, ConfigError, DataError
from streams import hub as door
from streams.data.text_formats import hashed_words, read_trec
from tests.helpers.hand_made import assert_one_line

EACH = {"train": 12, "test": 4}  # images of a class


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with an empty data folder inside."""
    monkeypatch.setenv("CLP_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def hub(path: Any, **parameters: Any) -> Stream:
    stream: Stream = build("stream", {"name": "hub", "path": str(path), **parameters})
    return stream


def identities(stream: Stream) -> list[str]:
    return [e.identity for e in stream.experiences]


def texts(labels: Any = "abab", **columns: Any) -> Dataset:
    return Dataset.from_dict(
        {"text": ["one", "two", "three", "four"], "label": list(labels), **columns}
    )


# --- images


@pytest.fixture(scope="module")
def flowers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PNG files of some of the 17 flowers, in train and test, in a folder for each class."""
    from tests.conftest import REAL_DATA

    if not REAL_DATA.is_dir():
        pytest.skip(f"no real data sets in {REAL_DATA}")
    folder = tmp_path_factory.mktemp("flowers")
    with zipfile.ZipFile(REAL_DATA / "flowers17" / "flowers17_64.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        for part, n in EACH.items():
            for label in sorted({name.split("/")[1] for name in names})[:5]:
                for name in [x for x in names if x.startswith(f"{part}/{label}/")][:n]:
                    path = folder / Path(name).with_suffix(".png")
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Pillow.open(io.BytesIO(archive.read(name))).save(path)
    return folder


@pytest.fixture(scope="module")
def saved(flowers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images as `save_to_disk` writes them."""
    path = tmp_path_factory.mktemp("saved") / "petals"
    DatasetDict({part: images_of(flowers / part) for part in EACH}).save_to_disk(path)
    return path


def images_of(folder: Path) -> Dataset:
    files = sorted(folder.glob("*/*.png"))
    names = sorted({file.parent.name for file in files})
    rows = {
        "image": [str(file) for file in files],
        "label": [names.index(file.parent.name) for file in files],
    }
    return Dataset.from_dict(rows, Features(image=Image(), label=ClassLabel(names=names)))


def test_saved_images_have_the_bits_of_their_files(flowers: Path, saved: Path) -> None:
    files = build("stream", {"name": "folder", "path": str(flowers)})
    stream = hub(saved)
    assert identities(stream) == identities(files)
    assert stream.class_names == files.class_names
    assert stream.class_names[0] == "00_Daffodil"
    assert stream.preprocess == files.preprocess
    assert stream.name == "split-petals"
    assert [len(e.train) for e in stream.experiences] == [EACH["train"]] * 5
    small = {"size": 16, "channels": 1}
    shrunk = hub(saved, **small)
    assert shrunk.input_shape == (1, 16, 16)
    files = build("stream", {"name": "folder", "path": str(flowers), **small})
    assert identities(shrunk) == identities(files)


def test_images_in_memory_have_the_bits_of_their_files(flowers: Path, saved: Path) -> None:
    parts = {part: images_of(flowers / part) for part in EACH}
    assert identities(clp.Stream.from_hub(DatasetDict(parts))) == identities(hub(saved))
    decoded = parts["train"].map(lambda row: {"image": row["image"].copy()})  # content, not files
    again = clp.Stream.from_hub({"train": decoded, "test": parts["test"]}, experiences=5)
    assert identities(again) == identities(hub(saved))


def test_the_same_matrix_as_from_files(flowers: Path, saved: Path, home: Path) -> None:
    run = {"strategy": "finetune", "lr": 0.01, "out": str(home / "out")}
    found = clp.run({"name": "hub", "path": str(saved), "experiences": 2}, **run)
    files = clp.run({"name": "folder", "path": str(flowers), "experiences": 2}, **run)
    assert np.array_equal(found.matrix.values, files.matrix.values)


def test_arrays_that_were_made_are_taken_again(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = identities(hub(saved))
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert identities(hub(saved)) == before
    with pytest.raises(
        DataError, match="data set 'petals' needs datasets; install the extra 'hub'"
    ):
        hub(saved, size=8)


def test_an_unreadable_image_is_named_or_left_out(flowers: Path, home: Path) -> None:
    rows = images_of(flowers / "train")[:24]
    content = [{"bytes": Path(image.filename).read_bytes()} for image in rows["image"]]
    content[7] = {"bytes": content[7]["bytes"][:500]}
    features = Features(image=Image(), label=Value("string"))
    data = Dataset.from_dict({"image": content, "label": [str(c) for c in rows["label"]]}, features)
    data.save_to_disk("broken")
    with pytest.raises(
        DataError, match=r"image 7 of broken \(train\) is no readable image"
    ) as caught:
        hub("broken")
    assert_one_line(caught.value)
    stream = hub("broken", unreadable="skip", test_share=0)
    assert sum(len(e.train) for e in stream.experiences) == 23
    assert "1 unreadable image left out" in stream.name


# --- texts and numbers


def test_saved_texts_have_the_bits_of_the_published_set(
    real_data: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = read_trec(real_data / "trec")
    parts = {}
    for part in ("train", "test"):
        rows = getattr(found, part)
        names = [found.class_names.index(label) for _, label in rows]
        features = Features(
            text=Value("string"), coarse=Value("string"), fine=ClassLabel(names=found.class_names)
        )
        columns = {"text": [t for t, _ in rows], "coarse": ["?"] * len(rows), "fine": names}
        parts[part] = Dataset.from_dict(columns, features)
    DatasetDict(parts).save_to_disk("trec")
    parts["train"].to_parquet("train.parquet")
    stream = hub("trec", experiences=3)
    monkeypatch.setenv("CLP_DATA", str(real_data))
    assert identities(stream) == identities(
        build("stream", {"name": "split-trec", "experiences": 3})
    )


@pytest.mark.parametrize(
    ("labels", "feature", "names"),
    [
        ([1, 0, 1, 0], ClassLabel(names=["no", "yes"]), ("no", "yes")),
        ([7, 30, 7, 30], Value("int64"), ("7", "30")),
        (["x", "y", "x", "y"], Value("string"), ("x", "y")),
        ([True, False, True, False], Value("bool"), ("False", "True")),
    ],
)
def test_labels_keep_their_names(labels: list[Any], feature: Any, names: tuple[str, ...]) -> None:
    data = texts(labels).cast_column("label", feature)
    stream = clp.Stream.from_hub(data, experiences=1, test_share=0)
    assert stream.class_names == names
    (experience,) = stream.experiences
    wanted = hashed_words(["one", "two", "three", "four"])
    assert np.array_equal(experience.train.source.numpy(), wanted)
    first = names.index(names[1] if labels[0] in (1, True) else str(labels[0]))
    assert experience.train.y.tolist() == [first, 1 - first] * 2


def test_rows_that_were_chosen_or_sorted_are_those_that_are_read() -> None:
    data = texts().select([3, 1, 0])
    source = clp.Stream.from_hub(data, experiences=1, test_share=0).experiences[0].train.source
    assert np.array_equal(source.numpy(), hashed_words(["four", "two", "one"]))


def test_numbers_are_features() -> None:
    data = Dataset.from_dict(
        {"width": [1.5, 2.0, 3.0, 4.0], "n": [1, 2, 3, 4], "label": list("abab")}
    )
    stream = clp.Stream.from_hub(data, experiences=1, test_share=0)
    assert torch.equal(
        stream.experiences[0].train.source, torch.tensor([[1.5, 1], [2, 2], [3, 3], [4, 4]])
    )
    vectors = Dataset.from_dict({"e": [[1.0, 2.0]] * 4, "label": list("abab")})
    assert clp.Stream.from_hub(vectors, experiences=1, test_share=0).input_shape == (2,)


def test_a_text_may_be_wanted_beside_an_image(flowers: Path) -> None:
    data = images_of(flowers / "train").add_column("caption", ["a flower"] * 60)
    assert clp.Stream.from_hub(data, experiences=1).input_shape == (3, 64, 64)
    assert clp.Stream.from_hub(data, experiences=1, text="caption").input_shape == (1, 1, 2048)


def test_dates_share_out_rows() -> None:
    days = ["2024-03-01", "2024-01-01", "2024-04-01", "2024-02-01"]
    stream = clp.Stream.from_hub(
        texts("aabb", when=days),
        time="when",
        by="time",
        experiences=2,
        test_share=0,
        scenario="domain",
    )
    assert [e.train.index.tolist() for e in stream.experiences] == [[1, 3], [0, 2]]
    assert stream.experiences[0].name == "2024-01-01 to 2024-02-01"


# --- parts


def test_splits_of_other_names_are_left_out_and_said(home: Path) -> None:
    parts = {"unsupervised": texts(), "train": texts(), "validation": texts(), "test": texts()}
    DatasetDict(parts).save_to_disk("reviews")
    stream = hub("reviews", experiences=1)
    (e,) = stream.experiences
    assert [len(s) for s in (e.train, e.validation, e.test)] == [4, 4, 4]
    assert stream.name == "split-reviews (split unsupervised left out)"


def test_a_split_with_secret_labels_is_left_out(home: Path) -> None:
    feature = ClassLabel(names=["no", "yes"])
    seen, secret = (texts(y).cast_column("label", feature) for y in ([0, 1, 0, 1], [-1] * 4))
    DatasetDict(train=seen, validation=seen, test=secret).save_to_disk("glue")
    (e,) = hub("glue", experiences=1).experiences
    assert [len(s) for s in (e.train, e.validation, e.test)] == [4, 0, 4]


def test_the_only_split_is_for_training(home: Path) -> None:
    DatasetDict(everything=texts()).save_to_disk("one")
    assert len(hub("one", experiences=1, test_share=0).experiences[0].train) == 4


# --- the hub


def test_a_data_set_of_the_hub_is_asked_for_by_name(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    loaded = datasets.load_from_disk(saved)
    monkeypatch.setattr(door, "ask_for_dataset", lambda *a: asked.append(a))
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: (asked.append((a, k)), loaded)[1])
    stream = hub("someone/petals", subset="small", revision="v1")
    assert asked == [("someone/petals", "v1"), (("someone/petals", "small"), {"revision": "v1"})]
    assert identities(stream) == identities(hub(saved))
    assert stream.name == "split-petals"


def test_without_a_network_a_name_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi

    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(HfApi, "dataset_info", unreachable)
    with pytest.raises(DataError) as caught:
        hub("someone/petals")
    assert_one_line(caught.value)
    assert str(caught.value).startswith(
        "data set 'someone/petals' is not available (Name or service not known); give a name on the hub"
    )


# --- what is refused


@pytest.mark.parametrize(
    ("data", "parameters", "message"),
    [
        (texts(), {"image": "text"}, "stream.image=text holds no images; columns of images: none"),
        (texts(), {"label": "lable"}, "stream.label=lable: hub has none; its columns are text, label"),
        (texts().remove_columns("label"), {}, "hub has no column of labels: give stream.label"),
        (texts().remove_columns("text"), {}, "hub has no text and no numbers to learn from"),
        (texts(["a", None, "b", "b"]), {}, "hub (train), row 2: label is missing (1 such rows)"),
        (texts(), {"features": "text"}, "hub (train), row 1: text is 'one', no finite number"),
        (DatasetDict(a=texts(), b=texts()), {}, "hub has no split for training; its splits are a, b"),
        (texts(), {"experiences": 3}, "stream.experiences=3: there are only 2 classes"),
        (texts(), {"colour": 1}, "colour is unknown"),
        (texts(), {"tokens": 1}, "tokens=1"),
        (7, {}, "data set 'hub' is not available"),
    ],
)  # fmt: skip
def test_bad_data_sets_are_one_clear_line(
    data: Any, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClpError) as caught:
        clp.Stream.from_hub(data, **parameters)
    assert_one_line(caught.value)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_folder_that_was_not_saved_is_refused(home: Path) -> None:
    with pytest.raises(DataError, match="neither a `Dataset` directory") as caught:
        hub(home)
    assert_one_line(caught.value)


def test_parameters_in_python_are_checked_like_others() -> None:
    with pytest.raises(ConfigError, match=r"stream.unreadable=perhaps"):
        clp.Stream.from_hub(texts(), unreadable="perhaps")
