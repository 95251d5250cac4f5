"""`clp data inspect`: what it finds, the tables, the document, the picture, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cl_platform import Samples, Stream, class_incremental
from cl_platform.config.signatures import build
from streams.inspection.command import CLASSES, EXPERIENCES
from streams.inspection.examples import examples
from streams.inspection.findings import find, shortened

Clp = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLP_DATA", str(tmp_path.parent / f"{tmp_path.name}-data"))


def document(clp: Clp, *arguments: str) -> dict:
    code, out, err = clp("data", "inspect", *arguments, "--json")
    assert (code, err) == (0, ""), err
    found: dict = json.loads(out)  # one document and nothing else
    return found


def stream_of(x: torch.Tensor, y: list[int], test: tuple[torch.Tensor, list[int]]) -> Stream:
    """A stream of two classes an experience, of given rows."""
    n = max(y) + 1
    groups = [range(c, min(c + 2, n)) for c in range(0, n, 2)]
    names = [f"class {c}" for c in range(n)]
    train, tested = Samples.of(x, torch.tensor(y)), Samples.of(test[0], torch.tensor(test[1]))
    return class_incremental("made", groups, names, train, tested)


def rows(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None] * torch.tensor([1.0, 2.0])


def messages(found: dict) -> str:
    return "\n".join(warning["message"] for warning in found["warnings"])


# --- what is found


def test_classes_and_experiences_are_counted() -> None:
    stream = build("stream", {"name": "split-digits", "experiences": 3, "validation": 0.1})
    found = find(stream)
    assert found["samples"] == {
        split: sum(len(getattr(e, split)) for e in stream.experiences)
        for split in ("train", "validation", "test")
    }
    y = torch.cat([e.train.y for e in stream.experiences])
    for c, row in enumerate(found["classes"]):
        assert row["name"] == str(c)
        assert row["train"] == int((y == c).sum())
        assert all(c in stream.experiences[e].classes for e in row["experiences"])
    for e, row in zip(stream.experiences, found["experiences"], strict=True):
        assert row["name"] == e.name
        assert row["identity"] == e.identity
        assert row["classes"] == [str(c) for c in e.classes]
        assert [row[s] for s in ("train", "validation", "test")] == [
            len(s) for s in (e.train, e.validation, e.test)
        ]
    assert found["imbalance"] == pytest.approx(max(torch.bincount(y)) / min(torch.bincount(y)))


def test_inputs_are_measured() -> None:
    stream = build("stream", {"name": "split-digits"})
    x = torch.cat([e.train.x for e in stream.experiences]).double()
    inputs = find(stream)["inputs"]
    assert (inputs["kind"], inputs["shape"], inputs["dtype"]) == ("images", [1, 8, 8], "uint8")
    assert (inputs["smallest"], inputs["largest"]) == (0, 16)
    assert inputs["mean"] == pytest.approx(float(x.mean()))
    assert inputs["std"] == pytest.approx(float(x.std(correction=0)))
    assert inputs["bytes"] == 1797 * 64


def test_equal_inputs_are_found_wherever_they_are() -> None:
    x = rows(1, 2, 2, 3, 4, 5, 5, 5)
    stream = stream_of(x, [0, 0, 0, 1, 2, 2, 3, 3], (rows(9, 3, 4), [0, 1, 3]))
    found = find(stream)["duplicates"]
    assert found["within_train"]["rows"] == 3
    assert found["in_train_and_test"]["rows"] == 2
    assert found["labels_differ"]["inputs"] == 2
    lines = {w["message"]: w["cases"] for w in find(stream)["warnings"]}
    assert lines["2 test samples (66.7 %) also in the training data"] == [
        "test 1 = train 3 (class 1)",
        "test 2 (class 3) = train 4 (class 2)",
    ]
    assert lines["2 inputs with several labels"] == [
        "train 4 (class 2) = test 2 (class 3)",
        "train 5 (class 2) = train 6 (class 3)",
    ]
    assert lines["3 training samples (37.5 %) equal to another one"] == [
        "train 1 = train 2 (class 0)",
        "train 5 (class 2) = train 6 (class 3)",
    ]


def test_known_duplicates_of_cifar100_are_found(
    real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same as numpy finds among the bytes."""
    monkeypatch.setenv("CLP_DATA", str(real_data))
    stream = build("stream", {"name": "split-cifar10"})
    x = [s.x.flatten(1).numpy() for e in stream.experiences for s in (e.train, e.test)]
    train, test = np.concatenate(x[::2]), np.concatenate(x[1::2])
    found = find(stream)["duplicates"]
    assert found["within_train"]["rows"] == len(train) - len(np.unique(train, axis=0))
    both = np.concatenate([np.unique(train, axis=0), test])
    among = {row.tobytes() for row in train}
    assert found["in_train_and_test"]["rows"] == sum(row.tobytes() in among for row in test)
    assert len(both) == 3500


