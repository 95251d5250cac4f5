"""Streams of tables: the same data through every kind of file, columns found by name, and what is
refused."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import cl_platform as clp
from cl_platform import Stream
from cl_platform.config.signatures import build
from cl_platform.errors import ClpError
from streams.data.text_formats import hashed_words, read_trec
from tests.helpers.hand_made import assert_one_line

CSV = 'text,label\n"one, two",b\n"three\nfour",a\n"say ""five""",b\nsix,a\n'
TEXTS = ["one, two", "three\nfour", 'say "five"', "six"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with an empty data folder beside the files."""
    monkeypatch.setenv("CLP_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(path: Any, **parameters: Any) -> Stream:
    stream: Stream = build("stream", {"name": "table", "path": path, **parameters})
    return stream


def identities(stream: Stream) -> list[str]:
    return [e.identity for e in stream.experiences]


def write(path: str, content: str | bytes) -> str:
    Path(path).write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def inputs(stream: Stream) -> np.ndarray:
    """All inputs in stored order, (n, D)."""
    return stream.experiences[0].train.source.flatten(1).numpy()


def labels(stream: Stream) -> dict[int, str]:
    """The class of each stored row of the training data, by its number."""
    pairs = [(e.train.index, e.train.y) for e in stream.experiences]
    return {
        int(i): stream.class_names[c] for index, y in pairs for i, c in zip(index, y, strict=True)
    }


# --- the same data through each kind of file


@pytest.fixture(scope="module")
def trec(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Paths of the TREC questions as written by pandas, by ending."""
    from tests.conftest import REAL_DATA

    if not REAL_DATA.is_dir():
        pytest.skip(f"no real data sets in {REAL_DATA}")
    texts = read_trec(REAL_DATA / "trec")
    rows = [(*row, part) for part in ("train", "test") for row in getattr(texts, part)]
    frame = pd.DataFrame(rows, columns=["text", "label", "split"])
    folder = tmp_path_factory.mktemp("trec")
    frame.to_csv(folder / "trec.csv", index=False)
    frame.to_csv(folder / "bom.csv", index=False, encoding="utf-8-sig", lineterminator="\r\n")
    frame.to_csv(folder / "trec.csv.gz", index=False)
    frame.to_csv(folder / "trec.tsv", index=False, sep="\t")
    frame.to_csv(folder / "latin.csv", index=False, encoding="latin-1", sep=";")
    frame.to_json(folder / "trec.jsonl", orient="records", lines=True, force_ascii=False)
    frame.to_json(folder / "trec.jsonl.gz", orient="records", lines=True)
    frame.to_parquet(folder / "trec.parquet")
    frame.astype({"label": "category"}).to_parquet(folder / "category.parquet")
    for part, rows_of_it in frame.groupby("split"):
        rows_of_it.drop(columns="split").to_csv(folder / f"{part}.csv", index=False)
    return lambda name: str(folder / name)


KINDS = ["trec.csv", "bom.csv", "trec.csv.gz", "trec.tsv", "latin.csv", "trec.jsonl"]
KINDS += ["trec.jsonl.gz", "trec.parquet", "category.parquet"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_bits_of_the_published_set(
    trec: Callable[[str], str], home: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"encoding": "latin-1", "separator": ";"} if kind == "latin.csv" else {}
    stream = table(trec(kind), experiences=4, **more)
    assert identities(stream) == identities(_published(monkeypatch))
    assert stream.name == f"split-{kind.partition('.')[0]}"


def _published(monkeypatch: pytest.MonkeyPatch) -> Stream:
    from tests.conftest import REAL_DATA

    monkeypatch.setenv("CLP_DATA", str(REAL_DATA))
    stream: Stream = build("stream", {"name": "split-trec", "experiences": 4})
    return stream


def test_parts_in_files_of_their_own(trec: Callable[[str], str], home: Path) -> None:
    whole = identities(table(trec("trec.csv")))
    assert identities(table(trec("train.csv"), test_path=trec("test.csv"))) == whole
    folder = home / "mine"
    folder.mkdir()
    for part in ("train", "test"):
        (folder / f"{part}-00000-of-00001.csv").write_bytes(Path(trec(f"{part}.csv")).read_bytes())
    stream = table("mine")
    assert identities(stream) == whole
    assert stream.name == "split-mine"
    lines = Path(trec("train.csv")).read_text().splitlines(keepends=True)
    write("1.csv", "".join(lines[:3000]))
    write("2.csv", lines[0] + "".join(lines[3000:]))
    assert identities(table(["1.csv", "2.csv"], test_path=[trec("test.csv")])) == whole


def test_token_ids_are_those_of_the_published_set(
    trec: Callable[[str], str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = {"tokenizer": "minilm", "tokens": 16, "experiences": 2}
    stream = table(trec("trec.parquet"), **tokens)
    assert stream.experiences[0].train.source.dtype == torch.int32
    assert stream.input_shape == (16,)
    from tests.conftest import REAL_DATA

    monkeypatch.setenv("CLP_DATA", str(REAL_DATA))
    assert identities(stream) == identities(build("stream", {"name": "split-trec", **tokens}))


def test_the_same_matrix_from_each_kind_of_file(trec: Callable[[str], str], home: Path) -> None:
    found = []
    for kind in ("trec.csv", "trec.tsv", "trec.jsonl", "trec.parquet"):
        stream = {"name": "table", "path": trec(kind), "experiences": 3, "samples": 60}
        result = clp.run(stream, "finetune", out=str(home / kind), lr=0.01)
        found.append(result.matrix.values)
    assert all(np.array_equal(matrix, found[0]) for matrix in found)
    assert found[0][3].max() > 0.05  # something was learned


# --- columns


def test_text_is_read_as_it_is_quoted(home: Path) -> None:
    stream = table(write("a.csv", CSV), test_share=0)
    assert np.array_equal(inputs(stream), hashed_words(TEXTS).reshape(4, -1))
    assert labels(stream) == dict(enumerate("baba"))
    assert stream.class_names == ("a", "b")


def test_words_that_look_like_nothing_are_words(home: Path) -> None:
    rows = "text,label\nNA,None\nnull,nan\nNaN,None\n,nan\n"
    stream = table(write("a.csv", rows), test_share=0)
    assert stream.class_names == ("None", "nan")
    assert np.array_equal(inputs(stream), hashed_words(["NA", "null", "NaN", ""]).reshape(4, -1))


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([7, 3, 7, 10], ("3", "7", "10")),
        ([True, False, True, False], ("False", "True")),
        (["10", "9", "x", "9"], ("9", "10", "x")),
        ([1.0, 2.0, 1.0, 2.0], ("1", "2")),
    ],
)
def test_labels_keep_their_names(home: Path, values: list[Any], names: tuple[str, ...]) -> None:
    frame = pd.DataFrame({"text": list("abcd"), "label": values})
    frame.to_parquet("a.parquet")
    frame.to_json("a.jsonl", orient="records", lines=True)
    for path in ("a.parquet", "a.jsonl"):
        stream = table(path, test_share=0)
        assert stream.class_names == names
        assert [labels(stream)[i] for i in range(4)] == [
            str(int(v)) if isinstance(v, float) else str(v) for v in values
        ]


NUMBERS = pd.DataFrame(
    {
        "id": range(8),
        "width": [1.5, -2.0, 3.25, 1e10, 0.0, 1.0, 2.0, 3.0],
        "colour": list("rgbrgbrg"),
        "height": range(10, 18),
        "class": list("xyxyxyxy"),
        "split": ["train"] * 6 + ["test"] * 2,
    }
)


def test_all_numbers_are_features(home: Path) -> None:
    NUMBERS.to_csv("a.csv", index=False)
    NUMBERS.to_parquet("a.parquet")
    NUMBERS.to_json("a.jsonl", orient="records", lines=True)
    streams = [table(path) for path in ("a.csv", "a.parquet", "a.jsonl")]
    assert len({tuple(identities(stream)) for stream in streams}) == 1
    wanted = NUMBERS[["width", "height"]].to_numpy(np.float32)
    assert np.array_equal(inputs(streams[0]), wanted[:6])
    mean, std = streams[0].preprocess.mean, streams[0].preprocess.std
    assert mean == pytest.approx(wanted[:6].astype(np.float64).mean(0).tolist())  # of training rows
    assert std == pytest.approx(wanted[:6].astype(np.float64).std(0).tolist())
    assert table("a.csv", normalise=False).preprocess.mean is None
    chosen = table("a.csv", features=["height", "id"])
    assert np.array_equal(inputs(chosen), NUMBERS[["height", "id"]].to_numpy(np.float32)[:6])
    assert table("a.csv", features="height").input_shape == (1,)


def test_lists_of_numbers_are_features(home: Path) -> None:
    vectors = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.5], [0.0, 1.0]]
    frame = pd.DataFrame({"embedding": vectors, "size": [1, 2, 3, 4], "label": list("abab")})
    frame.to_parquet("a.parquet")
    frame.to_json("a.jsonl", orient="records", lines=True)
    wanted = np.column_stack([np.array(vectors), [1, 2, 3, 4]]).astype(np.float32)
    for path in ("a.parquet", "a.jsonl"):
        assert np.array_equal(inputs(table(path, test_share=0)), wanted)


