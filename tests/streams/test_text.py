"""Streams of texts: the real files, tokens that are made once, and published sequences."""

from __future__ import annotations

import csv
import fcntl
import gzip
import json
import shutil
import sys
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import cl_platform as clp
from cl_platform.config.signatures import build
from cl_platform.errors import BadInput, ClpError, DataError
from cl_platform.models.classifier import Classifier
from cl_platform.models.hub import load_tokenizer, text_weights
from streams.data import fetch, text_sources
from streams.data.datasets import arrays_home, load_dataset
from streams.data.text_formats import token_ids
from streams.data.text_sources import CL5, CL15, TEXT_SOURCES
from tests.helpers.hand_made import assert_one_line

CLS, SEP, PAD = 101, 102, 0  # of MiniLM's vocabulary


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty, writable data folder."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("CLP_DATA", str(folder))
    return folder


def write(path: Path, content: str, encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding=encoding)


def write_rows(path: Path, *rows: tuple[str, int]) -> None:
    lines = "\n".join(json.dumps({"text": text, "label": label}) for text, label in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(lines.encode()))


def banking(folder: Path) -> None:
    write(folder / "categories.json", '["lost", "found"]')
    write(folder / "train.csv", 'text,category\nwhere is it,lost\n"here, it is",found\n')
    write(folder / "test.csv", "text,category\ngone,lost\nback,found\n")


def trec(folder: Path) -> None:
    write(folder / "train_5500.label", "NUM:date When ?\nLOC:city Where\x85 ?\n", "latin-1")
    write(folder / "TREC_10.label", "NUM:date Which day ?\nLOC:city Café ?\n", "latin-1")


def newsgroups(folder: Path) -> None:
    write(folder / "meta.json", '{"labels": ["sci.med", "rec.autos", "sci.space"]}')
    for part in ("train", "test"):
        write_rows(folder / f"{part}.jsonl.gz", ("a pill", 0), ("a car", 1), ("a moon", 2))


def sequence(folder: Path, *names: str) -> None:
    """Sets of two labels, one of them shared by all."""
    meta = {name: {"labels": ["good", f"only in {name}"]} for name in names}
    write(folder / "meta.json", json.dumps(meta))
    for name in names:
        write_rows(folder / f"{name}.train.jsonl.gz", (f"fine {name}", 0), (name, 1))
        write_rows(folder / f"{name}.test.jsonl.gz", (f"nice {name}", 0), (f"so {name}", 1))


MADE: dict[str, Callable[[Path], None]] = {
    "banking77": banking,
    "trec": trec,
    "newsgroups20": newsgroups,
    "text-cl5": lambda folder: sequence(folder, *CL5),
    "text-cl15": lambda folder: sequence(folder, *CL15),
}


def decoded(ids: Tensor) -> str:
    return str(load_tokenizer("minilm").decode(ids[ids != PAD].tolist()))


# The published files.


def test_clinc150_as_tokens(real_data: Path) -> None:
    texts = json.loads((real_data / "clinc150" / "data_full.json").read_text())
    data = load_dataset("clinc150", "minilm")
    assert data.train.source.dtype == torch.int32
    assert (data.train.source[:, 0] == CLS).all()
    assert (data.train.source == SEP).sum(1).eq(1).all()
    longest = max((s != PAD).sum(1).max() for s in (data.train.source, data.test.source))
    assert data.train.source.shape == (15000, longest)
    assert data.test.source.shape == (4500, longest)
    for row in (0, 7000, 14999):
        text, intent = texts["train"][row]
        assert decoded(data.train.source[row]) == f"[CLS] {text} [SEP]"
        assert data.class_names[data.train.y[row]] == intent
    assert torch.equal(data.train.y, load_dataset("clinc150").train.y)
    by_ten = build("stream", {"name": "split-clinc150", "experiences": 15, "tokenizer": "minilm"})
    assert [len(e.classes) for e in by_ten.experiences] == [10] * 15
    assert by_ten.input_shape == (longest,)


