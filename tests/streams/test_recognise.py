"""What people call a source becomes the section of a stream."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from cl_platform.config.registry import plugins
from cl_platform.errors import BadInput, UnknownName
from streams.recognise import section_of
from tests.helpers.hand_made import assert_one_line


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(path: str) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).touch()
    return path


@pytest.mark.parametrize("name", ["split-digits", "blobs", "streams.images:blobs", "mine.py:Mine"])
def test_streams_are_named(name: str) -> None:
    assert section_of(name) == {"name": name}


def test_a_name_on_the_hub_says_so() -> None:
    assert section_of("hub:someone/petals") == {"name": "hub", "path": "someone/petals"}


@pytest.mark.parametrize(
    ("path", "door"),
    [
        *((f"a{e}", "table") for e in (".csv", ".TSV", ".jsonl", ".parquet", ".csv.gz")),
        *((f"a{e}", "arrays") for e in (".npz", ".npy", ".pt")),
    ],
)
def test_files_are_known_by_their_ending(path: str, door: str) -> None:
    touch(path)
    assert section_of(path) == {"name": door, "path": path}
    assert door in plugins("stream")


@pytest.mark.parametrize(
    "files",
    [["cat/1.png", "dog/2.JPEG"], ["train/cat/1.png", "test/cat/2.png", "labels.csv"]],
)
def test_images_in_class_folders_are_known(files: list[str]) -> None:
    for file in files:
        touch(f"pets/{file}")
    assert section_of("pets") == {"name": "folder", "path": "pets"}


def test_folders_of_tables_and_saved_ones_are_known() -> None:
    touch("tables/train.csv")
    assert section_of("tables") == {"name": "table", "path": "tables"}
    Dataset.from_dict({"text": ["a"], "label": ["b"]}).save_to_disk("saved")
    assert section_of("saved") == {"name": "hub", "path": "saved"}


def test_a_stream_goes_before_a_folder_of_its_name() -> None:
    np.savez(touch("blobs/a.npz"))
    assert section_of("blobs") == {"name": "blobs"}
    Image.new("L", (2, 2)).save(touch("blobs/cat/1.png"))
    assert section_of("./blobs") == {"name": "folder", "path": "./blobs"}


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (
            "split-digts",
            UnknownName,
            "'split-digts' is no stream and no file. Did you mean 'split-",
        ),
        (
            "absent/a.csv",
            BadInput,
            "there is nothing at absent/a.csv: give images in class folders",
        ),
        ("a.docx", BadInput, "a.docx is no data that can be read: give images in class folders"),
        ("empty", BadInput, "empty holds no data that can be read: give images in class folders"),
    ],
)
def test_others_are_refused_in_one_line(source: str, error: type[BadInput], message: str) -> None:
    touch("a.docx")
    touch("empty/notes.txt")
    with pytest.raises(error) as caught:
        section_of(source)
    assert message in str(caught.value)
    assert_one_line(caught.value)
    assert len(str(caught.value)) < 500