def test_columns_are_found_or_given(home: Path) -> None:
    rows = "Question,Intent,note,number\nwho,a,p,1\nwhere,b,q,2\nwhen,a,r,3\nwhy,b,s,4\n"
    write("a.csv", rows)
    found = table("a.csv", test_share=0)
    assert np.array_equal(inputs(found), hashed_words(["who", "where", "when", "why"])[:, 0, 0])
    given = table("a.csv", test_share=0, text="note", label="number")
    assert given.class_names == ("1", "2", "3", "4")
    assert np.array_equal(inputs(given), hashed_words(list("pqrs"))[:, 0, 0])


def test_a_column_called_split_may_say_something_else(home: Path) -> None:
    rows = "text,label,split\na,x,left\nb,y,right\nc,x,left\nd,y,right\n"
    write("a.csv", rows)
    assert len(table("a.csv", test_share=0).experiences[0].train) == 2
    with pytest.raises(ClpError, match="row 1: split='left'; give train, validation or test"):
        table("a.csv", split="split")


def test_validation_rows_are_kept_apart(home: Path) -> None:
    rows = "text,label,split\na,x,train\nb,y,Train\nc,x,dev\nd,y,val\ne,x,test\nf,y,testing\n"
    (experience,) = table(write("a.csv", rows), experiences=1).experiences
    assert [len(s) for s in (experience.train, experience.validation, experience.test)] == [2, 2, 2]