def test_banking77_is_complete(real_data: Path) -> None:
    with (real_data / "banking77" / "train.csv").open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    data = load_dataset("banking77")
    assert data.note == ""
    assert [data.class_names[c] for c in data.train.y.tolist()] == [label for _, label in rows]
    assert len(data.test) == 3080
    assert torch.bincount(data.test.y).tolist() == [40] * 77
    names = json.loads((real_data / "banking77" / "categories.json").read_text())
    assert list(data.class_names) == names
    stream = build("stream", {"name": "split-banking77"})
    assert [len(e.classes) for e in stream.experiences] == [11] * 7


def test_trec_has_fine_classes_in_coarse_groups(real_data: Path) -> None:
    lines = (real_data / "trec" / "train_5500.label").read_bytes().splitlines()
    labels = [line.partition(b" ")[0].decode() for line in lines]
    data = load_dataset("trec")
    assert data.note == ""
    assert [data.class_names[c] for c in data.train.y.tolist()] == labels
    assert len(data.test) == 500
    stream = build("stream", {"name": "split-trec"})
    assert [e.name for e in stream.experiences] == ["ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"]
    assert stream.n_classes == len(set(labels)) == 50
    for e in stream.experiences:
        assert {stream.class_names[c].partition(":")[0] for c in e.classes} == {e.name}


def test_newsgroups_are_grouped_by_their_first_word(real_data: Path) -> None:
    data = load_dataset("newsgroups20")
    assert data.note == "2000 of 11314 training samples"
    assert torch.bincount(data.test.y).tolist() == [100] * 20
    stream = build("stream", {"name": "split-newsgroups20", "experiences": "groups"})
    assert [e.name for e in stream.experiences] == [
        "alt",
        "comp",
        "misc",
        "rec",
        "sci",
        "soc",
        "talk",
    ]
    assert len(build("stream", {"name": "split-newsgroups20"})) == 10


def labels_of(real_data: Path) -> dict[str, list[str]]:
    metas = [
        json.loads((real_data / f / "meta.json").read_text()) for f in ("text_cl5", "text_cl15")
    ]
    return {name: meta["labels"] for part in metas for name, meta in part.items()}


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("text-cl5", "yelp agnews dbpedia amazon yahoo"),
        (
            "text-cl15",
            "mnli cb wic copa qqp boolq rte imdb yelp amazon sst2 dbpedia agnews multirc yahoo",
        ),
    ],
)
def test_published_sequences(real_data: Path, name: str, order: str) -> None:
    labels = labels_of(real_data)
    sets = order.split()
    own, task, shared = (
        build("stream", {"name": name, "scenario": s}) for s in ("class", "task", "domain")
    )
    assert own.name.startswith(f"{name} (")
    for stream in (own, task, shared):
        assert [e.name for e in stream.experiences] == sets
        for e in stream.experiences:
            assert {stream.class_names[c].rpartition("/")[2] for c in e.classes} == set(
                labels[e.name]
            )
    assert own.n_classes == task.n_classes == sum(len(labels[s]) for s in sets)
    assert task.scenario == "task"
    assert set(shared.class_names) == {label for s in sets for label in labels[s]}
    assert shared.n_classes == len(set(shared.class_names))
    assert own.superclasses == tuple(s for s in sets for _ in labels[s])
    for before, after in zip(own.experiences, shared.experiences, strict=True):
        assert torch.equal(before.test.index, after.test.index)
        names = [own.class_names[c].partition("/")[2] for c in before.test.y.tolist()]
        assert [shared.class_names[c] for c in after.test.y.tolist()] == names


def test_two_sets_of_reviews_share_their_stars(real_data: Path) -> None:
    """33 classes, as d'Autume et al. 2019 count them."""
    stream = build("stream", {"name": "text-cl5", "scenario": "domain"})
    yelp, amazon = stream[0], stream[3]
    assert (yelp.name, amazon.name) == ("yelp", "amazon")
    assert yelp.classes == amazon.classes
    assert stream.n_classes == 33
    assert build("stream", {"name": "text-cl5"}).n_classes == 38


# Tokens.