def test_what_matters_is_warned_of() -> None:
    n = [300, 5, 40, 40, 40]
    y = [c for c, size in enumerate(n) for _ in range(size)]
    x = torch.arange(len(y))[:, None] * torch.tensor([1.0, 2.0, 0.0])
    x = x + torch.tensor([1.0, 2.0, 1.0])
    x[3, 2] = 0.0
    x[7] = 3.0
    test = x[:50] + 0.5
    found = find(stream_of(x, y, (test, [0] * 20 + [1] * 5 + [2] * 5 + [3] * 20)))
    said = messages(found)
    assert "1 class without test samples: class 4" in said
    assert "1 class of fewer than 10 training samples: class 1 (5)" in said
    assert (
        "the largest class, class 0, has 60 times as many training samples as the smallest" in said
    )
    assert "1 experience of a single class: class 4" in said
    assert "1 experience without test samples: class 4" in said
    assert "1 training input all of one number" in said
    assert "without variation" not in said
    x[7], x[3, 2] = torch.tensor([8.0, 16.0, 1.0]), 1.0
    assert "1 feature of 3 without variation in training" in messages(
        find(stream_of(x, y, (test, [0] * 50)))
    )


def test_nothing_is_said_of_data_in_order() -> None:
    assert find(build("stream", {"name": "blobs"}))["warnings"] == []


def test_rows_of_a_domain_are_compared_as_it_shows_them() -> None:
    stream = build("stream", {"name": "rotated-digits", "experiences": 3})
    found = find(stream)
    assert found["samples"]["train"] == 3 * 1201
    assert found["duplicates"]["within_train"]["rows"] == 0
    assert found["classes"][0]["experiences"] == [0, 1, 2]


def test_examples_are_taken_by_turns() -> None:
    stream = build("stream", {"name": "rotated-digits", "experiences": 3})
    found = examples(stream.experiences, 4, 7)
    assert len(found) == 7
    assert [s is e.train for (s, _), e in zip(found, [*stream.experiences] * 2, strict=False)] == [
        True
    ] * 6
    assert all(int(s.y[row]) == 4 for s, row in found)
    assert len(examples(stream.experiences, 4, 10**6)) == sum(
        int((e.train.y == 4).sum()) for e in stream.experiences
    )


@pytest.mark.parametrize("width", [5, 6, 30])
def test_names_are_cut_in_the_middle(width: int) -> None:
    name = "".join(map(str, range(40)))
    assert len(shortened(name, width)) == width
    assert shortened(name, width).endswith("9")
    assert shortened("short", width) == "short"


# --- the document and the tables


def test_the_document_holds_what_is_found(clp: Clp) -> None:
    found = document(clp, "blobs", "--set", "stream.experiences=3", "--scenario", "task")
    section = found.pop("source")
    assert section["experiences"] == 3
    assert section["separation"] == 8.0  # complete: a run with it has these experiences
    assert found == find(build("stream", section))


def test_a_table_is_inspected_by_its_path(clp: Clp, tmp_path: Path) -> None:
    words = [
        f"{a} {b}" for a in ("red", "green", "blue") for b in ("sun", "[bold]moon", "sky", "sea")
    ]
    frame = pd.DataFrame({"text": words * 2, "label": ["a", "b", "c", "[red]d"] * 6})
    frame.to_csv(tmp_path / "mine.csv", index=False)
    code, out, err = clp("data", "inspect", "mine.csv", "--set", "stream.experiences=2")
    assert code == 0
    assert "split off for testing" in err
    assert "split-mine" in out
    assert "for example" in out
    assert "red [bold]moon" in out  # names and texts are no markup
    assert "[red]d" in out
    assert "word counts" in out
    assert "also in the training data" in out