# --- tasks and times


def rows_by_time(column: list[Any]) -> pd.DataFrame:
    n = len(column)
    return pd.DataFrame(
        {"text": [f"t{i}" for i in range(n)], "label": ["a", "b"] * (n // 2), "date": column}
    )


DAYS = [f"2024-{month:02}-{day:02}" for month in range(1, 13) for day in (1, 9, 17, 25)]


@pytest.mark.parametrize("form", ["text", "zone", "timestamp", "date", "number"])
def test_dates_share_out_rows_in_intervals(home: Path, form: str) -> None:
    """Whatever the order of the rows and the way the dates are written."""
    order = np.random.default_rng(0).permutation(len(DAYS))
    days = [DAYS[i] for i in order]
    times: Any = {
        "text": days,
        "zone": [f"{day}T02:00:00+02:00" for day in days],
        "timestamp": pd.to_datetime(days),
        "date": [pd.Timestamp(day).date() for day in days],
        "number": [int(day.replace("-", "")) for day in days],
    }[form]
    rows_by_time(times).to_parquet("a.parquet")
    stream = table(
        "a.parquet", time="date", by="time", experiences=4, test_share=0, scenario="domain"
    )
    if form != "number":
        assert stream.experiences[0].name == "2024-01-01 to 2024-03-25"
    assert [len(e.train) for e in stream.experiences] == [12] * 4
    quarters = [{(int(days[i][5:7]) - 1) // 3 for i in e.train.index} for e in stream.experiences]
    assert quarters == [{0}, {1}, {2}, {3}]
    named = table("a.parquet", by="date", experiences=4, test_share=0, scenario="domain")
    assert identities(named) == identities(stream)


def test_hours_are_kept_beside_days(home: Path) -> None:
    times = ["2024-01-01T10:30:00", "2024-01-01T09:00:00", "2024-01-02", "2024-01-03"]
    rows_by_time(times).to_csv("a.csv", index=False)
    stream = table("a.csv", by="time", experiences=2, test_share=0, scenario="domain")
    assert [e.name for e in stream.experiences] == [
        "2024-01-01T09:00:00 to 2024-01-01T10:30:00",
        "2024-01-02T00:00:00 to 2024-01-03T00:00:00",
    ]


def test_boundaries_are_dates(home: Path) -> None:
    rows_by_time(DAYS).to_csv("a.csv", index=False)
    stream = table("a.csv", by="time", boundaries=["2024-02-01", "2024-11-20"], test_share=0)
    assert [len(e.train) for e in stream.experiences] == [4, 39, 5]


def test_tasks_share_out_rows(home: Path) -> None:
    rows = "text,label,task,domain\na,x,t1,d\nb,y,t1,e\nc,z,t2,d\nd,x,t2,e\n"
    write("a.csv", rows)
    stream = table("a.csv", by="task", test_share=0, scenario="task")
    assert [(e.name, e.classes) for e in stream.experiences] == [("t1", (0, 1)), ("t2", (0, 2))]
    other = table("a.csv", by="domain", test_share=0, scenario="task")
    assert [e.name for e in other.experiences] == ["d", "e"]
    assert identities(
        table("a.csv", task="domain", by="task", test_share=0, scenario="task")
    ) == identities(other)


def test_a_time_is_no_feature_and_may_be_missing_where_it_is_not_used(home: Path) -> None:
    write("a.csv", "size,time,label\n1,5,x\n2,,y\n3,7,x\n4,8,y\n")
    assert table("a.csv", test_share=0).input_shape == (1,)
    with pytest.raises(ClpError, match=r"row 2: time is missing \(1 such rows\)"):
        table("a.csv", by="time", experiences=2)


# --- what is refused

TEXT = "text,label\na,x\nb,y\n"


@pytest.mark.parametrize(
    ("content", "parameters", "message"),
    [
        (TEXT, {"label": "lable"}, "stream.label=lable: a.csv has none; its columns are text, label"),
        (TEXT, {"text": "txt"}, "stream.text=txt: a.csv has none"),
        (TEXT, {"features": ["size"]}, "a.csv has no column 'size'; its columns are text, label"),
        (TEXT, {"text": "text", "features": ["text"]}, "stream.text and stream.features are given; give one of them"),
        (TEXT, {"by": "month"}, "stream.by=month: a.csv has none; its columns are text, label"),
        (TEXT, {"features": ["text"]}, "row 1: text is 'a', no finite number (2 such rows)"),
        (TEXT, {"separator": ";"}, "a.csv has no column of labels: give stream.label; its columns are text,label"),
        ("a,b\n1,2\n", {}, "a.csv has no column of labels: give stream.label; its columns are a, b"),
        ("label,class,text\n1,2,3\n", {}, "a.csv: label or class may be the label; give one, stream.label=label"),
        ("a,label\nx,y\n", {}, "a.csv has no text and no numbers to learn from: give stream.text or"),
        ("text,label\na,x\nb,\n,y\n", {}, "a.csv, row 2: label is missing (1 such rows)"),
        ("w,h,label\n1,2,x\n1,,y\n", {}, "a.csv, row 2: h is nothing, no finite number (1 such rows)"),
        ("w,label\n1,x\n?,y\n3,x\n", {}, "a.csv, row 2: w is '?', no finite number"),
        ("w,label\n1,x\ninf,y\n3,x\n", {}, "a.csv, row 2: w is 'inf', no finite number"),
        ("w,label\n1,x\n1e39,y\n3,x\n", {}, "a.csv, row 2: w is '1e39', no finite number"),
        ("", {}, "a.csv cannot be read: No columns to parse"),
        ("text,label\n", {}, "a.csv has no rows"),
        ("text,label\na,b,c\nd,e,f\n", {}, "a.csv cannot be read: Length of header"),
        ("text,label\na,b\nd,e,f\n", {}, "a.csv cannot be read: Error tokenizing data"),
        ('text,label\n"a,b\n', {}, "a.csv cannot be read"),
        ("text,label\ncafé,b\n".encode("latin-1"), {}, "such as stream.encoding=latin-1"),
        (TEXT, {"encoding": "latin-99"}, "unknown encoding"),
        (TEXT, {"tokens": 2}, "stream.tokens=2"),
        (TEXT, {"test_path": "b.csv"}, "there is no file b.csv"),
        (TEXT, {"time": "label", "by": "time", "experiences": 3}, "time has 2 different values in 2 training rows"),
    ],
)  # fmt: skip
def test_bad_tables_are_one_clear_line(
    home: Path, content: str | bytes, parameters: dict[str, Any], message: str
) -> None:
    write("a.csv", content)
    with pytest.raises(ClpError) as caught:
        table("a.csv", **parameters)
    assert_one_line(caught.value)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"text": "a", "label": None}], "a.jsonl, row 1: label is missing"),
        ([{"text": "a", "label": 1}, {"text": "b"}], "a.jsonl, row 2: label is missing"),
        ([{"text": None, "label": 1}], "a.jsonl, row 1: text is missing"),
        ([{"text": ["a"], "label": 1}], "a.jsonl, row 1: text=['a'] is no text"),
        ([{"text": "a", "label": 0.5}], "a.jsonl, row 1: label=0.5 names no class"),
        ([{"text": "a", "label": [1]}], "a.jsonl, row 1: label=[1] names no class"),
        ([{"e": [1, 2], "label": 1}, {"e": [1], "label": 1}], "e holds lists that are not all of 2"),
        ([{"e": [1, 2], "label": 1}, {"e": None, "label": 1}], "e holds lists that are not all of 2"),
        ([[1, 2]], "a.jsonl, line 1: expected an object"),
        (["{"], "a.jsonl, line 1: Expecting property name"),
        ([], "a.jsonl has no rows"),
    ],
)  # fmt: skip
def test_bad_lines_are_one_clear_line(home: Path, lines: list[Any], message: str) -> None:
    write("a.jsonl", "\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines))
    with pytest.raises(ClpError) as caught:
        table("a.jsonl")
    assert_one_line(caught.value)
    assert message in str(caught.value)


def test_files_that_cannot_be_read_are_one_clear_line(home: Path) -> None:
    write("a.parquet", b"PAR1 no more")
    write("a.xlsx", b"PK")
    write("a.csv.gz", gzip.compress(TEXT.encode())[:-12])
    Path("empty").mkdir()
    for path, message in (
        ("a.parquet", "a.parquet cannot be read"),
        ("a.xlsx", "a.xlsx is no table: give one that ends in .csv"),
        ("a.csv.gz", "a.csv.gz cannot be read"),
        ("absent.csv", "there is no file absent.csv"),
        ("empty", "empty holds no table for training"),
        ([], "stream.path is empty"),
    ):
        with pytest.raises(ClpError, match=message) as caught:
            table(path)
        assert_one_line(caught.value)


def test_files_of_other_columns_are_named(home: Path) -> None:
    write("a.csv", TEXT)
    write("b.csv", "text,class\nc,x\n")
    with pytest.raises(
        ClpError, match=r"b\.csv has no column 'label'; its columns are text, class"
    ):
        table(["a.csv", "b.csv"])


def test_a_file_that_has_changed_is_read_anew(home: Path) -> None:
    before = identities(table(write("a.csv", CSV)))
    assert identities(table("a.csv")) == before
    write("a.csv", CSV.replace("six", "seven"))
    assert identities(table("a.csv")) != before