def test_texts_are_cut_and_padded_to_the_longest() -> None:
    texts = ["hello", "", "hello world, hello world"]
    found = token_ids(texts, "minilm", 64)
    assert found.dtype == np.int32
    assert found.tolist() == [
        [CLS, 7592, SEP, PAD, PAD, PAD, PAD],
        [CLS, SEP, PAD, PAD, PAD, PAD, PAD],
        [CLS, 7592, 2088, 1010, 7592, 2088, SEP],
    ]
    assert token_ids(texts, "minilm", 4).tolist() == [
        [CLS, 7592, SEP, PAD],
        [CLS, SEP, PAD, PAD],
        [CLS, 7592, 2088, SEP],
    ]


def test_training_and_test_texts_are_padded_alike(home: Path) -> None:
    banking(home / "banking77")
    data = load_dataset("banking77", "minilm")
    n = len(["here", ",", "it", "is"]) + 2
    assert data.train.source.shape == data.test.source.shape == (2, n)
    assert decoded(data.test.source[0]) == "[CLS] gone [SEP]"
    assert (data.mean, data.std) == (None, None)


def test_texts_are_tokenised_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    banking(home / "banking77")
    first = load_dataset("banking77", "minilm", 5)
    monkeypatch.setitem(sys.modules, "transformers", None)
    again = load_dataset("banking77", "minilm", 5)
    assert torch.equal(again.train.source, first.train.source)
    assert again.train.fingerprint == first.train.fingerprint
    with pytest.raises(DataError, match="needs transformers"):
        load_dataset("banking77", "minilm", 6)


def test_each_tokenizer_and_length_has_arrays_of_its_own(home: Path, tmp_path: Path) -> None:
    banking(home / "banking77")
    mine = tmp_path / "mine"
    mine.mkdir()
    for path in Path(text_weights("minilm")).iterdir():
        if path.suffix in (".json", ".txt"):
            shutil.copy(path, mine)
    load_dataset("banking77", "minilm")
    load_dataset("banking77", str(mine), 64)  # the same files elsewhere
    assert len(list(arrays_home().iterdir())) == 1
    settings = json.loads((mine / "tokenizer.json").read_text())
    settings["normalizer"]["lowercase"] = not settings["normalizer"]["lowercase"]
    (mine / "tokenizer.json").write_text(json.dumps(settings))
    load_dataset("banking77", str(mine))
    load_dataset("banking77", "minilm", 5)
    load_dataset("banking77")
    assert len(list(arrays_home().iterdir())) == 4


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        ({"name": "split-trec", "tokenizer": "minilm", "tokens": 513}, "minilm takes 512 at most"),
        ({"name": "split-trec", "tokenizer": "minilm", "tokens": 2}, "greater than or equal to 3"),
        ({"name": "split-trec", "tokenizer": "no-one-at-all/absent"}, "is not available"),
        ({"name": "split-digits", "tokenizer": "minilm"}, "tokenizer"),
    ],
)
def test_tokens_that_are_not_available_are_reported(home: Path, stream: dict, message: str) -> None:
    trec(home / "trec")
    with pytest.raises(BadInput, match=message) as caught:
        build("stream", stream)
    assert_one_line(caught.value)


