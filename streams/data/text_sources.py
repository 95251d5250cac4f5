"""Sources of text data sets; see ``streams.data.sources``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.request import urlopen

from cl_platform.errors import DataError
from cl_platform.storage.files import write_atomic
from streams.data.formats import Source
from streams.data.text_formats import (
    Labelled,
    Texts,
    by_prefix,
    read_banking,
    read_clinc,
    read_newsgroups,
    read_sequence,
    read_trec,
)


def _files_source(
    name: str, address: str, files: Sequence[str], read: Callable[[Path], Texts]
) -> Source[Texts]:
    """Return a source for a set whose files can be downloaded one by one from an address."""

    def local(folder: Path) -> Texts | None:
        return read(folder) if (folder / files[0]).exists() else None

    def download(raw: Path) -> Texts:
        for file in files:
            path = raw / name / file
            if not path.exists():
                with urlopen(f"{address}/{file}", timeout=60) as answer:
                    write_atomic(path, answer.read())
        return read(raw / name)

    return Source(local, download)


def _newsgroups_local(folder: Path) -> Texts | None:
    return read_newsgroups(folder) if (folder / "train.jsonl.gz").exists() else None


def _newsgroups_download(raw: Path) -> Texts:
    """Read them without headers, which name the group."""
    from sklearn.datasets import fetch_20newsgroups

    def part(subset: str) -> Labelled:
        bunch = fetch_20newsgroups(data_home=raw, subset=subset, remove=("headers",))
        names.update(dict.fromkeys(bunch.target_names))
        return [(t, bunch.target_names[c]) for t, c in zip(bunch.data, bunch.target, strict=True)]

    names: dict[str, None] = {}
    train, test = part("train"), part("test")
    return Texts(train, test, list(names), by_prefix(names, "."))


def _sequence_source(name: str, sets: Sequence[str], *beside: str) -> Source[Texts]:
    """Return a source for data sets that are learned one after the other.

    Args:
        beside: other folders of the data folder where some of them may lie.
    """

    def local(folder: Path) -> Texts | None:
        if not folder.is_dir():
            return None
        folders = [folder, *(folder.with_name(other) for other in beside)]
        # The first folder takes precedence: of equal keys the last one counts.
        found = {s: f for s in sets for f in reversed(folders) if _is_complete(f, s)}
        if absent := [s for s in sets if s not in found]:
            raise DataError(f"data set {name!r} lacks {', '.join(absent)}; put {files} {folder}")
        return read_sequence(found)

    def download(raw: Path) -> Texts:
        raise DataError(
            f"data set {name!r} is at no public address; for each of {', '.join(sets)} put "
            f"{files} {raw.with_name(name)}"
        )

    files = (
        "SET.train.jsonl.gz and SET.test.jsonl.gz, lines of {text, label}, "
        "and a meta.json, {SET: {labels}}, into"
    )
    return Source(local, download)


def _is_complete(folder: Path, name: str) -> bool:
    files = (f"{name}.train.jsonl.gz", f"{name}.test.jsonl.gz", "meta.json")
    return all((folder / file).exists() for file in files)


CL5 = ("yelp", "agnews", "dbpedia", "amazon", "yahoo")
CL15 = (
    *("mnli", "cb", "wic", "copa", "qqp", "boolq", "rte", "imdb"),
    *("yelp", "amazon", "sst2", "dbpedia", "agnews", "multirc", "yahoo"),
)

TEXT_SOURCES: dict[str, Source[Texts]] = {
    "clinc150": _files_source(
        "clinc150",
        "https://raw.githubusercontent.com/clinc/oos-eval/master/data",
        ("data_full.json", "domains.json"),
        read_clinc,
    ),
    "banking77": _files_source(
        "banking77",
        "https://raw.githubusercontent.com/PolyAI-LDN/task-specific-datasets/master/banking_data",
        ("train.csv", "test.csv", "categories.json"),
        read_banking,
    ),
    "trec": _files_source(
        "trec",
        "https://cogcomp.seas.upenn.edu/Data/QA/QC",
        ("train_5500.label", "TREC_10.label"),
        read_trec,
    ),
    "newsgroups20": Source(_newsgroups_local, _newsgroups_download),
    "text-cl5": _sequence_source("text-cl5", CL5),
    "text-cl15": _sequence_source("text-cl15", CL15, "text-cl5", "text_cl5"),
}
