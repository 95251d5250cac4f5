"""Folders of images: real files of all kinds, and what is wrong with them in one line."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import cl_platform as clp
from cl_platform.config.signatures import build
from cl_platform.errors import BadInput, ClpError, DataError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder, where arrays are kept."""
    monkeypatch.setenv("CLP_DATA", str(tmp_path / "home"))
    return tmp_path / "home"


def folder(path: Any, **parameters: Any) -> clp.Stream:
    given = [str(p) for p in path] if isinstance(path, list) else str(path)
    return build("stream", {"name": "folder", "path": given, **parameters})


def write(root: Path, names: str, mode: str = "L", size: tuple[int, int] = (4, 4)) -> Path:
    """Write an image of its own colour at each of the paths, which are separated by blanks."""
    for name in names.split():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, size, hash_of(name)).save(path)
    return root


def hash_of(name: str) -> int:
    return sum(name.encode()) % 256


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    names = [f"{c}/{i}.png" for c in ("cat", "dog", "eel", "fox") for i in range(10)]
    return write(tmp_path / "animals", " ".join(names))


@pytest.fixture(scope="module")
def flowers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real photographs as files of different types, sizes and modes, and what lies beside them."""
    from tests.conftest import REAL_DATA

    archive = REAL_DATA / "flowers17" / "flowers17_64.zip"
    if not archive.exists():
        pytest.skip(f"no real data in {REAL_DATA}")
    root = tmp_path_factory.mktemp("flowers")
    with zipfile.ZipFile(archive) as stored:
        for i, name in enumerate(n for n in stored.namelist() if int(n.split("/")[1][:2]) < 6):
            image = Image.open(io.BytesIO(stored.read(name)))
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if i % 5 == 0:
                path.write_bytes(stored.read(name))
            elif i % 5 == 1:
                image.resize((80, 96)).save(path.with_suffix(".PNG"))
            elif i % 5 == 2:
                image.convert("P").save(path.with_suffix(".png"))
            elif i % 5 == 3:
                image.convert("RGBA").resize((128, 70)).save(path.with_suffix(".webp"))
            else:
                image.convert("L").save(path.with_suffix(".jpeg"), quality=95)
    for name in ("train/.DS_Store", "train/00_Daffodil/Thumbs.db", "README.txt", "train/._x.jpg"):
        (root / name).write_bytes(b"no image")
    return root


def test_real_photographs_of_all_kinds_are_learned(flowers: Path) -> None:
    stream = folder(flowers, size=32, experiences=3)
    assert stream.input_shape == (3, 32, 32)
    assert [len(e.train) for e in stream.experiences] == [120] * 3
    assert [len(e.test) for e in stream.experiences] == [40] * 3
    assert stream.class_names[0] == "00_Daffodil"
    assert stream.name == f"split-{flowers.name}"  # its own test part: nothing to be said
    result = clp.run(stream, "er", epochs=3, out=None)
    assert result.metrics["average_accuracy"] > 1.5 / 6


def test_the_command_line_learns_a_folder(
    animals: Path, clp: Callable[..., tuple[int, str, str]]
) -> None:
    given = ["--stream", "folder", "--set", f"stream.path={animals}"]
    code, _, err = clp("run", *given, "--set", "stream.experiences=[[eel,cat],[dog]]", "--json")
    assert code == 0, err
    assert "8 of 40 rows split off for testing (stream.test_share=0.2 of each class" in err
    assert clp("run", "--stream", "folder")[0] == 2
    code, _, err = clp("run", *given, "--set", "stream.siz=3")
    assert (code, err.count("\n")) == (2, 1)
    assert "Did you mean 'size'?" in err


def test_every_image_is_a_row_of_its_class(animals: Path) -> None:
    stream = folder(animals, experiences=2, test_share=0)
    assert stream.class_names == ("cat", "dog", "eel", "fox")
    first = stream[0]
    assert first.train.x[:, 0, 0, 0].tolist() == [
        hash_of(f"{c}/{i}.png") for c in ("cat", "dog") for i in range(10)
    ]
    assert first.train.y.tolist() == [0] * 10 + [1] * 10


def test_a_missing_test_part_is_split_off_evenly_and_said(animals: Path) -> None:
    stream = folder(animals, test_share=0.3)
    assert stream.name == "split-animals (12 of 40 rows split off for testing)"
    for e in stream.experiences:
        assert (len(e.train), len(e.test)) == (7, 3)
        assert not set(e.train.index.tolist()) & set(e.test.index.tolist())
        assert len(e.without_test_data().train.source) == 7  # no test row can be reached
    again, other = folder(animals, test_share=0.3), folder(animals, test_share=0.3, test_seed=1)
    assert again[0].identity == stream[0].identity
    assert other[0].identity != stream[0].identity


def test_parts_are_folders(tmp_path: Path) -> None:
    write(tmp_path / "d", "train/a/1.png train/b/2.png Valid/a/3.png Valid/b/4.png test/a/5.png")
    with pytest.raises(BadInput, match="has no test data"):
        clp.run(folder(tmp_path / "d", experiences=2), "finetune", out=None)
    write(tmp_path / "d", "test/b/6.png meta/readme.png train/loose.png")
    stream = folder(tmp_path / "d", experiences=1)
    sizes = [len(s) for s in (stream[0].train, stream[0].validation, stream[0].test)]
    assert sizes == [2, 2, 2]
    assert "folders beside train left out: meta" in stream.name
    assert "1 image outside of class folders in train left out" in stream.name
    with pytest.raises(BadInput, match="validation data of its own"):
        folder(tmp_path / "d", experiences=1, validation=0.1)


def test_validation_without_test_data_is_for_testing(tmp_path: Path) -> None:
    write(tmp_path / "d", "train/a/1.png train/b/2.png val/a/3.png val/b/4.png")
    stream = folder(tmp_path / "d", experiences=1)
    assert stream.name == "split-d (tested on its validation part)"
    assert (len(stream[0].validation), len(stream[0].test)) == (0, 2)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    write(tmp_path / "d", "train/1.png train/2.png car/3.png car/4.png")
    assert folder(tmp_path / "d", test_share=0).class_names == ("car", "train")


def test_domains_are_folders_with_the_same_classes(tmp_path: Path) -> None:
    for domain in ("sketch", "photo"):
        write(tmp_path / domain, " ".join(f"{c}/{i}.png" for c in "ab" for i in range(5)))
    stream = folder([tmp_path / "sketch", tmp_path / "photo"], scenario="domain")
    assert [e.name for e in stream.experiences] == ["sketch", "photo"]  # as they were given
    assert [e.classes for e in stream.experiences] == [(0, 1)] * 2
    assert [(len(e.train), len(e.test)) for e in stream.experiences] == [(8, 2)] * 2
    assert clp.run(stream, "finetune", out=None).matrix.values.shape == (3, 2)
    split = folder([tmp_path / "sketch", tmp_path / "photo"], experiences=2)
    assert [e.name for e in split.experiences] == ["a", "b"]


@pytest.mark.parametrize(
    ("names", "parameters", "message"),
    [
        (None, {}, "there is no folder .*: give one with a folder for each class"),
        ("1.png", {}, "has no folders"),
        ("a/1.png b/x/", {}, "no images in 1 class folders of .*: b; remove the folders"),
        ("a/1.png val/b/1.png train/a/1.png valid/a/1.png", {}, "several folders for one part"),
        ("a/1.png b/1.txt", {}, "no images in 1 class folders"),
        ("a/1.png", {"experiences": 2}, "there are only 1 classes"),
        ("a/1.png", {"size": 0}, "stream.size=0: input should be greater than 0"),
        ("a/1.png", {"background": "nope"}, "stream.background='nope' is no colour"),
        ("a/1.png", {"classes": ["b"]}, r"stream.classes=\['b'\]: unknown \['b'\]"),
    ],
)
def test_what_is_wrong_with_a_folder_is_one_line(
    tmp_path: Path, names: str | None, parameters: dict, message: str
) -> None:
    root = tmp_path / "d"
    for name in (names or "").split():
        if name.endswith(".png"):
            write(root, name)
        elif name.endswith("/"):
            (root / name).mkdir(parents=True)
        else:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text("words")
    with pytest.raises(ClpError, match=message) as caught:
        folder(root, **parameters)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_different_sizes_and_unreadable_files(animals: Path) -> None:
    write(animals, "cat/wide.png", size=(8, 4))
    with pytest.raises(BadInput, match=r"4x4 .* and 4x8 \(animals/cat/wide\.png\)"):
        folder(animals)
    (animals / "dog" / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    with pytest.raises(DataError, match=r"animals/dog/broken\.jpg is no readable image"):
        folder(animals, size=4)
    stream = folder(animals, size=4, unreadable="skip", test_share=0)
    assert stream.name == "split-animals (1 unreadable image left out)"
    assert sum(len(e.train) for e in stream.experiences) == 41


def test_links_are_followed_but_for_loops_and_dead_ends(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", "1.png 2.png")
    root = write(tmp_path / "d", "a/3.png b/4.png")
    (root / "a" / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "b" / "loop").symlink_to(root)
    stream = folder(root, experiences=1, test_share=0)
    assert torch.bincount(stream[0].train.y).tolist() == [3, 1]
    (root / "b" / "dead.png").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"d/b/dead\.png is no readable image"):
        folder(root, experiences=1)
    assert "1 unreadable image left out" in folder(root, unreadable="skip", size=4).name


def kept(home: Path) -> list[str]:
    return [p.name for p in (home / "arrays-v1").iterdir() if p.name.startswith("own-")]


def test_images_are_decoded_once_until_they_change(
    animals: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = folder(animals)
    (before,) = kept(home)
    with monkeypatch.context() as patch:
        patch.setattr("streams.folder.decode_all", None)
        assert folder(animals, experiences=2).class_names == first.class_names
    write(animals, "cat/0.png", mode="RGB", size=(4, 4))
    changed = folder(animals)
    (after,) = kept(home)  # the arrays of what the folder held before are gone
    assert before != after
    assert changed.input_shape == (3, 4, 4)
    folder(animals, channels=1)
    assert len(kept(home)) == 2


def test_above_the_budget_images_stay_in_their_file(
    animals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resident = folder(animals)
    monkeypatch.setenv("CLP_RESIDENT_BYTES", "100")
    mapped = folder(animals)
    assert (resident[0].train.mapped, mapped[0].train.mapped) == (False, True)
    assert mapped[0].identity == resident[0].identity
    runs = [clp.run(stream, "er", out=None) for stream in (resident, mapped)]
    assert runs[0].matrix == runs[1].matrix


@pytest.mark.system
def test_a_killed_reader_leaves_nothing_that_counts(tmp_path: Path, home: Path) -> None:
    names = [f"{c}/{i}.png" for c in "ab" for i in range(600)]
    root = write(tmp_path / "many", " ".join(names))
    code = f"from streams.folder import folder; folder({str(root)!r}, size=250)"
    environment = {**os.environ, "CLP_DATA": str(home)}
    reader = subprocess.Popen([sys.executable, "-c", code], env=environment)
    deadline = time.monotonic() + 60
    while not list(home.glob("arrays-v1/.own-*/train.rows")):
        assert time.monotonic() < deadline
        assert reader.poll() is None
        time.sleep(0.01)
    reader.kill()
    reader.wait()
    assert not kept(home)
    assert list(home.glob("arrays-v1/.own-*/train.rows"))
    stream = folder(root, size=250)
    assert sum(len(e.train) + len(e.test) for e in stream.experiences) == 1200
    assert not list(home.glob("arrays-v1/.own-*/train.rows"))  # swept up by the next one