def test_a_tokenizer_that_cannot_pad_is_told(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copyfile(Path(text_weights("minilm")) / name, tmp_path / name)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings |= {"pad_token": None, "tokenizer_class": "PreTrainedTokenizerFast"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(DataError, match="no token for padding; give another") as caught:
        token_ids(["a text"], str(tmp_path), 9)
    assert_one_line(caught.value)


def test_images_have_no_tokens(home: Path) -> None:
    with pytest.raises(DataError, match="data set 'digits' has no texts; leave it out") as caught:
        load_dataset("digits", "minilm")
    assert_one_line(caught.value)


# Files that are not as they should be.


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("tokenizer", [None, "minilm"])
def test_made_up_files_are_read(home: Path, name: str, tokenizer: str | None) -> None:
    MADE[name](home / name.replace("-", "_"))
    data = load_dataset(name, tokenizer)
    n = len(data.class_names)
    assert len(data.train) == len(data.test) == n
    assert data.train.y.sort().values.tolist() == list(range(n))
    assert sorted(c for group in data.groups.values() for c in group) in ([], list(range(n)))
    assert "training samples" in data.note


def test_a_latin_letter_does_not_end_a_question(home: Path) -> None:
    trec(home / "trec")
    data = load_dataset("trec", "minilm")
    assert data.class_names == ("LOC:city", "NUM:date")
    assert decoded(data.test.source[1]) == "[CLS] cafe? [SEP]"


def test_five_of_the_fifteen_may_lie_in_the_folder_of_the_five(home: Path) -> None:
    sequence(home / "text_cl5", *CL5)
    sequence(home / "text_cl15", *(name for name in CL15 if name not in CL5))
    assert [e.name for e in build("stream", {"name": "text-cl15"}).experiences] == list(CL15)
    (home / "text_cl5" / "yahoo.test.jsonl.gz").unlink()
    shutil.rmtree(arrays_home())
    with pytest.raises(DataError, match=r"lacks yahoo; put SET\.train\.jsonl\.gz and .*text_cl15"):
        load_dataset("text-cl15")


@pytest.mark.parametrize("name", ["text-cl5", "text-cl15"])
def test_sequences_without_files_say_which_and_where(home: Path, name: str) -> None:
    with pytest.raises(
        DataError,
        match=rf"for each of .*yelp.* put SET\.train\.jsonl\.gz .*meta\.json.*{home / name}",
    ) as caught:
        load_dataset(name)
    assert_one_line(caught.value)


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        ("banking77", "categories.json", '["lost"]'),
        ("banking77", "test.csv", "text,category\n"),
        ("banking77", "train.csv", "a,b\nc,d\n"),
        ("trec", "TREC_10.label", "nothing\n"),
        ("trec", "TREC_10.label", "NEW:kind of question ?\n"),
        ("newsgroups20", "test.jsonl.gz", "not packed"),
        ("newsgroups20", "meta.json", "{}"),
        ("text-cl5", "meta.json", '{"yelp": {"labels": ["good"]}}'),
    ],
)
@pytest.mark.parametrize("tokenizer", [None, "minilm"])
def test_damaged_files_are_told(
    home: Path, name: str, file: str, content: str, tokenizer: str | None
) -> None:
    MADE[name](home / name)
    write(home / name / file, content)
    with pytest.raises(DataError, match=f"data set '{name}' cannot be read") as caught:
        load_dataset(name, tokenizer)
    assert_one_line(caught.value)
    assert not arrays_home().exists()


def test_a_label_below_zero_is_no_label_from_the_end(home: Path) -> None:
    newsgroups(home / "newsgroups20")
    write_rows(home / "newsgroups20" / "test.jsonl.gz", ("a pill", -1))
    with pytest.raises(DataError, match="cannot be read"):
        load_dataset("newsgroups20")


# Downloads.