def test_token_ids_are_read_out(clp: Clp, real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLP_DATA", str(real_data))
    code, out, _ = clp("data", "inspect", "split-trec", "--set", "stream.tokenizer=minilm")
    assert code == 0
    assert "what is the abbreviation for mic" in out


MINE = """
from __future__ import annotations
from typing import TYPE_CHECKING
from cl_platform.config.signatures import build
if TYPE_CHECKING:
    from cl_platform import Stream

def mine(scenario: str = "class") -> Stream:
    return build("stream", {"name": "blobs", "scenario": scenario})
"""


def test_streams_of_users_are_inspected(clp: Clp, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    assert document(clp, "mine.py:mine")["samples"]["train"] == 1000
    code, out, err = clp("data", "inspect", "mine.py:mine", "--scenario", "task")
    assert (code, err) == (0, "")
    assert "task-incremental" in out


def test_images_in_folders_and_arrays_are_inspected(clp: Clp, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8), np.arange(40) % 4
    np.savez(tmp_path / "pets.npz", x=x, y=y)
    for i, pixels in enumerate(x):
        (tmp_path / f"pets/{y[i]}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / f"pets/{y[i]}/{i:02}.png")
    split = ("--set", "stream.test_share=0", "--set", "stream.experiences=2")
    folder, arrays = document(clp, "pets", *split), document(clp, "pets.npz", *split)
    assert folder["source"]["name"] == "folder"
    assert folder["inputs"] == arrays["inputs"]
    assert folder["classes"] == arrays["classes"]
    assert "4 classes without test samples: 0, 1, 2 and 1 more" in messages(folder)


SOURCES = ("blobs", "split-digits", "split-omniglot", "split-trec", "permuted-digits", "text-cl5")


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("columns", ["80", "40"])
def test_the_tables_fit_a_console(
    clp: Clp, real_data: Path, monkeypatch: pytest.MonkeyPatch, source: str, columns: str
) -> None:
    monkeypatch.setenv("CLP_DATA", str(real_data))
    monkeypatch.setenv("COLUMNS", columns)
    code, out, _ = clp("data", "inspect", source)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert len(out.splitlines()) < CLASSES + EXPERIENCES + 40


def test_many_classes_are_shortened(
    clp: Clp, real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLP_DATA", str(real_data))
    _, out, _ = clp("data", "inspect", "split-omniglot")
    assert f"{1623 - CLASSES:,} more (15)" in out
    assert f"{50 - EXPERIENCES} more (" in out


# --- the picture


def colours_of(path: Path) -> set[tuple[int, ...]]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert min(image.size) > 100
        return {colour for _, colour in image.convert("RGB").getcolors(2**24)}


@pytest.mark.parametrize("source", ["split-digits", "blobs", "permuted-digits"])
def test_a_picture_can_be_looked_at(clp: Clp, tmp_path: Path, source: str) -> None:
    code, out, err = clp("data", "inspect", source, "--picture", "samples.png")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "samples.png"
    assert len(colours_of(tmp_path / "samples.png")) > 10  # not an empty sheet


@pytest.mark.parametrize("n_classes", [1, 3, 21, 41, 70])
def test_a_picture_has_a_row_for_each_class(clp: Clp, tmp_path: Path, n_classes: int) -> None:
    """Every class that is shown has its own colour somewhere."""
    y = list(range(n_classes)) * 3
    colours = torch.stack([torch.tensor([c * 3, 255 - c * 3, 40]) for c in y]).to(torch.uint8)
    images = colours[:, :, None, None].expand(-1, 3, 6, 9).contiguous()
    stream = stream_of(images, y, (images[:1], y[:1]))
    from streams.inspection.picture import MOST, write_picture

    write_picture(stream, tmp_path / "a.png")
    found = colours_of(tmp_path / "a.png")
    shown = {(c * 3, 255 - c * 3, 40) for c in range(min(n_classes, MOST))}
    assert shown <= found


def test_pictures_of_other_channels_and_units(tmp_path: Path) -> None:
    from streams.inspection.picture import write_picture

    for channels in (1, 2, 5):
        x = torch.randn(8, channels, 5, 5) * 1000
        write_picture(stream_of(x, [0, 1] * 4, (x[:1] + 1, [0])), tmp_path / f"{channels}.png")
        assert len(colours_of(tmp_path / f"{channels}.png")) > 10


def test_names_of_a_picture_are_no_formulas(tmp_path: Path) -> None:
    from dataclasses import replace

    from streams.inspection.picture import write_picture

    for name in ("split-digits", "blobs", "rotated-digits"):
        stream = build("stream", {"name": name})
        names = tuple(f"$5 \\off$ {c}" for c in range(10))
        parts = tuple(replace(e, name=f"_{{$ {e.name}") for e in stream.experiences)
        write_picture(replace(stream, class_names=names, experiences=parts), tmp_path / "a.png")


# --- what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("blob",), "'blob' is no stream and no file. Did you mean 'blobs'?"),
        (("absent.csv",), "there is nothing at absent.csv"),
        (("blobs", "--set", "stream.experience=3"), "stream.experience is unknown. Did you mean"),
        (("blobs", "--set", "strem.experiences=3"), "strem: inspect takes settings of the stream"),
        (("blobs", "--set", "stream.name=split-digits"), "the source names the stream"),
        (("blobs", "--set", "stream=3"), "the source names the stream"),
        (("blobs", "--picture", "samples"), "picture=samples: give a file such as samples.png"),
        (("blobs", "--picture", "a.exe"), "picture=a.exe: Format 'exe' is not supported"),
        (("blobs", "--picture", "absent/a.png"), "picture=absent/a.png: "),
        (("split-trec", "--picture", "a.png"), "split-trec holds texts, which have no picture"),
        ((), "SOURCE"),
    ],
)
def test_bad_input_is_one_clear_line(
    clp: Clp, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...], message: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("CLP_DATA", str(real_data))
    code, out, err = clp("data", "inspect", *arguments)
    assert code == 2
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


# --- what is scored apart from what is learned


def test_columns_are_shown_apart(clp: Clp) -> None:
    arguments = ("repeating", "--stream.inner", "split-digits", "--stream.order=[0,1,0,3]")
    found = document(clp, *arguments)
    assert found["source"]["inner"]["name"] == "split-digits"
    inner = find(build("stream", {"name": "split-digits"}))
    sizes = [e["train"] for e in inner["experiences"]]
    assert [e["train"] for e in found["experiences"]] == [sizes[k] for k in (0, 1, 0, 3)]
    assert found["samples"]["train"] == sizes[0] + sizes[1] + sizes[3]  # what returns counts once
    assert found["samples"]["test"] == inner["samples"]["test"]
    assert {e["name"]: e["steps"] for e in found["columns"]} == {
        **{"0 1": 2, "2 3": 1, "6 7": 1, "4 5": 0, "8 9": 0}
    }
    assert found["duplicates"]["within_train"]["rows"] == 0
    code, out, err = clp("data", "inspect", *arguments)
    assert (code, err) == (0, "")
    assert "4 experiences of 10 classes, scored on 5" in out
    assert "held out" in out


def test_schedules_show_texts_and_pictures_of_what_they_are_made_of(
    clp: Clp, tmp_path: Path
) -> None:
    pd.DataFrame({"text": ["good", "poor"] * 8, "label": ["a", "b"] * 8}).to_csv("t.csv")
    settings = (
        "--stream.inner",
        "table",
        "--stream.inner.path",
        "t.csv",
        "--stream.inner.experiences=1",
    )
    code, out, err = clp("data", "inspect", "blurry", *settings)
    assert (code, "good" in out, "poor" in out) == (0, True, True), err
    code, _, err = clp(
        *("data", "inspect", "gaussian-schedule", "--stream.inner=split-digits"),
        *("--stream.slices=300", "--picture", "p.png"),
    )
    assert (code, err) == (0, "")
    assert Path("p.png").stat().st_size > 1000
