"""Files of arrays: which of them are inputs and labels, where channels are, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cl_platform as clp
from cl_platform.config.signatures import build
from cl_platform.errors import ClpError

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(40) % 4


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLP_DATA", str(tmp_path / "home"))


def arrays(path: Path, **parameters: Any) -> clp.Stream:
    return build("stream", {"name": "arrays", "path": str(path), **parameters})


def npz(folder: Path, **stored: Any) -> Path:
    np.savez(folder / "mine.npz", **stored)
    return folder / "mine.npz"


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("X", "y", "X_test", "y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("xtrain", "ytrain", "xtest", "ytest"),
        ("data", "targets", "test.data", "test.targets"),
    ],
)
def test_usual_names_are_found(tmp_path: Path, names: tuple[str, ...]) -> None:
    parts = (IMAGES[:30], LABELS[:30], IMAGES[30:], LABELS[30:, None])
    stream = arrays(npz(tmp_path, **dict(zip(names, parts, strict=True))), experiences=2)
    assert [(len(e.train), len(e.test)) for e in stream.experiences] == [(16, 4), (14, 6)]
    assert stream.input_shape == (3, 6, 5)
    assert stream.class_names == ("0", "1", "2", "3")
    assert torch.equal(stream[0].test.x[0], torch.from_numpy(IMAGES[32].transpose(2, 0, 1)))


def test_names_can_be_given(tmp_path: Path) -> None:
    file = npz(tmp_path, pictures=IMAGES, kind=LABELS, other=IMAGES)
    with pytest.raises(ClpError, match=r"no array has a name like x in mine\.npz: give stream\.x"):
        arrays(file)
    stream = arrays(file, x="pictures", y="kind", class_names=["d", "c", "b", "a"])
    assert stream.class_names == ("a", "b", "c", "d")
    assert (stream[0].train.y == 0).sum() == 8  # those labelled 3


def test_further_arrays_are_columns(tmp_path: Path) -> None:
    time = np.arange(40) * 0.5
    file = npz(tmp_path, x=IMAGES, y=LABELS, time=time, mean=np.zeros(3))
    stream = arrays(file, by="time", experiences=2, test_share=0.25)
    early, late = stream.experiences
    assert early.classes == late.classes == (0, 1, 2, 3)
    assert len(early.train) == len(late.train) == 16
    first = int(late.train.index.min())  # rows are in the order of time
    assert max(int(s.index.max()) for s in (early.train, early.test)) < first
    assert min(int(s.index.min()) for s in (late.train, late.test)) >= first
    assert late.name == f"{first * 0.5:g} to 19.5"
    with pytest.raises(ClpError, match="its columns: time"):
        arrays(file, by="mean")


@pytest.mark.parametrize("suffix", [".pt", ".npy", ".npz"])
def test_the_same_data_in_any_file_give_the_same_bits(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"x{suffix}"
    if suffix == ".pt":
        torch.save({"x": torch.from_numpy(IMAGES), "y": torch.from_numpy(LABELS)}, file)
    elif suffix == ".npy":
        np.save(file, IMAGES)
        np.save(tmp_path / "y.npy", LABELS)
    else:
        np.savez(file, x=IMAGES, y=LABELS.astype(str))
    expected = clp.Stream.from_arrays(IMAGES, LABELS)
    assert [e.identity for e in arrays(file).experiences] == [
        e.identity for e in expected.experiences
    ]


def test_a_pair_of_tensors_is_inputs_and_labels(tmp_path: Path) -> None:
    torch.save((torch.randn(20, 3), torch.arange(20) % 2), tmp_path / "pair.pt")
    assert arrays(tmp_path / "pair.pt").input_shape == (3,)


class Code:
    """Something that a pickle would have to run."""


@pytest.mark.parametrize(
    ("stored", "parameters", "message"),
    [
        (
            {"x": IMAGES},
            {},
            r"no array has a name like y in mine\.npz: give stream\.y=NAME, one of",
        ),
        ({"x": IMAGES, "data": IMAGES, "y": LABELS}, {}, "several arrays could be x in"),
        ({"x": IMAGES, "y": LABELS, "x_test": IMAGES}, {}, "not the other one of x_test and y_te"),
        ({"x": IMAGES, "y": LABELS}, {"x": "z"}, r"stream\.x=z: mine\.npz has x \(40, 6, 5, 3\)"),
        ({"x": IMAGES, "y": LABELS[:9]}, {}, r"inputs of shape \(40, 6, 5, 3\) for 9 labels"),
        ({"x": IMAGES, "y": LABELS + 0.5}, {}, "labels are no whole numbers"),
        ({"x": IMAGES, "y": np.eye(40)}, {}, r"labels of shape \(40, 40\)"),
        ({"x": IMAGES, "y": LABELS}, {"class_names": ["a"]}, "label 1 has no name"),
        ({"x": IMAGES[:, :3, :, :], "y": LABELS}, {}, "not clear where the channels are"),
        ({"x": IMAGES[..., 0, 0, 0], "y": LABELS}, {}, r"inputs of shape \(40,\)"),
        ({"x": IMAGES.astype(complex), "y": LABELS}, {}, "complex128"),
        ({"x": IMAGES.astype(np.int64), "y": LABELS}, {}, "store images as uint8"),
        ({"x": np.array([Code()] * 40), "y": LABELS}, {}, "store plain arrays or tensors"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(
    tmp_path: Path, stored: dict, parameters: dict, message: str
) -> None:
    with pytest.raises(ClpError, match=message) as caught:
        arrays(npz(tmp_path, **stored), **parameters)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_file_that_is_missing_damaged_or_runs_code_is_refused(tmp_path: Path) -> None:
    torch.save({"x": Code()}, tmp_path / "code.pt")
    (tmp_path / "cut.npz").write_bytes(npz(tmp_path, x=IMAGES, y=LABELS).read_bytes()[:400])
    (tmp_path / "table.csv").write_text("a,b")
    for name, message in {
        "absent.npz": "there is no file",
        "code.pt": "store plain arrays or tensors, without objects",
        "cut.npz": "cannot be read",
        "table.csv": "is no file of arrays",
    }.items():
        with pytest.raises(ClpError, match=message):
            arrays(tmp_path / name)


def test_layout_says_where_channels_are(tmp_path: Path) -> None:
    file = npz(tmp_path, x=IMAGES[:, :3], y=LABELS)
    assert arrays(file, layout="channels_last").input_shape == (3, 3, 5)
    assert arrays(file, layout="channels_first").input_shape == (3, 5, 3)
    assert arrays(npz(tmp_path, x=IMAGES[..., 0], y=LABELS)).input_shape == (1, 6, 5)
    floats = (IMAGES / 255).astype(np.float32)
    assert arrays(npz(tmp_path, x=floats, y=LABELS)).input_shape == (3, 6, 5)