def test_published_files_are_fetched_once(
    real_data: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def answer(address: str, timeout: float) -> BytesIO:
        asked.append(address)
        with (home / "raw" / ".banking77.lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # other processes wait
        return BytesIO((real_data / "banking77" / address.rpartition("/")[2]).read_bytes())

    monkeypatch.setattr(fetch, "urlopen", answer)
    assert len(load_dataset("banking77").train) == 10003
    assert {a.partition("://")[0] for a in asked} == {"https"}
    n = len(asked)
    assert n == len(set(asked)) == 3
    TEXT_SOURCES["banking77"].download(home / "raw")  # from the files that lie there now
    assert len(asked) == n
    (home / "raw" / "banking77" / "test.csv").write_text("text,category")
    with pytest.raises(DataError, match=r"test.csv is not the published file.*delete it") as caught:
        TEXT_SOURCES["banking77"].download(home / "raw")
    assert_one_line(caught.value)


@pytest.mark.parametrize("name", ["clinc150", "banking77", "trec", "newsgroups20"])
def test_what_was_not_published_is_not_read(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(fetch, "urlopen", lambda address, timeout: BytesIO(b"{}"))
    with pytest.raises(
        DataError, match=r"https://.* is not the published file \(sha256 44136"
    ) as caught:
        load_dataset(name)
    assert_one_line(caught.value)
    assert [p.name for p in home.rglob("*") if p.is_file()] == [f".{name}.lock"]


def test_a_download_that_breaks_off_leaves_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(BytesIO):
        def read(self, *_: object) -> bytes:
            raise ConnectionError("connection\nlost")

    monkeypatch.setattr(fetch, "urlopen", lambda address, timeout: Broken())
    with pytest.raises(DataError, match=r"connection lost.*put its official files into") as caught:
        load_dataset("trec")
    assert_one_line(caught.value)
    assert [p.name for p in home.rglob("*") if p.is_file()] == [".trec.lock"]


def test_newsgroups_come_from_their_archive(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pickle that scikit-learn would have loaded lies beside it."""
    posts = {
        "20news-bydate-train/sci.med/1": b"Newsgroups: sci.med\n\ntrain pill\n\nend",
        "20news-bydate-train/rec.autos/2": b"Subject: x\n\ncaf\xe9",
        "20news-bydate-test/sci.med/3": b"Subject: y\n\ntest pill",
        "20news-bydate-test/rec.autos/4": b"Subject: z\n\ncar",
    }
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in posts.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, BytesIO(text))
    (home / "raw").mkdir(parents=True)
    (home / "raw" / "20news-bydate_py3.pkz").write_bytes(b"evil")
    monkeypatch.setattr(text_sources, "fetch", lambda *_: packed.getvalue())
    data = load_dataset("newsgroups20", "minilm")
    assert data.class_names == ("rec.autos", "sci.med")
    assert data.groups == {"rec": [0], "sci": [1]}
    assert data.train.y.tolist() == [0, 1]
    assert decoded(data.train.source[0]) == "[CLS] cafe [SEP] [PAD]"[: -len(" [PAD]")]
    assert decoded(data.test.source[1]) == "[CLS] test pill [SEP]"


def test_files_may_begin_with_a_byte_order_mark(home: Path) -> None:
    folder = home / "banking77"
    banking(folder)
    plain = load_dataset("banking77")
    for path in folder.iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    shutil.rmtree(arrays_home())
    assert load_dataset("banking77").train.fingerprint == plain.train.fingerprint


# Learning from tokens.


class BagOfTokens(Classifier):
    """The mean of vectors that are learned for each token."""

    def __init__(self, input_shape: tuple[int, ...], n_classes: int) -> None:
        super().__init__()
        self.vectors = nn.EmbeddingBag(30522, 32, padding_idx=PAD)
        self.classifier = nn.Linear(32, n_classes)

    def features(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.int32
        found: Tensor = self.vectors(x)
        return found


TREC: dict[str, Any] = {"name": "split-trec", "tokenizer": "minilm", "samples": 200}


@pytest.mark.system
@pytest.mark.parametrize("strategy", ["finetune", "er", "a-gem", "icarl", "ncm", "slda", "joint"])
def test_models_of_tokens_learn(real_data: Path, strategy: str) -> None:
    adam = {"name": "adam", "lr": 0.02}
    result = clp.run(
        TREC, strategy, model=BagOfTokens, epochs=3, scenario="task", optimizer=adam, out=None
    )
    trained, untrained = result.matrices["task"].values[[-1, 0], -1]
    assert trained > max(untrained, 0.3)


def test_a_memory_keeps_tokens_and_a_run_goes_on(real_data: Path, tmp_path: Path) -> None:
    first = clp.run(TREC, "er", model=BagOfTokens, out=tmp_path)
    (tmp_path / "runs" / first.run_id / "result.json").unlink()
    again = clp.run(TREC, "er", model=BagOfTokens, out=tmp_path)
    assert again.matrix == first.matrix


def test_models_of_numbers_refuse_tokens_in_one_line(real_data: Path) -> None:
    with pytest.raises(ClpError, match="token ids, which an mlp cannot read") as caught:
        clp.run(TREC, "er", out=None)
    assert_one_line(caught.value)


def test_orders_of_tokens_are_ranked(
    real_data: Path, clp: Callable[..., tuple[int, str, str]]
) -> None:
    stream = ("rank", "--stream", "split-trec", "--set", "stream.tokenizer=minilm", "--json")
    code, out, _ = clp(*stream, "--set", "curriculum.encoder=text", "--set", "curriculum.samples=5")
    assert code == 0
    for found in json.loads(out)["top"]:
        assert sorted(found["order"]) == list(range(6))
    code, _, err = clp(*stream)
    assert code == 2
    assert "give encoder=text" in err
