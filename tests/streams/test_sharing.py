"""How classes and rows are shared out over experiences, for data of any source."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cl_platform as clp
from cl_platform.config.registry import load
from cl_platform.config.signatures import build, describe
from cl_platform.errors import BadInput, ClpError
from streams.data.natural import natural
from streams.data.own import Rows, Source, dataset_of
from streams.doors import door, stratified, stream_of

N = 120
CLASSES = ["fox", "3", "10", "ant", "class10", "class2"]


def rows() -> Iterator[tuple[Any, Rows]]:
    """120 rows of 6 classes in blocks, with a task for every 10 rows and falling times."""
    x = np.arange(N * 2, dtype=np.float32).reshape(N, 2)
    columns = {"task": [f"t{i // 10}" for i in range(N)], "time": list(range(N, 0, -1))}
    for start in range(0, N, 50):
        some = range(start, min(N, start + 50))
        labels = [CLASSES[i % 6] for i in some]
        yield "train", Rows(x[some], labels, {k: [v[i] for i in some] for k, v in columns.items()})


def shared(**given: Any) -> clp.Stream:
    return stream_of(Source("mine", rows), {"test_share": 0.25, **given})


def names(stream: clp.Stream) -> list[str]:
    return [e.name for e in stream.experiences]


def test_classes_are_in_the_order_in_which_people_count() -> None:
    stream = shared()
    assert stream.class_names == ("3", "10", "ant", "class2", "class10", "fox")
    assert names(stream) == ["3 10", "ant", "class2", "class10", "fox"]
    labels = ["10", "9.5", "-1", "1e3", "b10", "b9", "B", "", "07", "7", "nan", "1_0", "²"]
    assert sorted(labels, key=natural) == [
        *("-1", "07", "7", "9.5", "10", "1e3", "", "1_0", "B", "b9", "b10", "nan", "²"),
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"experiences": 2}, ["3 10 ant", "class2 class10 fox"]),
        ({"experiences": [1, 5]}, ["3", "10 ant class2 class10 fox"]),
        ({"experiences": [["fox", 3], ["ant", "10", "class2", "class10"]]}, ["fox 3", "ant 10 class2 class10"]),
        ({"experiences": [["fox"], [10]]}, ["fox", "10"]),
        ({"classes": ["fox", 10], "experiences": 2}, ["fox", "10"]),
        ({"classes": 3, "experiences": 1}, ["3 10 ant"]),
    ],
    ids=str,
)  # fmt: skip
def test_classes_are_given_by_name(given: dict, expected: list[str]) -> None:
    stream = shared(**given)
    assert names(stream) == expected
    for e in stream.experiences:
        assert {stream.class_names[c] for c in e.train.y.tolist()} == set(e.name.split())
        assert len(e.train) == 15 * len(e.classes)


def test_lists_of_all_classes_change_no_identity() -> None:
    listed = shared(experiences=[["3", "10", "ant"], ["fox", "class10", "class2"]])
    assert [e.identity for e in listed.experiences] == [
        e.identity for e in shared(experiences=2).experiences
    ]
    some = shared(experiences=[["fox"], ["ant"]])
    assert some.class_names == ("ant", "fox")
    assert "2 of 6 classes" in some.name


def test_numbers_are_places_where_no_class_is_called_by_a_number() -> None:
    stream = build("stream", {"name": "split-trec", "experiences": [[0, 2], ["HUM:ind"]]})
    assert [len(e.classes) for e in stream.experiences] == [2, 1]
    digits = build("stream", {"name": "split-digits", "experiences": [[9, 8], [0]]})
    assert digits.class_names == ("0", "8", "9")
    assert names(digits) == ["9 8", "0"]


def test_rows_are_shared_out_by_the_values_of_a_column() -> None:
    stream = shared(by="task")
    assert names(stream) == [f"t{i}" for i in range(12)]  # t10 after t9
    for i, e in enumerate(stream.experiences):
        assert {*e.train.index.tolist(), *e.test.index.tolist()} == set(range(10 * i, 10 * i + 10))
        assert len(e.test) >= 1
    few = shared(by="task", experiences=[["t3", "t1"], ["t11"]], scenario="task")
    assert names(few) == ["t3 t1", "t11"]
    assert few.scenario == "task"
    assert "3 of 12 values of task" in few.name
    assert len(few[0].train) + len(few[0].test) == 20


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"experiences": 3}, ["1 to 40", "41 to 80", "81 to 120"]),
        ({"boundaries": [100, 110.5]}, ["1 to 99", "100 to 110", "111 to 120"]),
        ({"boundaries": ["50"]}, ["1 to 49", "50 to 120"]),
    ],
    ids=str,
)
def test_time_is_cut_into_intervals(given: dict, expected: list[str]) -> None:
    stream = stream_of(Source("mine", rows), {"by": "time", "test_share": 0, **given})
    assert names(stream) == expected
    assert stream[-1].train.index.max() < stream[0].train.index.min()  # times fall
    for e in shared(by="time", **given).experiences:
        assert len(e.test) == pytest.approx(0.25 * (len(e.train) + len(e.test)), abs=2)


def test_equal_times_stay_together_and_dates_are_in_order() -> None:
    def dated() -> Iterator[tuple[Any, Rows]]:
        days = [f"2024-0{1 + i // 25}-01" for i in range(100)]
        yield "train", Rows(np.zeros((100, 2), np.float32), ["a", "b"] * 50, {"day": days})

    source = Source("dated", dated)
    halves = stream_of(source, {"by": "day", "experiences": 2})
    assert names(halves) == ["2024-01-01 to 2024-02-01", "2024-03-01 to 2024-04-01"]
    cut = stream_of(source, {"by": "day", "boundaries": ["2024-02-15"]})
    assert names(cut) == names(halves)
    with pytest.raises(BadInput, match="day has 4 different values"):
        stream_of(source, {"by": "day", "experiences": 5})


def test_experiences_that_share_classes_are_learned_in_every_scenario() -> None:
    for scenario in ("class", "task", "domain"):
        stream = shared(by="time", experiences=3, scenario=scenario)
        assert [e.classes for e in stream.experiences] == [tuple(range(6))] * 3
        for strategy in ("er", "ewc", "lwf"):
            result = clp.run(stream, strategy, out=None)
            assert result.matrix.values.shape == (4, 3)


def test_a_test_part_without_the_column_is_that_of_the_classes() -> None:
    x, y = np.zeros((40, 2), np.float32), np.arange(40) % 4
    task = ["a" if c < 2 else "b" for c in y]
    stream = clp.Stream.from_arrays(x, y, x[:8], y[:8], columns={"task": task}, by="task")
    assert [e.test.y.tolist() for e in stream.experiences] == [[0, 1, 0, 1], [2, 3, 2, 3]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"by": "tasks"}, r"stream\.by=tasks: mine has no such column; its columns: task, time"),
        ({"boundaries": [3]}, r"name it, stream\.by=COLUMN"),
        ({"by": "time", "boundaries": [3], "experiences": 2}, "not both"),
        ({"by": "time", "boundaries": [3, 2]}, "give them in order"),
        ({"by": "time", "experiences": [2, 3]}, "a number of intervals or the list of values"),
        ({"by": "task", "experiences": "groups"}, "a number of intervals or the list of values"),
        ({"by": "task", "experiences": 13}, "has 12 different values"),
        ({"by": "task", "experiences": [["t1"], ["t99"]]}, "unknown"),
        ({"by": "task", "experiences": [["t1"], ["t1"]]}, "given twice"),
        ({"by": "task", "class_seed": 1}, "orders classes"),
        ({"experiences": [["fox"], ["fox"]]}, "a class is given twice"),
        ({"experiences": [["wolf"]]}, r"unknown \['wolf'\]; give different classes of 3, 10, ant"),
        ({"experiences": "groups"}, "has no groups"),
        ({"classes": 7}, "has only 6 classes"),
        ({"classes": [5]}, r"unknown \[5\]"),  # numbers are names here
        ({"experiences": 1.5}, "stream.experiences=1.5"),
        ({"scenario": "domain", "experiences": 4}, "has the same classes in every experience"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_told_in_one_line(given: dict, message: str) -> None:
    with pytest.raises(ClpError, match=message) as caught:
        shared(**given)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_test_rows_of_a_value_that_is_never_trained_are_refused() -> None:
    x, y = np.zeros((8, 2), np.float32), np.arange(8) % 2
    columns = {"columns": {"site": [1] * 8}, "test_columns": {"site": [1] * 7 + [2]}}
    with pytest.raises(BadInput, match="no training rows have '2', but others have"):
        clp.Stream.from_arrays(x, y, x, y, by="site", **columns)
    kept = clp.Stream.from_arrays(x, y, x, y, by="site", experiences=[[1]], **columns)
    assert len(kept[0].test) == 7


def test_a_class_without_training_rows_is_refused() -> None:
    x = np.zeros((6, 2), np.float32)
    with pytest.raises(BadInput, match=r"no training rows of class.* 'c'"):
        clp.Stream.from_arrays(x, list("aabbab"), x[:3], list("abc"))
    clp.Stream.from_arrays(x, list("aabbab"), x[:3], list("abc"), classes=["a", "b"])


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.9])
def test_what_is_split_off_is_a_share_of_each_class_spread_over_the_values(share: float) -> None:
    y = torch.tensor([0] * 100 + [1] * 40 + [2] * 2 + [3])
    values = np.arange(len(y)) % 7
    chosen = stratified(y, values, share, 0)
    assert torch.bincount(y[chosen], minlength=4).tolist() == [
        *(round(100 * share), round(40 * share), 1, 0),
    ]
    spread = np.bincount(values[:100][chosen[:100].numpy()], minlength=7)
    assert spread.max() - spread.min() <= 2
    assert torch.equal(chosen, stratified(y, values, share, 0))
    assert not torch.equal(chosen, stratified(y, values, share, 1))


@pytest.mark.parametrize("name", ["folder", "arrays", "split-digits", "split-trec"])
def test_the_parameters_of_a_door_are_its_own_and_the_shared_ones(name: str) -> None:
    stream: Any = load("stream", name)
    known = describe("stream", stream)["parameters"]
    assert {"scenario", "classes", "experiences", "validation", "normalise"} <= known.keys()
    assert ("by" in known) == ("test_share" in known) == (name in ("folder", "arrays"))
    own = [p for p in inspect.signature(stream).parameters if p != "dataset"]
    assert list(known) == [*own, "open"]  # a field of every stream


ZEROS = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([(ZEROS, "a")], "inputs: 2 values for 1 labels"),
        ([(ZEROS, "ab", {"t": [1]})], "column t: 1 values for 2 labels"),
        ([(ZEROS, "ab", {"t": "xy"}), (ZEROS, "ab")], "give all rows the same ones"),
        ([(ZEROS, "ab"), (ZEROS[:, :2], "ab")], r"row 2 has shape \(2,\)"),
        ([(ZEROS, "ab"), (["x", "y"], "ab")], "some rows are texts and some are numbers"),
        ([], "has no training rows"),
    ],
    ids=range(6),
)
def test_blocks_must_fit_together(blocks: list, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        dataset_of(Source("s", lambda: [("train", Rows(*block)) for block in blocks]))


def test_texts_are_encoded_together_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLP_DATA", str(tmp_path / "home"))
    (tmp_path / "texts").write_text("")

    def read() -> Iterator[tuple[Any, Rows]]:
        yield "test", Rows(["aaaa"], ["y"], {"t": ["late"]})
        yield "train", Rows(["a", "bb"], ["x", "y"], {"t": ["early", "late"]})

    def lengths(texts: Any) -> np.ndarray:
        return np.array([[len(t), max(map(len, texts))] for t in texts], np.int32)

    def find(path: str) -> Source:
        """Count letters."""
        return Source("texts", read, [Path(path)], {"path": path}, lengths)

    count = door(find)
    for _ in range(2):  # read, and as it was kept
        stream = count(str(tmp_path / "texts"), by="t", experiences=[["early", "late"]])
        assert stream[0].train.x.tolist() == [[1, 4], [2, 4]]
        assert stream[0].test.x.tolist() == [[4, 4]]
        assert stream.preprocess.mean is None


def test_statistics_of_numbers_are_exact() -> None:
    x = np.random.default_rng(0).normal(1e4, 1e-2, (1000, 3)).astype(np.float32)
    x[:, 2] = 5
    stream = clp.Stream.from_arrays(x, np.arange(1000) % 2, experiences=1)
    trained = x[stream[0].train.index.numpy()].astype(np.float64)  # and of no test row
    assert len(trained) == 800
    assert stream.preprocess.mean == pytest.approx(trained.mean(0), rel=1e-12)
    assert stream.preprocess.std == pytest.approx([*trained.std(0)[:2], 1.0], rel=1e-6)
    images = np.random.default_rng(1).integers(0, 256, (50, 3, 4, 5), dtype=np.uint8)
    pixels = clp.Stream.from_arrays(images, np.arange(50) % 2, experiences=1)
    trained = images[pixels[0].train.index.numpy()].astype(np.float64)
    assert pixels.preprocess.mean == pytest.approx(trained.mean((0, 2, 3)), rel=1e-12)
    assert pixels.preprocess.std == pytest.approx(trained.std((0, 2, 3)), rel=1e-9)
    raw = clp.Stream.from_arrays(x, np.arange(1000) % 2, experiences=1, normalise=False)
    assert raw.preprocess.mean is None
